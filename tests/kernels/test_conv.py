"""The conv kernels against straight float64 loops over taps."""

from __future__ import annotations

import numpy as np
import pytest
from conv_case import GRAD_RELU, GRAD_TANH, RELU, Case, Conv

from fastnn import _core


@pytest.fixture(params=_core.isas())
def isa(request):
    before = _core.isa()
    _core.set_isa(request.param)
    yield request.param
    _core.set_isa(before)


@pytest.fixture
def threads():
    before = _core.get_num_threads()
    yield
    _core.set_num_threads(before)


bits_of_both = pytest.mark.parametrize("bits", [32, 64])


@bits_of_both
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_strides_pads_dilations_kernels(isa, bits, stride, dilation):
    for kernel in (1, 2, 3, 5, 7):
        for pad in (0, 1, 2, 3):
            side = max(dilation * (kernel - 1) + 1 - 2 * pad, 6)
            for n in (1, 3):
                conv = Conv(
                    n=n, c=3 if n == 1 else 9, k=7, ih=side, iw=side + 3, kh=kernel, kw=kernel,
                    stride_h=stride, stride_w=stride, pad_h=pad, pad_w=pad,
                    dilation_h=dilation, dilation_w=dilation,
                )  # fmt: skip
                Case(conv, bits).check()


@bits_of_both
@pytest.mark.parametrize("k", [1, 3, 7, 15, 16, 17, 31, 32, 33, 65])
def test_channel_tails(isa, bits, k):
    for c in (1, 3, 7, 8, 15, 16, 17, 31, 32, 33):
        Case(Conv(c=c, k=k, ih=5, iw=6, pad_h=1, pad_w=1), bits).check()


@bits_of_both
@pytest.mark.parametrize(
    "conv",
    [
        Conv(kh=2, kw=5, stride_h=2, pad_w=2, dilation_h=2, ih=9, iw=8),
        Conv(kh=5, kw=1, stride_h=1, stride_w=3, pad_h=3, dilation_w=2, ih=4, iw=11),
        Conv(kh=1, kw=3, stride_h=3, stride_w=2, pad_w=1, dilation_w=3, ih=8, iw=13),
        Conv(pad_h=1, pad_w=1, oh=8, ow=7, ih=7, iw=6),  # more padding at the bottom right
        Conv(stride_h=2, stride_w=2, pad_h=1, pad_w=1, ih=8, iw=9, oh=4, ow=6),
        Conv(oh=2, ow=3, ih=9, iw=9),  # unused rows and columns
        Conv(kh=1, kw=1, oh=3, ow=2, ih=9, iw=9),
        Conv(pad_h=0, pad_w=2, oh=9, ow=4, ih=5, iw=9),  # the last output row sees no input at all
        Conv(kh=1, kw=1, stride_h=3, stride_w=4, ih=10, iw=9),  # pixels that no output reads
        Conv(kh=2, kw=2, stride_h=2, stride_w=4, dilation_h=2, dilation_w=2, ih=9, iw=11),
        Conv(kh=3, kw=2, stride_h=2, stride_w=2, dilation_h=4, dilation_w=6, ih=11, iw=11, c=8),
        Conv(c=20, k=33, n=3, ih=1, iw=1, kh=1, kw=1),
        Conv(c=20, k=33, n=3, ih=1, iw=1, pad_h=1, pad_w=1),
        Conv(c=20, k=40, n=7, ih=2, iw=3, pad_h=1, pad_w=1),
        Conv(c=3, k=40, n=1, ih=40, iw=9, kh=7, kw=7, stride_h=2, stride_w=2, pad_h=3, pad_w=3),
        Conv(c=24, k=24, n=1, ih=3, iw=250, pad_h=1, pad_w=1),
        Conv(c=32, k=32, n=33, ih=4, iw=4, pad_h=1, pad_w=1),
        Conv(c=40, k=24, n=20, ih=7, iw=7, kh=1, kw=1),
        Conv(c=1, k=6, n=20, ih=28, iw=28, kh=5, kw=5, pad_h=2, pad_w=2),
        Conv(c=2, k=70, n=1, ih=30, iw=30),
        Conv(n=0),
    ],
    ids=str,
)
def test_shapes(isa, bits, conv):
    Case(conv, bits).check()


@bits_of_both
@pytest.mark.parametrize("k", [4, 7, 16])  # a vector's lanes, or fewer
def test_samples_as_lanes(isa, bits, k):
    wide = {"ih": 7, "iw": 6, "kh": 5, "kw": 5}
    for conv in (
        Conv(n=16, c=6, k=k, **wide),
        Conv(n=67, c=6, k=k, **wide | {"ih": 5}),  # the last lanes are empty
        Conv(n=16, c=k, k=10, ih=5, iw=7, pad_h=1, pad_w=1),
        Conv(n=16, c=6, k=k, pad_h=3, pad_w=4, dilation_h=2, dilation_w=3, **wide),
        Conv(n=16, c=5, k=k, pad_h=2, pad_w=1, oh=9, ow=12, **wide),  # rows that see no input
        Conv(n=16, c=6, k=k, pad_h=5, pad_w=6, **wide),  # more padding than the kernel reaches
        Conv(n=16, c=5, k=k, oh=2, ow=1, **wide),  # unused rows and columns
    ):
        Case(conv, bits).check()


@bits_of_both
@pytest.mark.parametrize(
    "c, k, groups",
    [(4, 6, 2), (18, 34, 2), (64, 64, 2), (12, 8, 4), (3, 9, 3)]
    + [(c, c, c) for c in (2, 3, 7, 15, 16, 17, 31, 33, 64, 70)],
)
def test_groups(isa, bits, c, k, groups):
    for change in (
        {"pad_h": 1, "pad_w": 1},
        {"stride_h": 2, "stride_w": 2, "pad_h": 1, "pad_w": 1, "n": 3},
        {"kh": 2, "kw": 1, "stride_w": 3, "dilation_h": 2},
        {"kh": 1, "kw": 1},
    ):
        Case(Conv(c=c, k=k, groups=groups, **change), bits).check()


@bits_of_both
@pytest.mark.parametrize("c", [5, 34])
def test_depthwise_rows_of_many_pixels(isa, bits, c):
    for change in (
        {"iw": 23, "pad_h": 1, "pad_w": 1},
        {"iw": 40, "pad_h": 1, "pad_w": 1, "stride_h": 2, "stride_w": 2},
        {"iw": 25, "pad_w": 2, "dilation_w": 2},
        {"iw": 24, "kh": 5, "kw": 5, "pad_h": 2, "pad_w": 2},
        {"iw": 44, "kw": 4, "stride_w": 3, "pad_w": 1},
    ):
        Case(Conv(c=c, k=c, groups=c, **change), bits).check()
    case = Case(Conv(c=c, k=c, groups=c, iw=23, pad_h=1, pad_w=1), bits)
    case.check_forward(RELU, residual=True)
    case.check_backward_data(GRAD_TANH, residual=True)


@bits_of_both
@pytest.mark.parametrize("act", range(7))
@pytest.mark.parametrize("residual", [False, True])
def test_epilogues(isa, bits, act, residual):
    for conv in (
        Conv(c=16, k=32, pad_h=1, pad_w=1),
        Conv(c=7, k=37, stride_h=2, stride_w=2),
        Conv(c=33, k=3),
        Conv(n=16, c=4, k=4, ih=6, iw=5, kh=5, kw=5, pad_h=2, pad_w=2),
        Conv(c=8, k=16, kh=1, kw=1, stride_h=2, stride_w=2),
        Conv(c=67, k=67, groups=67),
    ):
        case = Case(conv, bits)
        refs = case.references(), case.references(True)
        for bias in (False, True):
            case.check_forward(act, bias, residual, refs)
        case.check_backward_data(act, residual, refs)


@bits_of_both
def test_residual_and_saved_may_be_the_output(isa, bits):
    for conv in (
        Conv(c=33, k=47, pad_h=1, pad_w=1),
        Conv(c=35, k=35, groups=35),
        Conv(c=3, k=4, ih=20, iw=40),
        Conv(n=16, c=4, k=4, kh=5, kw=5, pad_h=2, pad_w=2),
    ):
        case = Case(conv, bits)
        expected = case.forward(GRAD_RELU, residual=True)
        case.saved["y"] = case.residual["y"]
        for act in (RELU, GRAD_TANH):
            expected = case.forward(act, residual=True)
            y = case.residual["y"].copy()
            _core.call("conv_fwd", bits, x=case.x, packed=case.pack(0), bias=case.bias, residual=y,
                       saved=y, y=y, act=act, **case.ints())  # fmt: skip
            np.testing.assert_array_equal(y, expected)
        case.saved["x"] = case.residual["x"]
        expected = case.backward_data(GRAD_TANH, residual=True)
        dx = case.residual["x"].copy()
        _core.call("conv_bwd_data", bits, dy=case.dy, packed=case.pack(1), residual=dx, saved=dx,
                   dx=dx, act=GRAD_TANH, **case.ints())  # fmt: skip
        np.testing.assert_array_equal(dx, expected)


@bits_of_both
@pytest.mark.parametrize(
    "conv",
    [
        Conv(n=16, c=1, k=32, ih=28, iw=28, pad_h=1, pad_w=1),
        Conv(n=16, c=32, k=64, ih=14, iw=14, pad_h=1, pad_w=1),
        Conv(n=80, c=6, k=16, ih=12, iw=12, kh=5, kw=5),
        Conv(n=1, c=32, k=40, ih=40, iw=30, pad_h=1, pad_w=1),
        Conv(n=4, c=96, k=160, ih=4, iw=4, pad_h=1, pad_w=1, stride_h=2, stride_w=2),
        Conv(n=8, c=64, k=64, ih=14, iw=14, kh=1, kw=1),
        Conv(n=8, c=64, k=64, ih=14, iw=14, groups=64),
    ],
    ids=str,
)
def test_same_bits_at_any_thread_count(isa, bits, conv, threads):
    case = Case(conv, bits)
    results = []
    for count in (1, 2, 3):
        _core.set_num_threads(count)
        results.append([case.forward(RELU), case.backward_data(), *case.backward_weight()])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@bits_of_both
def test_backward_weight_without_bias(isa, bits):
    for conv in (Conv(), Conv(c=32, k=48), Conv(n=12, c=16, k=16, ih=20, iw=20)):
        Case(conv, bits).check_backward_weight(with_bias=False)


@bits_of_both
def test_nan_and_infinity_reach_exactly_the_pixels_that_see_them(isa, bits):
    for groups in (1, 8):
        case = Case(Conv(n=1, c=8, k=8, pad_h=1, pad_w=1, groups=groups), bits)
        case.x[0, 3, 2, 5] = np.nan
        case.x[0, 0, 5, 5] = np.inf
        y = case.forward(RELU)
        seen = np.zeros(y.shape, bool)
        seen[0, 2:5, 1:4, slice(None) if groups == 1 else 5] = True
        np.testing.assert_array_equal(np.isnan(y), seen)
        assert np.isfinite(y[0, 4:, 4:]).all()

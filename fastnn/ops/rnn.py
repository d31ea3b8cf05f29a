"""Recurrent layers: one op is one layer, all its steps, in one or both directions.

Samples are independent, so the kernel's threads each carry some of them through all steps. Inside a
plan sequences lie time-major; the logical shapes are batch-first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Value, apply
from fastnn.layout import Ref
from fastnn.ops import rnn_grad
from fastnn.ops.gemm import gemm
from fastnn.ops.op import Example, Op, Spec, check_float, check_ndim, register
from fastnn.ops.rnn_cell import (
    GATES,
    MODES,
    PACKED_BYTES,
    SLOTS,
    forward,
    packed_bytes,
    pairs,
    window,
)

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

TIME_MAJOR = (1, 0, 2)


@register
class Recurrent(Op):
    """One layer of an RNN, LSTM (Hochreiter and Schmidhuber, 1997) or GRU (Cho et al., 2014).

    Inputs: x (N, T, C), lengths (N,) or None, h0 (D, N, H) or None, c0 likewise (LSTM), then for each
    of the D = 1 or 2 directions w_ih (G * H, C), w_hh (G * H, H), b_ih and b_hh (G * H,) or None.
    Outputs: y (N, T, D * H), h_n (D, N, H), for an LSTM c_n; then what backward reads: a GRU's and
    LSTM's gates (D, T, N, 4 * H), an LSTM's cell states (D, T, N, H).
    """

    name = "rnn"
    integer_inputs = (1,)
    mode: str = "LSTM"
    padded: bool = False  # x is zero beyond the lengths

    def infer(
        self,
        x: Value,
        lengths: Value | None,
        h0: Value | None,
        c0: Value | None,
        *weights: Value | None,
    ) -> list[Spec]:
        op = self.mode.lower()
        check_ndim(op, "x", x, 3)
        names = pairs(weights)
        dtype = check_float(op, x=x, h0=h0, c0=c0, **names)
        (n, steps, c), h, d = x.shape, weights[1].shape[-1], len(weights) // 4  # type: ignore[union-attr]
        if steps < 1:
            raise ValueError(f"{op}: x: expected at least one step, got shape {x.shape}")
        rows = GATES[self.mode] * h
        shapes = {"w_ih": (rows, c), "w_hh": (rows, h), "b_ih": (rows,), "b_hh": (rows,)}
        for name, v in names.items():
            want = shapes[name.removesuffix("_reverse")]
            if v is not None and v.shape != want:
                raise ValueError(f"{op}: {name}: expected shape {want}, got {v.shape}")
        for name, v in (("h0", h0), ("c0", c0)):
            if v is not None and v.shape != (d, n, h):
                raise ValueError(f"{op}: {name}: expected shape {(d, n, h)}, got {v.shape}")
        if lengths is not None and lengths.dtype.kind not in "iu":
            raise TypeError(f"{op}: lengths: expected integers, got {lengths.dtype}")
        if lengths is not None and lengths.shape != (n,):
            raise ValueError(f"{op}: lengths: expected shape {(n,)}, got {lengths.shape}")
        outputs: list[Spec] = [((n, steps, d * h), dtype), ((d, n, h), dtype)]
        if self.mode == "LSTM":
            outputs.append(((d, n, h), dtype))
        if SLOTS[self.mode] > 1:
            outputs.append(((d, steps, n, SLOTS[self.mode] * h), dtype))
        if self.mode == "LSTM":
            outputs.append(((d, steps, n, h), dtype))
        return outputs

    def grad(self, node: Node, *douts: Value | None) -> Sequence[Value | None]:
        states = 3 if self.mode == "LSTM" else 2
        if any(d is not None for d in douts[states:]):
            raise NotImplementedError("rnn: no gradient flows through the saved gates")
        dstates = (*douts[:states], None)[:3]
        saved = (node.outputs[0], *node.outputs[states:], None, None)[:3]
        op = rnn_grad.RecurrentGrad(mode=self.mode, padded=self.padded)
        dx, *others = apply(op, *dstates, *node.inputs[:4], *saved, *node.inputs[4:])
        grads = [dx, None, *others]
        return [None if v is None else g for v, g in zip(node.inputs, grads, strict=True)]

    def lower(self, node: Node, b: Builder) -> None:
        x, lengths, h0, c0, *weights = node.inputs
        y, hn, *saved = node.outputs
        assert x is not None and weights[0] is not None and weights[1] is not None
        d, _, h = hn.shape
        cn = saved.pop(0) if self.mode == "LSTM" else None
        n, steps, c = x.shape
        refs = [None if w is None else b.dense(w, range(w.ndim)[::-1]) for w in weights]
        kept = [b.new(v) if b.is_used(v) else None for v in saved]
        gates, cells = (*kept, None, None)[:2]
        # The input's half of the gates: summed within the time loop, or by one product before it.
        fused = packed_bytes(weights[0], weights[1]) <= PACKED_BYTES
        pre, source, x_strides = None, None, (0, 0)
        if fused:
            source = b.ref(x)
            if source.strides[2] != 1:
                source = b.dense(x)
            x_strides = (source.strides[1], source.strides[0])
        else:
            pre = gates or b.temp((d, steps, n, SLOTS[self.mode] * h))
            self._input_half(b, b.dense(x, TIME_MAJOR), refs[::4], pre)
        sizes = {"mode": MODES.index(self.mode), "directions": d, "c": c if fused else 0, "h": h}
        packed = b.temp((b.buffer_bytes("rnn_pack", **sizes),), np.uint8)
        b.step("rnn_pack", flops=0, **pairs(refs), packed=packed, **sizes)
        b.step(
            "rnn_fwd",
            flops=2 * n * steps * d * weights[1].shape[0] * (h + (c if fused else 0)),
            x=source,
            pre=pre,
            packed=packed,
            h0=None if h0 is None else b.dense(h0),
            c0=None if c0 is None else b.dense(c0),
            lengths=None if lengths is None else b.labels(lengths),
            y=b.new(y, TIME_MAJOR),
            gates=gates,
            cells=cells,
            hn=b.new(hn) if b.is_used(hn) else None,
            cn=b.new(cn) if cn is not None and b.is_used(cn) else None,
            **sizes,
            steps=steps,
            n=n,
            x_ts=x_strides[0],
            x_ns=x_strides[1],
        )

    def flops(self, node: Node) -> int:
        x, w_ih = node.inputs[0], node.inputs[4]
        assert x is not None and w_ih is not None
        d, _, h = node.outputs[1].shape
        return 2 * d * x.shape[0] * x.shape[1] * w_ih.shape[0] * (x.shape[2] + h)

    def _input_half(self, b: Builder, x: Ref, w_ih: Sequence[Ref | None], pre: Ref) -> None:
        """pre[direction] = x w_ih^T, over all steps at once."""
        n, steps, c = x.shape
        row = pre.shape[-1]
        for d, w in enumerate(w_ih):
            assert w is not None
            gemm(
                b,
                (x, (c, 1)),
                (w, (1, w.shape[0])[::-1]),
                (window(pre, d * steps * n * row), row),
                (steps * n, w.shape[0], c),
            )

    def reference(
        self, x: Array, lengths: Array | None, h0: Array | None, c0: Array | None, *weights: Any
    ) -> Any:
        runs = [
            forward(
                self.mode,
                x,
                lengths,
                None if h0 is None else h0[i],
                None if c0 is None else c0[i],
                weights[4 * i : 4 * i + 4],
                reverse=i == 1,
            )
            for i in range(len(weights) // 4)
        ]
        y, *rest = zip(*runs, strict=True)
        return (np.concatenate(y, -1), *(np.stack(part) for part in rest))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        for mode in MODES:
            yield example(cls(mode=mode), 3, 4, 5, 7)
            yield example(cls(mode=mode), 5, 3, 2, 17, directions=2, lengths=(3, 1, 2, 3, 1))
            yield example(cls(mode=mode), 2, 3, 3, 4, directions=2, states=True, lengths=(2, 3))
            yield example(cls(mode=mode), 1, 2, 1, 33, bias=False, states=True)
        yield example(cls(mode="GRU"), 33, 2, 3, 5)
        yield example(cls(mode="LSTM"), 2, 2, 600, 64)
        yield example(cls(mode="GRU"), 2, 2, 700, 64, directions=2)


def recurrent(
    mode: str,
    x: Any,
    weights: Sequence[Any],
    h0: Any = None,
    c0: Any = None,
    lengths: Any = None,
    padded: bool = False,
) -> tuple[Any, ...]:
    """One recurrent layer over x (N, T, C): outputs y (N, T, D * H), h_n (D, N, H), an LSTM's c_n too.

    mode: "RNN_TANH", "RNN_RELU", "LSTM" or "GRU". weights: w_ih (G * H, C), w_hh (G * H, H), b_ih and
    b_hh (G * H,) or None, as PyTorch orders the gates; then the same for the direction from the end if
    there are D = 2. h0, c0 (D, N, H): zeros by default. lengths (N,), integers: beyond them y is zero,
    h_n and c_n are the states after the last step; padded says that x is zero there, as another
    layer's y is. Raises ValueError for shapes that do not fit and lengths outside 1..T.
    """
    if mode not in MODES:
        raise ValueError(f"recurrent: mode: expected one of {MODES}, got {mode!r}")
    outputs = apply(Recurrent(mode=mode, padded=padded), x, lengths, h0, c0, *weights)
    return tuple(outputs[: 3 if mode == "LSTM" else 2])


def example(
    op: Op,
    n: int,
    steps: int,
    c: int,
    h: int,
    directions: int = 1,
    lengths: tuple[int, ...] | None = None,
    states: bool = False,
    bias: bool = True,
) -> Example:
    """A case with weights small enough that no gate is saturated."""
    mode = op.mode  # type: ignore[attr-defined]
    rng = np.random.default_rng(5)
    rows, bound = GATES[mode] * h, 1 / np.sqrt(max(c, h))
    weights: list[Array | None] = []
    for _ in range(directions):
        weights += [rng.uniform(-bound, bound, (rows, k)) for k in (c, h)]
        weights += [rng.uniform(-1, 1, rows) if bias else None for _ in range(2)]
    state = (directions, n, h) if states else None
    return Example(
        op,
        (n, steps, c),
        None if lengths is None else np.array(lengths),
        state,
        state if mode == "LSTM" else None,
        *weights,
    )

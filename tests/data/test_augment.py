"""Augmentation: what each layer draws, and that it draws the same whatever the threads."""

from __future__ import annotations

import numpy as np
import pytest

import fastnn as fn
from fastnn import _core, data, nn, optim
from fastnn.data import augment
from fastnn.graph import input_value, record
from fastnn.ops.augment import Erase, Jitter, MixShare, Noise, Warp
from fastnn.plan.plan import Plan

N = 400


def run(op, x, step=1.0, seed=3.0):
    """One op on one array, at a given step and seed."""
    leaf = input_value("x", x.shape, x.dtype)
    plan = Plan(8 * x.itemsize, _core.Memory(0))
    plan.input(leaf)
    plan.output(record(op, leaf).outputs[0])
    plan.compute()
    return plan.build()(x, hyper=np.array([step, seed, 0.0, 0.0]))[0]


def chance(count, p):
    """Five standard deviations of a binomial's mean."""
    return 5 * np.sqrt(p * (1 - p) / count)


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((N, 2, 5, 6))


def test_flips_are_flips_at_the_given_rate(images):
    y = run(Warp(hflip=0.3), images)
    flipped = np.array([np.array_equal(b, a[:, :, ::-1]) for a, b in zip(images, y, strict=True)])
    same = np.array([np.array_equal(b, a) for a, b in zip(images, y, strict=True)])
    assert np.all(flipped ^ same)
    assert abs(flipped.mean() - 0.3) < chance(N, 0.3)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_crops_are_windows_and_reach_every_place(images, mode):
    op = Warp(size=(5, 6), rows=(-2, 2), columns=(-2, 2), border=mode)
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)), mode=mode)
    seen = set()
    for sample, y in zip(padded, run(op, images), strict=True):
        places = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(sample[:, r : r + 5, c : c + 6], y)
        ]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 25  # 400 draws of 25: one is missed with probability 25 * 0.96**400 < 1e-5


def test_quarter_turns_are_rot90(images):
    square = np.ascontiguousarray(images[:, :, :5, :5])
    for quarters in (1, 2, 3):
        angle = quarters * np.pi / 2
        turned = np.rot90(square, quarters, (2, 3))
        for bilinear in (False, True):
            y = run(Warp(angles=(angle, angle), bilinear=bilinear), square)
            # Bilinear: the sine of half a turn is 1e-16, not 0, and so are the wrong weights.
            inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
            np.testing.assert_allclose(y[inner], turned[inner], atol=1e-14)
            if not bilinear:
                np.testing.assert_array_equal(y, turned)


def test_bilinear_rotation_of_a_plane_is_the_plane():
    r, c = np.meshgrid(np.arange(9.0) - 4, np.arange(9.0) - 4, indexing="ij")
    plane = (2 * r + 3 * c)[None, None]
    angle = 0.5
    y = run(Warp(angles=(angle, angle), bilinear=True), plane)[0, 0]
    sine, cosine = np.sin(angle), np.cos(angle)
    wanted = 2 * (cosine * r + sine * c) + 3 * (cosine * c - sine * r)
    inside = np.hypot(r, c) <= 3  # reads inside the image only
    np.testing.assert_allclose(y[inside], wanted[inside], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 3, 7, 9), (1, 1, 9, 7), (1, 2, 1, 5), (1, 1, 4, 300)])
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_bilinear_rotation_weighs_four_neighbours_or_the_fill(shape, flip):
    x = np.random.default_rng(0).standard_normal(shape)
    angle, down, right, fill = 0.7, 1, -2, 0.25
    turn = Warp(angles=(angle, angle), rows=(down, down), columns=(right, right))
    turn.bilinear, turn.hflip, turn.fill = True, flip, fill
    around = np.pad(x[0], ((0, 0), (1, 1), (1, 1)), constant_values=fill)
    middle = (np.array(shape[2:]) - 1) / 2
    r, c = (
        np.indices(shape[2:]) + np.array([down, right]).reshape(2, 1, 1) - middle.reshape(2, 1, 1)
    )
    sine, cosine = np.sin(angle), np.cos(angle)
    places = np.stack([cosine * r + sine * c, cosine * c - sine * r]) + middle.reshape(2, 1, 1)
    low = np.floor(places).astype(int)
    share = places - low
    wanted = np.zeros(shape[1:])
    for side in np.ndindex(2, 2):
        corner = np.moveaxis(low, 0, -1) + side + 1
        row, column = (np.clip(corner[..., d], 0, shape[2 + d] + 1) for d in (0, 1))
        weight = [s if at else 1 - s for s, at in zip(share, side, strict=True)]
        wanted += around[:, row, column] * weight[0] * weight[1]
    wanted = wanted[:, :, ::-1] if flip else wanted
    np.testing.assert_allclose(run(turn, x)[0], wanted, rtol=1e-9, atol=1e-9)


def test_erased_rectangles_have_the_drawn_area(images):
    x = np.ones((N, 3, 16, 16))
    y = run(Erase(p=0.5, area=(0.25, 0.25), ratio=(1.0, 1.0), value=7.0), x)
    erased = (y[:, 0] == 7).sum((1, 2))
    assert set(erased) == {0, 64} and np.all((y == 7) | (y == 1))
    assert abs((erased > 0).mean() - 0.5) < chance(N, 0.5)
    cut = (run(Erase(p=1.0, side=4), x)[:, 0] == 0).sum((1, 2))
    assert cut.max() == 16 and cut.min() >= 4 and np.all(cut > 0)


def test_jitter_keeps_the_mean_under_contrast_and_scales_it_under_brightness(images):
    y = run(Jitter(contrast=(0.5, 2.0)), images)
    np.testing.assert_allclose(y.mean((1, 2, 3)), images.mean((1, 2, 3)), atol=1e-12)
    ratio = y.std((1, 2, 3)) / images.std((1, 2, 3))
    assert 0.5 <= ratio.min() < 0.6 and 1.9 < ratio.max() <= 2.0
    bright = run(Jitter(brightness=(0.5, 2.0)), images) / images
    np.testing.assert_allclose(bright.min((1, 2, 3)), bright.max((1, 2, 3)), rtol=1e-12)


def test_noise_is_normal():
    y = np.concatenate([run(Noise(sigma=2.0, mean=0.5), np.zeros(50_003), s) for s in (1.0, 2.0)])
    z = (y - 0.5) / 2
    count = len(z)
    moments = [np.mean(z**k) for k in (1, 2, 3, 4)]
    spread = np.sqrt(np.array([1.0, 2.0, 15.0, 96.0]) / count)  # of z**k under the normal law
    assert np.all(np.abs(np.array(moments) - [0, 1, 0, 3]) < 5 * spread)
    below = np.mean(z < 1.0)
    assert abs(below - 0.8413447) < chance(count, 0.8413447)
    assert abs(np.mean(z[:-1] * z[1:])) < 5 / np.sqrt(count)


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 3.0])
def test_mix_share_is_beta(alpha):
    draws = np.array([run(MixShare(alpha=alpha), np.zeros(1), float(s)) for s in range(1, 601)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert np.all((draws >= 0) & (draws <= 1))
    assert abs(draws.mean() - 0.5) < 5 * np.sqrt(variance / 600)
    assert abs(draws.var() - variance) < 0.03


OPS = [
    Warp(hflip=0.5, rows=(-2, 2), columns=(-2, 2), border="reflect"),
    Warp(angles=(-0.5, 0.5)),
    Warp(angles=(-0.5, 0.5), bilinear=True),
    Erase(),
    Jitter(brightness=(0.5, 1.5), contrast=(0.5, 1.5)),
    Noise(),
]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threads_do_not_change_bits_and_steps_do(op, dtype):
    x = np.random.default_rng(1).standard_normal((70, 3, 20, 20)).astype(dtype)
    before = fn.get_num_threads()
    try:
        results = []
        for count in (1, 2):
            fn.set_num_threads(count)
            results.append(run(op, x))
    finally:
        fn.set_num_threads(before)
    assert results[0].tobytes() == results[1].tobytes()
    assert run(op, x, step=2.0).tobytes() != results[0].tobytes()
    assert run(op, x, seed=4.0).tobytes() != results[0].tobytes()


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_a_sample_draws_by_its_place_alone(op):
    x = np.random.default_rng(1).standard_normal((9, 1, 8, 8))
    np.testing.assert_array_equal(run(op, x)[:4], run(op, x[:4]))


def net(*front):
    fn.manual_seed(0)
    return nn.Sequential(*front, nn.Normalize([0.5], [0.5]), nn.Flatten(), nn.Linear(36, 10))


def test_layers_change_in_training_and_pass_in_inference():
    x = np.random.default_rng(0).integers(0, 256, (5, 1, 6, 6), np.uint8)
    layers = [
        augment.RandomHorizontalFlip(1.0),
        augment.RandomVerticalFlip(1.0),
        augment.RandomCrop(6, padding=1),
        augment.RandomAffine(20, (0.2, 0.2)),
        augment.RandomRotation(20, "bilinear"),
        augment.RandomErasing(1.0),
        augment.Cutout(2),
        augment.GaussianNoise(sigma=1.0),
        augment.ColorJitter(0.5, 0.5),
        augment.Mixup(1.0),
    ]
    plain = net()
    for layer in layers:
        model = net(layer)
        np.testing.assert_array_equal(model.eval()(x), plain(x), err_msg=repr(layer))
        assert np.abs(model.train()(x) - plain(x)).max() > 1e-3, layer


def test_crop_takes_the_middle_in_inference():
    x = np.random.default_rng(0).integers(0, 256, (5, 1, 8, 9), np.uint8)
    model = net(augment.RandomCrop(6)).eval()
    np.testing.assert_allclose(model(x), net()(x[:, :, 1:7, 1:7]), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"RandomCrop: size: \(6, 6\) does not fit into \(5, 9\)"):
        model.train()(x[:, :, :5])


def test_training_with_augmentation_is_reproducible_and_resumes():
    (x, y), _ = data.digits()
    losses = []
    for _ in range(2):
        fn.manual_seed(0)
        mixup = augment.Mixup(0.4)
        model = nn.Sequential(
            mixup,
            augment.RandomCrop(8, padding=1),
            nn.Normalize([0.3], [0.4], 1 / 16),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
        loss = mixup.loss(nn.CrossEntropyLoss())
        trainer = fn.Trainer(model, loss, optim.Adam(lr=1e-2), seed=1)
        losses.append(trainer.fit(x[:200], y[:200], 3, 32, progress=False)["loss"])
        assert trainer.evaluate(x[:50], y[:50])["loss"] < 3
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


def test_mixup_mixes_targets_as_it_mixes_inputs():
    """The share t is read off the mixed inputs, which the model returns as they are."""
    mixup, same = augment.Mixup(1.0), nn.Linear(2, 2)
    same.load_state_dict({"weight": np.eye(2), "bias": np.zeros(2)})
    model = nn.Sequential(mixup, same).double()
    seen = []

    def loss(output, target):
        seen.append(output.shape)
        return ((output - target) ** 2).mean()

    x = np.arange(6.0).reshape(3, 2)
    got, _ = fn.value_and_grad(model, mixup.loss(loss))(x, x)
    mixed = model(x)
    t = (mixed[0, 0] - x[2, 0]) / (x[0, 0] - x[2, 0])
    straight, backwards = ((mixed - x) ** 2).mean(), ((mixed - x[::-1]) ** 2).mean()
    assert got == pytest.approx(t * straight + (1 - t) * backwards, rel=1e-9)
    assert len(seen) == 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: augment.RandomHorizontalFlip(1.5), "p: expected a number from 0 to 1, got 1.5"),
        (lambda: augment.RandomCrop(0), "size: expected one or two positive ints"),
        (lambda: augment.RandomCrop(3, padding=-1), "padding: expected at least 0"),
        (lambda: augment.RandomCrop(3, padding_mode="wrap"), "padding_mode: expected one of"),
        (lambda: augment.RandomRotation((3, 2)), "degrees: expected lowest <= highest"),
        (lambda: augment.RandomRotation(3, "cubic"), "interpolation: expected 'nearest' or"),
        (lambda: augment.RandomErasing(scale=(0.5, 0.1)), "scale: expected parts of the area"),
        (lambda: augment.RandomErasing(ratio=(0, 1)), "ratio: expected positive ratios"),
        (lambda: augment.Cutout(0), "size: expected a positive int"),
        (lambda: augment.GaussianNoise(sigma=-1), "sigma: expected at least 0"),
        (lambda: augment.ColorJitter(brightness=-1), "brightness: expected factors of at least 0"),
        (lambda: augment.Mixup(0), "alpha: expected a positive number"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

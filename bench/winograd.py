"""When Winograd's convolution pays: python -m bench.winograd

Times, for a grid of channels, pixels and batches, the direct and Winograd's kernels of a training step
(packing, forward, both backward passes) and of inference (forward alone: its weights stay packed), in
turns on one thread. Prints the direct one's best time, how many times faster Winograd is, where the
rule of fastnn chooses it (*), what the rule loses against always the better one, and the constants that
would lose least.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import fastnn as fn
from fastnn import _core
from fastnn.ops import conv_algorithm as rule

from .alone import interleaved
from .cases.bandwidth import normal
from .machine import Lost, trust

CHANNELS = ((8, 8), (16, 16), (16, 64), (32, 32), (64, 64), (128, 128), (256, 256), (512, 512))
PIXELS, BATCHES = (4, 6, 8, 14, 16, 28, 56), (1, 16)
MOST_FLOPS, SECONDS = 0.5e9, 0.8  # of a shape: direct multiply-adds count two; time for it
SAME = {f"{k}_{axis}": 1 for k in ("stride", "dilation") for axis in "hw"} | {"groups": 1}
Sizes = dict[str, int]
Call = tuple[str, dict[str, Any]]
STEP, FORWARD = "training step", "inference"


def shapes() -> Iterator[Sizes]:
    """The grid."""
    for (c, k), size, n in itertools.product(CHANNELS, PIXELS, BATCHES):
        sizes = {"n": n, "c": c, "k": k, "pad_h": 1, "pad_w": 1}
        sizes |= dict.fromkeys(("ih", "iw", "oh", "ow"), size)
        if 18 * c * k * n * size * size < MOST_FLOPS:
            yield sizes | {"kh": 3, "kw": 3, **SAME}


def calls(sizes: Sizes, winograd: bool) -> list[Call]:
    """The kernels of a training step: forward, its packing, and the backward passes."""
    n, h, w, c, k = (sizes[name] for name in ("n", "ih", "iw", "c", "k"))
    x, dy, dw = normal(n, h, w, c), normal(n, h, w, k), normal(3, 3, c, k)
    y, dx, rest = normal(n, h, w, k), normal(n, h, w, c), {"act": 0}
    own, turned = ((rule.WINOGRAD.own(sizes, d) if winograd else sizes) for d in (0, 1))
    names = ("winograd_pack", "winograd_fwd", "winograd_fwd", "winograd_bwd_weight")
    if not winograd:
        names = ("conv_pack", "conv_fwd", "conv_bwd_data", "conv_bwd_weight")
    pack, forward, data, weight = names
    shared = {f: sizes[f] for f in (("c", "k") if winograd else rule.Direct.pack_fields)}
    packs, packed = [], []
    for direction in (0, 1):
        fields = {"direction": direction, **shared}
        packed.append(np.zeros(_core.buffer_bytes(pack, 32, **fields), np.uint8))
        packs.append((pack, {"w": dw, "packed": packed[-1], **fields}))
    back = {"x": dy, "y": dx} if winograd else {"dy": dy, "dx": dx}
    work = np.zeros(_core.buffer_bytes(weight, 32, **own), np.uint8)
    return [
        (forward, {"x": x, "packed": packed[0], "y": y, **own, **rest}),
        packs[0],
        packs[1],
        (data, {"packed": packed[1], **back, **turned, **rest}),
        (weight, {"x": x, "dy": dy, "dw": normal(3, 3, c, k), "work": work, **own}),
    ]


def program(chosen: list[Call]) -> Callable[[int], object]:
    """A run of these calls."""
    made, arrays, spaces = _core.Program(32, _core.Memory(0)), [], {}
    for kernel, fields in chosen:
        given = {}
        for name, value in fields.items():
            if isinstance(value, np.ndarray) and id(value) not in spaces:
                spaces[id(value)] = (made.array_space(value.nbytes, value.dtype), 0)
                arrays.append(value)
            given[name] = spaces[id(value)] if isinstance(value, np.ndarray) else value
        made.add(kernel, given)
    bound = tuple(arrays)
    return lambda n: made.run(bound, n)


def lost_by(choices: np.ndarray, speedups: np.ndarray) -> float:
    """By how many per cent choices (True: Winograd) are slower than the best, in geometric mean."""
    gained = np.where(choices, speedups, 1.0)
    return float(100 * (np.exp(np.mean(np.log(np.maximum(speedups, 1.0) / gained))) - 1))


def fit(works: np.ndarray, speedups: np.ndarray) -> tuple[float, int, int]:
    """(loss, per tile and channel, per weight): the rule's constants that lose least."""
    direct, products, transforms, packing = works.T
    found = []
    for t, p in itertools.product(range(100, 1001, 50), range(0, 1501, 50)):
        choices = products + t * transforms + p * packing < direct
        found.append((lost_by(choices, speedups), t, p))
    return min(found)


def main() -> None:
    """Measure and print."""
    fn.set_num_threads(1)
    lost, works, speedups, chosen = Lost(), [], [], []
    print(
        f"{fn.isa()}, one thread\n{'channels':>10}{'pixels':>8}{'batch':>6}{STEP:>22}{FORWARD:>18}"
    )
    for sizes in shapes():
        both = [calls(sizes, winograd) for winograd in (False, True)]
        runs = [program(part) for calls_ in both for part in (calls_, calls_[:1])]
        best = interleaved(runs, SECONDS, lost).min(0)
        works.append(rule.WINOGRAD.work(sizes))
        speedups.append((best[0] / best[2], best[1] / best[3]))
        chosen.append([rule.WINOGRAD.pays(sizes, kept) for kept in (False, True)])
        line = "".join(
            f"{direct * 1e6:12.1f} us {speedup:5.2f}x{' *'[pays]}"
            for direct, speedup, pays in zip(best[:2], speedups[-1], chosen[-1], strict=True)
        )
        channels = f"{sizes['c']}-{sizes['k']}"
        print(f"{channels:>10}{sizes['oh']:8}{sizes['n']:6}{line}", flush=True)
    print(trust(lost.share))
    for i, name in enumerate((STEP, FORWARD)):
        gains, rules = np.array(speedups)[:, i], np.array(chosen)[:, i]
        always = [lost_by(np.full(len(gains), which), gains) for which in (False, True)]
        loss, per_tile, per_weight = fit(np.array(works), gains)
        print(
            f"{name}: the rule loses {lost_by(rules, gains):.1f} %, direct {always[0]:.1f} %,"
            f" Winograd {always[1]:.1f} %; constants {per_tile} and {per_weight}: {loss:.1f} %"
        )


if __name__ == "__main__":
    main()

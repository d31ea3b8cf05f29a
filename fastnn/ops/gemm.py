"""One matrix product as a step of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastnn.layout import Ref

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

Strided = tuple[Ref, tuple[int, int]]
OUTPUTS = ("c", "residual", "saved")


def gemm(
    b: Builder,
    left: Strided,
    right: Strided,
    out: tuple[Ref, int],
    sizes: tuple[int, int, int],
    add: bool = False,
    act: int = 0,
    batch: tuple[int, int, int] = (1, 0, 0),
    **ends: Ref | None,
) -> None:
    """Emit out (+)= act(left @ right + bias + residual), or (left @ right + residual) * act'(saved).

    left and right with the strides of their rows and columns; out with that of its rows, which those of
    `ends` (bias, residual, saved) share; sizes (m, n, k). batch: how many products, dense in out, and
    how far left and right move on from one to the next.
    """
    (a, (a_rs, a_cs)), (w, (b_rs, b_cs)), (c, c_rs), (m, n, k) = left, right, out, sizes
    count, a_bs, b_bs = batch
    b.step(
        "gemm",
        flops=2 * count * m * n * k,
        **dict(a=a, b=w, c=c, bias=None, residual=None, saved=None) | ends,
        **dict(batch=count, m=m, n=n, k=k, beta=float(add), act=act),
        **dict(a_rs=a_rs, a_cs=a_cs, b_rs=b_rs, b_cs=b_cs, a_bs=a_bs, b_bs=b_bs),
        **{f"{name}_rs": c_rs for name in OUTPUTS},
        **{f"{name}_bs": m * n for name in OUTPUTS},
    )

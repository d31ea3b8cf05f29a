"""The gradient of a recurrent layer: the time loop back, then one product for each weight."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastnn.graph import Array, Node, Shape, Value
from fastnn.layout import Ref
from fastnn.ops.gemm import gemm
from fastnn.ops.op import Example, Op, Spec, register
from fastnn.ops.rnn_cell import (
    GATES,
    MODES,
    PACKED_BYTES,
    SLOTS,
    packed_bytes,
    pairs,
    schedule,
    window,
)

if TYPE_CHECKING:
    from fastnn.plan.builder import Builder

TIME_MAJOR = (1, 0, 2)


@register
class RecurrentGrad(Op):
    """Gradients of the op rnn: from dy, dh_n, dc_n; its x, lengths, h0, c0; y, gates, cells; weights.

    Returns dx, dh0, dc0 and the weights' gradients. What is None in the forward op is None here.
    dy_step >= 0: dy is zero at all steps but this one, and given for it alone, (N, D * H).
    """

    name = "rnn_grad"
    integer_inputs = (4,)
    mode: str = "LSTM"
    padded: bool = False
    dy_step: int = -1

    def infer(self, *inputs: Any) -> list[Spec]:
        x, weights = inputs[3], inputs[10:]
        (n, _, c), h = x.shape, weights[1].shape[1]
        rows, d = GATES[self.mode] * h, len(weights) // 4
        shapes: list[Shape] = [(n, x.shape[1], c), (d, n, h), (d, n, h)]
        shapes += [(rows, c), (rows, h), (rows,), (rows,)] * d
        return [(shape, x.dtype) for shape in shapes]

    def lower(self, node: Node, b: Builder) -> None:
        dy, dhn, dcn, x, lengths, h0, c0, y, gates, cells = node.inputs[:10]
        weights = node.inputs[10:]
        dx, dh0, dc0, *dweights = node.outputs
        assert x is not None and y is not None
        (n, steps, c), (d, _, h) = x.shape, dh0.shape
        transposed = [None if w is None or w.ndim < 2 else b.dense(w, (1, 0)) for w in weights]
        named = pairs(transposed)
        dy_ref = None if dy is None else b.ref(dy)
        if dy_ref is not None and dy_ref.strides[-1] != 1:
            dy_ref = b.dense(dy, TIME_MAJOR if self.dy_step < 0 else (0, 1))  # type: ignore[arg-type]
        y_ref, states = b.dense(y, TIME_MAJOR), None if h0 is None else b.dense(h0)
        row = SLOTS[self.mode] * h
        # Memory is slower than arithmetic here: gates that nobody reads again are overwritten, or, where
        # the gradients of the weights are summed within the time loop, their gradients not kept at all.
        wanted = [b.is_used(v) for v in dweights]
        matrices = any(wanted[::4]) or any(wanted[1::4])
        assert weights[0] is not None and weights[1] is not None
        fused = matrices and n > 0 and 2 * packed_bytes(weights[0], weights[1]) <= PACKED_BYTES
        source = b.ref(x) if fused else None
        if source is not None and source.strides[2] != 1:
            source = b.dense(x)
        dgates = None
        gates_ref = None if gates is None else b.dense(gates)
        if b.is_used(dx) or not fused:
            alone = gates is not None and b.is_last_reader(node, gates)
            dgates = gates_ref if alone and gates_ref else b.temp((d, steps, n, row))
        begins = h0 is not None and any(wanted[1::4]) and not fused
        first = b.temp((d, n, row)) if begins else None
        biases = any(wanted[i] for i in range(len(wanted)) if i % 4 > 1)
        dbias = b.temp((d, row)) if biases else None
        places = {
            f"d{name}": b.new(v, (1, 0)) if fused and b.is_used(v) else None
            for name, v in pairs(dweights).items()
            if name.startswith("w") and v is not None
        }
        b.step(
            "rnn_bwd",
            flops=2 * n * steps * d * GATES[self.mode] * h * (2 * h + c if fused else h),
            gates=gates_ref,
            cells=None if cells is None else b.dense(cells),
            y=y_ref,
            dy=dy_ref,
            dhn=None if dhn is None else b.dense(dhn),
            dcn=None if dcn is None else b.dense(dcn),
            w_hh=named["w_hh"],
            w_hh_reverse=named["w_hh_reverse"],
            h0=states,
            c0=None if c0 is None else b.dense(c0),
            lengths=None if lengths is None else b.labels(lengths),
            x=source,
            dgates=dgates,
            dh0=b.new(dh0) if b.is_used(dh0) else None,
            dc0=b.new(dc0) if b.is_used(dc0) else None,
            dfirst=first,
            dbias=dbias,
            **{"dw_ih_reverse": None, "dw_hh_reverse": None, **places},
            mode=MODES.index(self.mode),
            directions=d,
            steps=steps,
            n=n,
            c=c if fused else 0,
            h=h,
            x_ts=0 if source is None else source.strides[1],
            x_ns=0 if source is None else source.strides[0],
            dy_ts=0 if dy_ref is None or self.dy_step >= 0 else dy_ref.strides[1],
            dy_ns=0 if dy_ref is None else dy_ref.strides[0],
            dy_step=self.dy_step,
        )
        if not fused and dgates is not None:
            self._weights(b, (x, lengths), y_ref, dgates, (states, first), dweights)
        if dbias is not None:
            self._biases(b, dbias, dweights)
        if b.is_used(dx):
            out = b.new(dx, TIME_MAJOR)
            for i, w in enumerate(transposed[::4]):
                assert w is not None and dgates is not None
                part = window(dgates, i * steps * n * row)
                gemm(b, (part, (row, 1)), (w, (1, w.shape[0])), (out, c),
                     (steps * n, c, w.shape[0]), add=i > 0)  # fmt: skip

    def _weights(
        self,
        b: Builder,
        inputs: tuple[Value, Value | None],
        y: Ref,
        dgates: Ref,
        begin: tuple[Ref | None, Ref | None],
        dweights: Sequence[Value],
    ) -> None:
        """The weights' gradients as products over all steps."""
        _, steps, n, row = dgates.shape
        c = inputs[0].shape[2]
        if any(b.is_used(dw) for dw in dweights[::4]):
            rows = self._rows(b, *inputs)
            for i, dw in enumerate(dweights[::4]):
                if b.is_used(dw):
                    part = window(dgates, i * steps * n * row)
                    out = b.new(dw, (1, 0))
                    gemm(b, (rows, (1, c)), (part, (row, 1)), (out, dw.shape[0]),
                         (c, dw.shape[0], steps * n))  # fmt: skip
        for i, dw in enumerate(dweights[1::4]):
            if b.is_used(dw):
                self._state_weight(b, i, y, dgates, begin, b.new(dw, (1, 0)))

    def _rows(self, b: Builder, x: Value, lengths: Value | None) -> Ref:
        """x time-major, zero where a gradient of zero must not meet a NaN."""
        if lengths is None or self.padded:
            return b.dense(x, TIME_MAJOR)
        source = b.ref(x)
        if source.strides[2] != 1:
            source = b.dense(x)
        out = b.temp(x.shape, x.dtype, TIME_MAJOR)
        n, steps, c = x.shape
        b.step("rnn_mask", x=source, lengths=b.labels(lengths), out=out, steps=steps, n=n, c=c,
               x_ts=source.strides[1], x_ns=source.strides[0])  # fmt: skip
        return out

    def _state_weight(
        self,
        b: Builder,
        direction: int,
        y: Ref,
        dgates: Ref,
        begin: tuple[Ref | None, Ref | None],
        out: Ref,
    ) -> None:
        """w_hh's gradient: each step's gates with the state before, first steps with h0."""
        (d, steps, n, row), h = dgates.shape, out.shape[1]
        earlier, later = (n, 0) if direction else (0, n)  # row of y, row of dgates
        state = window(y, earlier * d * h + direction * h)
        grads = window(dgates, (direction * steps * n + later) * row)
        products = [(state, d * h, grads, (steps - 1) * n)]
        h0, first = begin
        if h0 is not None and first is not None:
            products.append(
                (window(h0, direction * n * h), h, window(first, direction * n * row), n)
            )
        # Columns of dgates and of the gradient: a GRU's new gate has its recurrent half in slot 3.
        parts = [(0, 0, 2 * h), (3 * h, 2 * h, h)] if self.mode == "GRU" else [(0, 0, row)]
        for slot, column, width in parts:
            for i, (a, a_row, g, k) in enumerate(products):
                gemm(b, (a, (1, a_row)), (window(g, slot), (row, 1)),
                     (window(out, column), out.shape[0]), (h, width, k), add=i > 0)  # fmt: skip

    def _biases(self, b: Builder, dbias: Ref, dweights: Sequence[Value]) -> None:
        row = dbias.shape[1]
        h = row // SLOTS[self.mode]
        for i, v in enumerate(dweights):
            if i % 4 < 2 or not b.is_used(v):
                continue
            sums = window(dbias, i // 4 * row)
            if self.mode != "GRU" or i % 4 == 2:
                b.alias(v, sums.with_strides(v.shape, (1,)))
                continue
            out = b.new(v)
            for start, slot, size in ((0, 0, 2 * h), (2 * h, 3 * h, h)):
                b.copy(window(sums, slot).with_strides((size,), (1,)),
                       window(out, start).with_strides((size,), (1,)))  # fmt: skip

    def reference(self, *inputs: Any) -> Any:
        dy, dhn, dcn, x, lengths, h0, c0, y, gates, cells = inputs[:10]
        weights, d = inputs[10:], len(inputs[10:]) // 4
        h = weights[1].shape[1]
        if self.dy_step >= 0 and dy is not None:
            dy, only = np.zeros_like(y), dy
            dy[:, self.dy_step] = only
        runs: list[tuple[Array, ...]] = []
        for i in range(d):
            pick: list[Any] = [
                None if v is None else v[i] for v in (dhn, dcn, h0, c0, gates, cells)
            ]
            part: list[Any] = [None if v is None else v[..., i * h : i * h + h] for v in (dy, y)]
            own = (*part, *pick, weights[4 * i : 4 * i + 2])
            runs.append(backward(self.mode, i == 1, x, lengths, *own))
        dx = sum(run[0] for run in runs)
        dh0, dc0 = (np.stack([run[j] for run in runs]) for j in (1, 2))
        return (dx, dh0, dc0, *(g for run in runs for g in run[3:]))

    @classmethod
    def examples(cls) -> Iterable[Example]:
        from fastnn.ops.rnn import Recurrent

        for forward in Recurrent.examples():
            op = forward.op
            arrays = forward.arrays(np.float64)
            outputs = op.reference(*arrays)
            states = 3 if op.mode == "LSTM" else 2  # type: ignore[attr-defined]
            saved = (outputs[0], *outputs[states:], None, None)[:3]
            rng = np.random.default_rng(6)
            douts = [rng.standard_normal(v.shape) for v in outputs[:states]]
            dstates = (*douts, None)[:3]
            mode = op.mode  # type: ignore[attr-defined]
            others = (*dstates[1:], *arrays[:4], *saved, *arrays[4:])
            yield Example(cls(mode=mode), douts[0], *others)
            last = outputs[0].shape[1] - 1
            yield Example(cls(mode=mode, dy_step=last), douts[0][:, last], *others)


def backward(
    mode: str,
    reverse: bool,
    x: Array,
    lengths: Array | None,
    dy: Array | None,
    y: Array,
    dhn: Array | None,
    dcn: Array | None,
    h0: Array | None,
    c0: Array | None,
    gates: Array | None,
    cells: Array | None,
    weights: Sequence[Any],
) -> tuple[Array, ...]:
    """One direction back with NumPy: dx, dh0, dc0 and the gradients of its four weights."""
    w_ih, w_hh = weights
    (n, steps, _), size = x.shape, w_hh.shape[1]
    zeros = np.zeros((n, size), x.dtype)
    dh, dc = (zeros if v is None else v for v in (dhn, dcn))
    h0, c0 = (zeros if v is None else v for v in (h0, c0))
    dx, dw_ih, dw_hh = np.zeros_like(x), np.zeros_like(w_ih), np.zeros_like(w_hh)
    db_ih, db_hh = np.zeros_like(w_ih[:, 0]), np.zeros_like(w_ih[:, 0])
    order = schedule(n, steps, lengths, reverse)
    for s in range(steps)[::-1]:
        t, active = order[s]
        kept = active[:, None]
        earlier, begun = order[s - 1] if s else (t, np.zeros(n, bool))
        before = np.where(begun[:, None], y[:, earlier], h0)
        dout = dh if dy is None else dh + dy[:, t]
        beside = 0
        if mode == "LSTM":
            assert gates is not None and cells is not None
            i, f, g, o = np.split(gates[t], 4, 1)
            bent, cell = np.tanh(cells[t]), np.where(begun[:, None], cells[earlier], c0)
            dcell = dc + dout * o * (1 - bent**2)
            sums = [dcell * g * i * (1 - i), dcell * cell * f * (1 - f)]
            sums += [dcell * i * (1 - g**2), dout * bent * o * (1 - o)]
            dc = np.where(kept, dcell * f, dc)
            dinput = dstate = np.concatenate(sums, 1)
        elif mode == "GRU":
            assert gates is not None
            r, z, new, half = np.split(gates[t], 4, 1)
            dz, dnew = dout * (before - new) * z * (1 - z), dout * (1 - z) * (1 - new**2)
            dr = dnew * half * r * (1 - r)
            dinput, dstate = (np.concatenate([dr, dz, v], 1) for v in (dnew, dnew * r))
            beside = dout * z
        else:
            out = y[:, t]
            dinput = dstate = dout * (1 - out**2 if mode == "RNN_TANH" else out > 0)
        dinput, dstate = (np.where(kept, v, 0) for v in (dinput, dstate))
        dh = np.where(kept, dstate @ w_hh + beside, dh)
        dx[:, t] = dinput @ w_ih
        dw_ih += dinput.T @ np.where(kept, x[:, t], 0)
        dw_hh += dstate.T @ before
        db_ih, db_hh = db_ih + dinput.sum(0), db_hh + dstate.sum(0)
    return dx, dh, dc, dw_ih, dw_hh, db_ih, db_hh

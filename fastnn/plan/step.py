"""One step of a plan, as an op emitted it."""

from __future__ import annotations

from typing import Any, Protocol

from fastnn import _core
from fastnn.graph import Shape
from fastnn.layout import Buffer, Ref


class Foreign(Protocol):
    """A C function made elsewhere, see Program.add_foreign; failed() is why it returned FOREIGN."""

    address: int

    def failed(self) -> Exception: ...


class StepRecord:
    """One kernel call; pointers are still Refs. shape is the last one's, nbytes that of them all."""

    __slots__ = ("bits", "fields", "flops", "foreign", "kernel", "label", "nbytes", "shape")

    def __init__(self, kernel: str, fields: dict[str, Any], label: str, flops: int) -> None:
        self.kernel, self.fields, self.label, self.flops = kernel, fields, label, flops
        refs = self._refs()
        self.nbytes = sum(ref.size * ref.dtype.itemsize for ref in refs)
        self.shape: Shape = refs[-1].shape if refs else ()
        self.bits = 0  # of the elements, where they are not the plan's floats
        self.foreign: Foreign | None = None  # called in place of a kernel of our own

    def _refs(self) -> list[Ref]:
        return [x for x in self.fields.values() if isinstance(x, Ref)]

    def buffers(self) -> list[Buffer]:
        """Those it touches, each once."""
        return list(dict.fromkeys(ref.buffer for ref in self._refs()))

    def written(self) -> set[Buffer]:
        """Those it writes to; any of them where the function is not ours."""
        if self.foreign is not None:
            return set(self.buffers())
        outputs = (self.fields.get(name) for name in _core.outputs(self.kernel))
        return {ref.buffer for ref in outputs if isinstance(ref, Ref)}

    def resolved(self) -> dict[str, Any]:
        """The fields with placed pointers: (space, offset in bytes)."""
        return {
            name: (x.buffer.space, x.buffer.offset + x.offset) if isinstance(x, Ref) else x
            for name, x in self.fields.items()
        }

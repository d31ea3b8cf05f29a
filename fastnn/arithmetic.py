"""What values and parameters have in common with arrays: operators, and ops as methods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def operations() -> Any:
    """The module of ops, which is built upon this one."""
    import fastnn.ops

    return fastnn.ops


class Arithmetic:
    """Operators by fastnn.ops."""

    __slots__ = ()
    __array_ufunc__ = None  # so that array + value comes to value.__radd__

    @property
    def T(self) -> Any:
        return operations().transpose(self)

    def __getitem__(self, key: Any) -> Any:
        return operations().getitem(self, key)

    def __add__(self, other: Any) -> Any:
        return operations().add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return operations().sub(self, other)

    def __rsub__(self, other: Any) -> Any:
        return operations().sub(other, self)

    def __mul__(self, other: Any) -> Any:
        return operations().mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return operations().div(self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return operations().div(other, self)

    def __pow__(self, other: Any) -> Any:
        return operations().pow(self, other)

    def __matmul__(self, other: Any) -> Any:
        return operations().matmul(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return operations().matmul(other, self)

    def __neg__(self) -> Any:
        return operations().neg(self)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """x.sum(), x.relu(), x.reshape(...): any function of fastnn.ops as a method."""
        function = None if name.startswith("_") else getattr(operations(), name, None)
        if not callable(function):
            raise AttributeError(
                f"{type(self).__name__} has no attribute {name!r}, nor fastnn.ops one"
            )
        return lambda *args, **kwargs: function(self, *args, **kwargs)

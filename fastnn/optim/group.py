"""Group: parameters with numbers of their own."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

from fastnn.nn.module import Parameter


class Group:
    """Parameters that an optimizer treats with other numbers: Group("head.*", lr=1e-2).

    parameters: names, patterns of names ("*.bias") or Parameters. numbers: arguments of the optimizer,
    such as lr or weight_decay; the others are the optimizer's. A parameter may be in one group at most.
    """

    def __init__(self, *parameters: str | Parameter, **numbers: Any) -> None:
        if not parameters:
            raise ValueError("parameters: expected at least one name, pattern or Parameter")
        for p in parameters:
            if not isinstance(p, (str, Parameter)):
                raise TypeError(
                    f"parameters: expected names, patterns or Parameters, got {type(p).__name__}"
                )
        self.parameters, self.numbers = parameters, dict(numbers)

    @property
    def lr(self) -> float | None:
        """Its learning rate in the next step; None: the optimizer's."""
        return self.numbers.get("lr")

    @lr.setter
    def lr(self, value: float | None) -> None:
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError(f"lr: expected 0 <= lr < inf, got {value!r}")
        self.numbers["lr"] = value

    def holds(self, name: str, parameter: Parameter) -> bool:
        """True if the model's parameter of this name is one of them."""
        return any(
            fnmatchcase(name, p) if isinstance(p, str) else p is parameter for p in self.parameters
        )

    @property
    def config(self) -> dict[str, Any]:
        """Its numbers, and what it says of its parameters."""
        return {"parameters": [_shown(p) for p in self.parameters], **self.numbers}

    def __repr__(self) -> str:
        numbers = [f"{k}={v!r}" for k, v in self.numbers.items()]
        return f"Group({', '.join([*map(_shown, self.parameters), *numbers])})"


def _shown(p: str | Parameter) -> str:
    return repr(p) if isinstance(p, str) else f"Parameter{p.shape}"


def group_numbers(own: Mapping[str, Any], group: Group) -> dict[str, Any]:
    """An optimizer's numbers with those of a group; TypeError where it has none of such a name."""
    unknown = group.numbers.keys() - own.keys()
    if unknown:
        raise TypeError(
            f"groups: expected some of {', '.join(own)}, got {', '.join(sorted(unknown))}"
        )
    return {**own, **{k: v for k, v in group.numbers.items() if v is not None}}

"""Time series from .ts files, the text format of sktime and aeon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastnn.data.dataset import DataError

_FLAGS = ("timestamps", "missing", "univariate", "equallength")
_COUNTS = ("dimensions", "serieslength")


@dataclass(frozen=True, eq=False, repr=False)
class Sequences:
    """Sequences of different lengths in one array: ``x, lengths, y = data.read_ts(path)``.

    x is of shape (n, T, channels), T being the longest sequence's length, and 0 past each one's end;
    lengths int64 (n,); y int64 (n,) numbers of ``classes``, or float64 targets with no classes, or
    None for a file without either. name: the problem's.
    """

    x: NDArray[Any]
    lengths: NDArray[np.int64]
    y: NDArray[Any] | None
    classes: tuple[str, ...]
    name: str

    def __iter__(self) -> Iterator[Any]:
        yield from (self.x, self.lengths, self.y)

    def __repr__(self) -> str:
        return (
            f"Sequences({self.name}: x={self.x.shape} {self.x.dtype}, {len(self.classes)} classes)"
        )


@dataclass
class _Header:
    """What the lines that begin with @ have said so far."""

    name: str = ""
    flags: dict[str, bool] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    target: bool = False
    seen: set[str] = field(default_factory=set)


class _Malformed(Exception):
    """What is wrong with a line; the reader adds file and line."""


def read_ts(path: str | os.PathLike[str], dtype: Any = np.float32) -> Sequences:
    """Read a .ts file: headers (@problemName to @data), then one case a line.

    A case's dimensions are separated by ':', its values by ','; its label stands last. '?' is a
    missing value, NaN, where @missing says that there are some. Headers are matched in any case.
    dtype: of x, float32 or float64.

    Raises DataError naming file and line for whatever is malformed or contradicts a header: unknown
    and repeated headers, values that are no numbers, empty dimensions, dimensions of one case that
    differ in length, wrong numbers of dimensions or values, labels that the header does not list;
    also for timestamps, which are not read. OSError where the file cannot be opened.
    """
    name = os.fspath(path)
    header = _Header()
    cases: list[NDArray[np.float64]] = []
    labels: list[Any] = []
    in_data = False
    number = 0
    try:
        with open(name, "rb") as file:
            for raw in file:
                number += 1
                line = raw.decode("utf-8").strip()
                if not line or line.startswith("#"):
                    continue
                if in_data:
                    values, label = _case(line, header, cases)
                    cases.append(values)
                    labels.append(label)
                elif line.lower() == "@data":
                    _complete(header)
                    in_data = True
                else:
                    _read_header(line, header)
            if not cases:
                raise _Malformed("ends without a case" if in_data else "ends without @data")
    except _Malformed as error:
        raise DataError(f"{name}:{number}: {error}") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{name}:{number}: not UTF-8 text: {error}") from error
    return _padded(header, cases, labels, dtype)


# --- headers ---


def _read_header(line: str, header: _Header) -> None:
    if not line.startswith("@"):
        raise _Malformed(f"expected a header that begins with @, or @data, got {_short(line)}")
    tag, *words = line[1:].split()
    key = {"dimension": "dimensions"}.get(tag.lower(), tag.lower())
    if key in header.seen:
        raise _Malformed(f"@{tag} stands there twice")
    header.seen.add(key)
    if key == "problemname":
        header.name = " ".join(words)
    elif key in _FLAGS:
        header.flags[key] = _flag(tag, words)
    elif key in _COUNTS:
        if len(words) != 1 or not words[0].isdecimal() or int(words[0]) < 1:
            raise _Malformed(f"@{tag}: expected a number of at least 1, got {_short(words)}")
        header.counts[key] = int(words[0])
    elif key == "classlabel":
        if _flag(tag, words[:1]):
            if len(words) < 2 or len(set(words[1:])) < len(words) - 1:
                raise _Malformed(f"@{tag}: expected different labels, got {_short(words[1:])}")
            header.classes = tuple(words[1:])
    elif key == "targetlabel":
        header.target = _flag(tag, words[:1])
    else:
        raise _Malformed(f"@{tag}: no header is called so")


def _flag(tag: str, words: list[str]) -> bool:
    value = " ".join(words).lower()
    if value not in ("true", "false"):
        raise _Malformed(f"@{tag}: expected true or false, got {_short(words)}")
    return value == "true"


def _complete(header: _Header) -> None:
    if header.flags.get("timestamps"):
        raise _Malformed("@timeStamps true: series with timestamps are not read")
    if header.classes and header.target:
        raise _Malformed("expected @classLabel or @targetLabel, got both")
    if header.flags.get("univariate"):
        if header.counts.get("dimensions", 1) != 1:
            raise _Malformed("@univariate true contradicts @dimensions")
        header.counts["dimensions"] = 1


# --- cases ---


def _case(line: str, header: _Header, cases: list[Any]) -> tuple[NDArray[np.float64], Any]:
    """The values (length, dimensions) of a case, and its label."""
    *parts, last = line.split(":")
    label: Any = None
    if header.classes is not None:
        if last.strip() not in header.classes:
            raise _Malformed(f"label {_short(last)} is not one of {_short(header.classes)}")
        label = header.classes.index(last.strip())
    elif header.target:
        label = _numbers(last, header, "target")
        if len(label) != 1:
            raise _Malformed(f"expected one target, got {_short(last)}")
        label = label[0]
    else:
        parts.append(last)
    wanted = header.counts.get("dimensions", cases[0].shape[1] if cases else len(parts))
    if len(parts) != wanted or not parts:
        raise _Malformed(f"expected {wanted} dimensions, got {len(parts)}")
    rows = [_numbers(part, header, f"dimension {i}") for i, part in enumerate(parts, 1)]
    length = len(rows[0])
    if header.flags.get("equallength"):
        length = header.counts.get("serieslength", len(cases[0]) if cases else length)
    for i, row in enumerate(rows, 1):
        if len(row) != length:
            raise _Malformed(f"dimension {i}: expected {length} values, got {len(row)}")
    return np.stack(rows, 1), label


def _numbers(text: str, header: _Header, what: str) -> NDArray[np.float64]:
    words = text.split(",")
    try:
        values = np.array([float("nan" if w.strip() == "?" else w) for w in words])
    except ValueError:
        raise _Malformed(f"{what}: expected numbers, got {_short(text)}") from None
    if not header.flags.get("missing") and not np.all(np.isfinite(values)):
        raise _Malformed(f"{what}: holds values that are missing or not finite, got {_short(text)}")
    return values


def _padded(header: _Header, cases: list[Any], labels: list[Any], dtype: Any) -> Sequences:
    lengths = np.array([len(c) for c in cases], np.int64)
    x = np.zeros((len(cases), int(lengths.max()), cases[0].shape[1]), dtype)
    for row, case in zip(x, cases, strict=True):
        row[: len(case)] = case
    y = None
    if header.classes is not None or header.target:
        y = np.array(labels, np.int64 if header.classes is not None else np.float64)
    return Sequences(x, lengths, y, header.classes or (), header.name)


def _short(given: Any) -> str:
    text = given if isinstance(given, str) else " ".join(given)
    return repr(text if len(text) <= 40 else text[:37] + "...")

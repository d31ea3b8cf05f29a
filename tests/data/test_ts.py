"""Reading .ts files: values against a file written by hand, and every kind of malformed line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastnn import data

HEADER = """# a comment
@problemName Two words
@timeStamps false
@missing false
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down

@data
"""
GOOD = HEADER + "1,2,3:4,5,6:down\n# between\n-1.5,2e-3 : 0,7 : up\n"


def write(folder: Path, text: str) -> str:
    path = folder / "file.ts"
    path.write_text(text)
    return str(path)


def test_ragged_cases_are_padded(tmp_path: Path) -> None:
    got = data.read_ts(write(tmp_path, GOOD))
    x, lengths, y = got
    assert (got.name, got.classes) == ("Two words", ("up", "down"))
    want = np.array([[[1, 4], [2, 5], [3, 6]], [[-1.5, 0], [2e-3, 7], [0, 0]]], np.float32)
    np.testing.assert_array_equal(x, want)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(lengths, [3, 2])
    np.testing.assert_array_equal(y, [1, 0])
    assert data.read_ts(write(tmp_path, GOOD), np.float64).x[1, 1, 0] == 2e-3


def test_targets_missing_values_and_no_labels(tmp_path: Path) -> None:
    head = "@PROBLEMNAME p\n@missing TRUE\n@univariate true\n@targetlabel true\n@DATA\n"
    x, _, y = data.read_ts(write(tmp_path, head + "1,?,3:0.25\n4,5,6:-1\n"))
    np.testing.assert_array_equal(x[0, :, 0], [1, np.nan, 3])
    np.testing.assert_array_equal(y, [0.25, -1])
    x, lengths, y = data.read_ts(write(tmp_path, "@univariate true\n@data\n1,2\n3\n"))
    assert y is None
    np.testing.assert_array_equal(lengths, [2, 1])


def header(old: str, new: str) -> str:
    return GOOD.replace(old, new)


MALFORMED = {
    "no header line": (header("# a", "a"), 1, "expected a header that begins with @"),
    "unknown header": (header("@missing", "@mising"), 4, "@mising: no header is called so"),
    "repeated header": (header("@missing", "@timestamps"), 4, "twice"),
    "no flag": (header("@missing false", "@missing no"), 4, "@missing: expected true or false"),
    "no number": (header("@dimensions 2", "@dimensions two"), 6, "expected a number of at least 1"),
    "no dimension": (header("@dimensions 2", "@dimensions 0"), 6, "expected a number of at least"),
    "no labels": (header(" up down", ""), 8, "@classLabel: expected different labels"),
    "labels twice": (header("up down", "up up"), 8, "@classLabel: expected different labels"),
    "both labels": (header("@data", "@targetLabel true\n@data"), 11, "got both"),
    "timestamps": (header("@timeStamps false", "@timeStamps true"), 10, "timestamps are not read"),
    "contradiction": (header("@univariate false", "@univariate true"), 10, "@univariate true"),
    "no data": (HEADER.replace("@data\n", ""), 9, "ends without @data"),
    "no case": (HEADER, 10, "ends without a case"),
    "header in data": (GOOD + "@data\n", 14, "label '@data' is not one of"),
    "unknown label": (GOOD + "1:2:left\n", 14, "label 'left' is not one of 'up down'"),
    "no label": (GOOD + "1,2:3,4\n", 14, "label '3,4' is not one of"),
    "no value": (GOOD + "1,2:3,x:up\n", 14, "dimension 2: expected numbers, got '3,x'"),
    "empty dimension": (GOOD + "1,2::up\n", 14, "dimension 2: expected numbers, got ''"),
    "missing value": (GOOD + "1,?:3,4:up\n", 14, "dimension 1: holds values that are missing"),
    "infinity": (GOOD + "1,inf:3,4:up\n", 14, "dimension 1: holds values"),
    "dimensions": (GOOD + "1,2:3,4:5,6:up\n", 14, "expected 2 dimensions, got 3"),
    "uneven": (GOOD + "1,2:3:up\n", 14, "dimension 2: expected 2 values, got 1"),
    "lengths": (header("Length false", "Length true"), 13, "expected 3 values, got 2"),
    "series length": (
        header("Length false", "Length true\n@seriesLength 4"),
        12,
        "expected 4 values, got 3",
    ),
    "target": ("@targetlabel true\n@data\n1,2:3,4\n", 3, "expected one target"),
}


@pytest.mark.parametrize("text,line,words", MALFORMED.values(), ids=MALFORMED)
def test_malformed_lines_are_named(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(data.DataError) as error:
        data.read_ts(write(tmp_path, text))
    assert f"file.ts:{line}: " in str(error.value)
    assert words in str(error.value)


def test_other_files(tmp_path: Path) -> None:
    (tmp_path / "binary.ts").write_bytes(b"@problemName p\n\xff\xfe\n")
    with pytest.raises(data.DataError, match=r"binary.ts:2: not UTF-8"):
        data.read_ts(tmp_path / "binary.ts")
    with pytest.raises(FileNotFoundError):
        data.read_ts(tmp_path / "none.ts")

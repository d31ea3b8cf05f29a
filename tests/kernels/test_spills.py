"""The microkernels' inner loops keep their sums in registers, and the loop that the peak is measured by
does what it counts: read from the disassembly."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

OBJECTS = Path(__file__).resolve().parents[2] / "build"
MICROKERNELS = ("gemm", "conv", "conv_weight", "conv_weight_planar", "conv_lanes_pool")
MICROKERNEL = re.compile(r"(tile|dense)_\d+(x|_)\d|(add_products|pooled_tile)_\d|(row|column)_runs")
LEAST_FMAS = 8  # of a loop that holds a tile's sums
FMA = re.compile(r"v?f(n?m)(add|sub)|fmla|mulp[sd]")
REGISTER = re.compile(r"%[xyz]mm\d|\b[vq]\d+")
STACK = re.compile(r"\(%r[sb]p[,)]|\[(sp|x29)[,\]]")
LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
TARGET = re.compile(r"\b([0-9a-f]+) <")


@dataclass(frozen=True)
class Instruction:
    address: int
    name: str
    operands: str

    @property
    def target(self) -> int | None:
        """Where a jump goes."""
        jumps = self.name.startswith(("j", "b.", "cbnz", "cbz", "tb")) or self.name == "b"
        found = TARGET.search(self.operands) if jumps else None
        return int(found[1], 16) if found else None

    @property
    def spills(self) -> bool:
        """A vector that goes to the stack or comes from it."""
        return bool(REGISTER.search(self.operands) and STACK.search(self.operands))


def functions(path: Path) -> Iterator[tuple[str, list[Instruction]]]:
    """Name and instructions of each function of an object."""
    command = ["objdump", "-d", "--no-show-raw-insn", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for part in text.split("\n\n"):
        head, _, body = part.strip().partition("\n")
        name = re.search(r"<(.+)>:$", head)
        if name:
            found = (LINE.match(line) for line in body.splitlines())
            yield name[1], [Instruction(int(m[1], 16), m[2], m[3]) for m in found if m]


def inner_loops(code: list[Instruction]) -> Iterator[list[Instruction]]:
    """The innermost loops: from a backward jump's target to the jump, without another in between."""
    back = [(i.target, i.address) for i in code if i.target is not None and i.target <= i.address]
    for first, last in back:
        inside = [(a, b) for a, b in back if first <= a and b <= last and (a, b) != (first, last)]
        if code[0].address <= first and not inside:
            yield [i for i in code if first <= i.address <= last]


def objects(*families: str) -> list[Path]:
    """The built objects of the families; none where the package was installed."""
    found = sorted(OBJECTS.glob("temp*/kernels/*.o"))
    return [p for p in found if p.name.split(".")[0] in families]


needs_objdump = pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")


@needs_objdump
@pytest.mark.parametrize("path", objects(*MICROKERNELS), ids=lambda p: p.name)
def test_inner_loops_do_not_spill(path: Path) -> None:
    loops = 0
    microkernels = ((n, code) for n, code in functions(path) if MICROKERNEL.match(n))
    for name, code in microkernels:
        for loop in inner_loops(code):
            if sum(bool(FMA.match(i.name)) for i in loop) >= LEAST_FMAS:
                loops += 1
                spilled = [f"{i.name} {i.operands}" for i in loop if i.spills]
                assert not spilled, f"{name}: {spilled}"
    assert loops, "no microkernel was found"


@needs_objdump
@pytest.mark.parametrize("path", objects("peak"), ids=lambda p: p.name)
def test_the_peak_counts_what_it_does(path: Path) -> None:
    """A compiler that finds a chain of multiply-adds constant leaves it out of the loop."""
    (code,) = (code for name, code in functions(path) if name.startswith("fnn_peak_fma"))
    counts = [sum(bool(FMA.match(i.name)) for i in loop) for loop in inner_loops(code)]
    source = (OBJECTS.parent / "kernels" / "body" / "peak.c").read_text()
    chains = re.search(r"CHAINS = (\d+)", source)
    assert chains is not None
    assert counts == [int(chains[1])]

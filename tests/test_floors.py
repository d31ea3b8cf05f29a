"""Imports go down the house's floors only."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fastnn

ROOT = Path(fastnn.__file__).parent
FLOORS = [
    {"_core"},
    {"arithmetic", "graph", "layout", "autodiff", "ops"},
    {"plan"},
    {"nn", "optim", "data"},
    {"train", "interop", "models", "perceptron", "explain", "plot"},
    {"cli", "__main__"},
]
FLOOR = {name: i for i, names in enumerate(FLOORS) for name in names}


def part(module: str) -> str:
    """The room of a module: fastnn.ops.conv is in ops."""
    return module.split(".")[1] if "." in module else "__init__"


def imports(path: Path) -> set[str]:
    """Rooms that a file imports at run time; imports for type checking only do not count."""
    tree = ast.parse(path.read_text())
    typing_only: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            typing_only.update(ast.walk(node))
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {part(a.name) for a in node.names if a.name.startswith("fastnn.")}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("fastnn"):
            if node.module == "fastnn":
                found |= {a.name for a in node.names if a.name in FLOOR}
            else:
                found.add(part(node.module or ""))
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix in (".py", "") and p.name[0] != "_"}
    rooms -= {"py"}  # py.typed
    assert {r for r in rooms if (ROOT / r).is_dir() or (ROOT / f"{r}.py").exists()} <= set(FLOOR)


def test_imports_go_down() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        relative = path.relative_to(ROOT)
        room = relative.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports(path):
            if FLOOR.get(other, -1) > FLOOR[room]:
                wrong.append(f"{relative} imports {other}")
    assert wrong == []


def loaded_by(statement: str) -> set[str]:
    """Modules that a statement loads in a new process that has NumPy."""
    code = (
        "import sys, numpy; before = set(sys.modules); "
        f"{statement}; print(*set(sys.modules) - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


def test_all_parts_together_take_nothing_but_numpy() -> None:
    found = {m.split(".")[0] for m in loaded_by("from fastnn import *")}
    foreign = found - set(sys.stdlib_module_names) - {"fastnn", "numpy"}
    assert {m for m in foreign if not m.startswith(("_cython", "cython", "__"))} == set()


def test_import_loads_the_core_alone() -> None:
    found = {m for m in loaded_by("import fastnn") if m.startswith("fastnn")}
    assert found == {"fastnn", "fastnn._core"}


def test_every_public_name_is_there() -> None:
    assert set(fastnn.__all__) <= set(dir(fastnn))
    assert all(getattr(fastnn, name) is not None for name in fastnn.__all__)
    with pytest.raises(AttributeError, match="'nothing'"):
        fastnn.nothing  # noqa: B018

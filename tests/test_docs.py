"""Every Python block in README and docs runs; where an output follows, it is what it prints.

The blocks of one page share their names, as a reader's session does.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
# README's example trains for some seconds; its output is what one machine's rounding gives.
CHANGED = {"README.md": ("epochs=30", "epochs=1")}
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```\n)?", re.DOTALL | re.MULTILINE)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_CODE = [pytest.param(p, id=p.name) for p in PAGES if BLOCK.search(p.read_text())]


@pytest.mark.parametrize("page", WITH_CODE)
def test_code_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    for code, expected in BLOCK.findall(page.read_text()):
        before, after = CHANGED.get(page.name, ("", ""))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code.replace(before, after), page.name, "exec"), names)
        if expected and page.name not in CHANGED:
            assert printed.getvalue() == expected

"""Every example on every page runs, and the pages build without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("*.md"))
EXAMPLES = [*PAGES, ROOT / "README.md"]
FENCE = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", EXAMPLES, ids=lambda page: page.stem)
def test_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = page.read_text(encoding="utf-8")
    blocks = list(FENCE.finditer(text))
    assert blocks, f"{page.name} has no runnable example"
    monkeypatch.chdir(tmp_path)
    # The blocks of a page share one namespace, in a module that is importable: dataclasses look their module up.
    module = types.ModuleType(f"docs_{page.stem}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks:
        # Line numbers in a traceback are then those of the page.
        padding = "\n" * (text[: block.start(1)].count("\n"))
        exec(compile(padding + block.group(1), str(page), "exec"), module.__dict__)


def test_pages_build_without_a_warning(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "html",
        str(ROOT / "docs"),
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in PAGES:
        assert (tmp_path / f"{page.stem}.html").exists()


def test_the_readme_gives_the_command_that_ci_runs() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- tests -->\s*```\w*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert block, "README.md needs a fenced block after <!-- tests -->, which .ci/run runs"
    lines = [line for line in block.group(1).splitlines() if line.strip()]
    # .ci/run joins the lines into one chain, which a comment or a continued line would break.
    assert not any(line.lstrip().startswith("#") or line.endswith("\\") for line in lines), lines
    assert "pytest" in lines[-1]


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "bench" / "tables.py"), "--check"], check=False)
    assert done.returncode == 0

"""The rules of the house that a tool or a glance at the syntax tree can check."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rheos"
MODULES = sorted(SOURCE.rglob("*.py"))
SCRIPTS = sorted((ROOT / "bench").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
VAGUE = {"utils", "util", "helpers", "helper", "misc", "common", "manager", "managers"}

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def _functions(paths: list[Path]) -> Iterator[tuple[Path, FunctionNode]]:
    for path in paths:
        for node in ast.walk(_tree(path)):
            if isinstance(node, FunctionNode):
                yield path, node


def _run(tool: str, *args: str) -> None:
    """Run a tool of this environment over the tree, and show what it printed when it found fault."""
    script = Path(sysconfig.get_path("scripts")) / tool
    command = str(script) if script.exists() else shutil.which(tool)
    assert command is not None, f"{tool} is not installed: pip install -c constraints.txt '.[dev]'"
    # Node.js comes with pyright[nodejs], the checker with the wheel; untold, it would still ask for a newer one.
    environment = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([command, *args], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{tool} {' '.join(args)}\n{done.stdout}\n{done.stderr}"


def test_ruff_finds_nothing() -> None:
    _run("ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing() -> None:
    _run("ruff", "format", "--check", "--no-cache", ".")


def test_pyright_finds_nothing() -> None:
    _run("pyright", "--pythonpath", sys.executable)


def test_imports_point_down_the_floors() -> None:
    _run("lint-imports", "--no-cache")


def test_every_package_stands_on_a_floor() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (floors,) = [c["layers"] for c in contracts if c["type"] == "layers"]
    listed = {name.strip() for floor in floors for name in re.split(r"[|:]", floor)} - {"__main__"}
    built = {p.parent.name for p in SOURCE.glob("*/__init__.py")} | {
        p.stem for p in SOURCE.glob("*.py") if not p.stem.startswith("__")
    }
    assert built == listed


def test_files_have_one_subject() -> None:
    faults = []
    for path in [*MODULES, *SCRIPTS, *TESTS]:
        if VAGUE & {path.stem, *(folder.name for folder in path.relative_to(ROOT).parents)}:
            faults.append(f"{_name(path)}: a name that explains nothing")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) >= 450:
            faults.append(f"{_name(path)}: {lines} lines, split it by subject")
    assert not faults, "\n".join(faults)


def test_functions_fit_a_screen() -> None:
    faults = []
    for path, function in _functions([*MODULES, *SCRIPTS]):
        if (lines := (function.end_lineno or function.lineno) - function.lineno + 1) > 75:
            faults.append(f"{_name(path)}: {function.name} has {lines} lines")
    assert not faults, "\n".join(faults)


def test_functions_are_annotated() -> None:
    faults = []
    for path, function in _functions([*MODULES, *SCRIPTS]):
        a = function.args
        given = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x)]
        if function.returns is None or any(x.annotation is None for x in given if x.arg not in ("self", "cls")):
            faults.append(f"{_name(path)}:{function.lineno}: {function.name}")
    assert not faults, "\n".join(faults)


def test_modules_open_with_their_idea() -> None:
    assert not [_name(path) for path in MODULES if not ast.get_docstring(_tree(path))]


def test_nothing_is_left_undone() -> None:
    undone = re.compile(r"\b(TODO|FIXME|XXX)\b|raise NotImplementedError")
    assert not [_name(path) for path in MODULES if undone.search(path.read_text(encoding="utf-8"))]


TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "normal", "bernoulli", "multinomial"}
NUMPY_SEEDED = {"default_rng", "Generator", "SeedSequence", "PCG64", "Philox"}


def _unseeded(path: Path) -> Iterator[str]:
    """Calls that would read or seed a global generator: torch's, NumPy's, or Python's."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import) and any(alias.name == "random" for alias in node.names):
            yield f"{_name(path)}:{node.lineno}: import random"
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        called, keywords = ast.unparse(node.func), {k.arg for k in node.keywords}
        head, _, last = called.rpartition(".")
        if head == "torch" and (last == "manual_seed" or (last in TORCH_DRAWS and "generator" not in keywords)):
            yield f"{_name(path)}:{node.lineno}: {called}"
        if head in ("np.random", "numpy.random") and last not in NUMPY_SEEDED:
            yield f"{_name(path)}:{node.lineno}: {called}"
        if last == "default_rng" and not node.args and not node.keywords:
            yield f"{_name(path)}:{node.lineno}: {called}() without a seed"


def test_nothing_reads_a_global_generator() -> None:
    faults = [fault for path in MODULES for fault in _unseeded(path)]
    assert not faults, "\n".join(faults)

"""Plant faults and see whether the tests find them: `python bench/mutation.py --sample 300 --seed 0`.

The faults are the mutations of cosmic-ray (`pip install -c constraints.txt '.[dev,mutation]'`): one operator, number,
comparison, boolean, decorator or loop of one file is changed. Each mutant is judged by the tests of its own folder,
and, if they let it pass, by those of the folders above that build on it. PyTorch is imported once: each mutant runs
in a forked child over a copy of the tree, so that it costs the time of its tests alone, and the tests stop at the
first failure.

Verdicts are kept in `.mutation/verdicts.jsonl`; a run that was stopped goes on where it stood, and a mutant that
survived is tried again once the tests have changed. The result names every survivor with its difference; a reason
written into its `why` field ("equivalent: ...") stays there from run to run.

Left out of the population: mutants that differ in annotations, docstrings, `@final` or `@overload` alone, which no test
can see; arithmetic turned into operations on bits, which every float refuses; and mutants that are no Python. A mutant
whose module cannot even be imported is counted as broken and not as killed.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import hashlib
import json
import os
import platform
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import scipy.optimize
import torch
from cosmic_ray import plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from threadpoolctl import threadpool_limits

ROOT = Path(__file__).resolve().parents[1]
WORK = ROOT / ".mutation"
RESULT = ROOT / "bench" / "results" / "mutation.json"
ABOVE = {
    "core": ["schedules", "paths", "couplings", "dynamics", "solvers", "objectives", "guidance"],
    "schedules": ["paths", "dynamics", "solvers", "objectives"],
    "paths": ["dynamics", "solvers", "objectives"],
    "couplings": ["objectives"],
    "dynamics": ["solvers", "guidance", "objectives"],
    "solvers": ["dynamics"],
    "objectives": ["training"],
}
"""Each mutated folder with the folders whose tests also lean on it, nearest first."""

BITS = {"RShift", "LShift", "BitOr", "BitAnd", "BitXor"}
MEMORY = 8 << 30
PASSED, KILLED, BROKEN = 0, 1, 3


@dataclass(frozen=True)
class Mutant:
    """One changed place: the file, the operator of cosmic-ray, and which of its places in that file."""

    file: str
    operator: str
    occurrence: int
    line: int

    @property
    def folder(self) -> str:
        return Path(self.file).parent.name

    def code(self) -> str | None:
        """The mutated source, or ``None`` when the change cannot be seen or is no Python."""
        source = (ROOT / self.file).read_text(encoding="utf-8")
        mutated = mutate_code(source, plugins.get_operator(self.operator)(), self.occurrence)
        if mutated is None:
            return None
        try:
            return mutated if _visible(mutated) != _visible(source) else None
        except SyntaxError:
            return None

    def difference(self, mutated: str) -> str:
        source = (ROOT / self.file).read_text(encoding="utf-8")
        lines = difflib.unified_diff(source.splitlines(), mutated.splitlines(), lineterm="", n=0)
        return "\n".join(line for line in lines if not line.startswith(("---", "+++", "@@")))


class _Strip(ast.NodeTransformer):
    """Take out what has no effect on a running program."""

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            node.decorator_list = [d for d in node.decorator_list if ast.unparse(d) not in ("final", "overload")]
        if isinstance(node, ast.FunctionDef):
            node.returns = None
        if isinstance(node, ast.arg):
            node.annotation = None
        if isinstance(node, ast.AnnAssign):
            node.annotation = ast.Constant(value=None)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return ast.Pass()
        return self.generic_visit(node)


def _visible(source: str) -> str:
    return ast.dump(_Strip().visit(ast.parse(source)))


def _operators() -> Iterator[str]:
    for name in plugins.operator_names():
        if "VariableReplacer" in name or "VariableInserter" in name:
            continue
        parts = name.split("_")
        if "ReplaceBinaryOperator" in name and parts[-1] in BITS and parts[-2] not in BITS:
            continue
        yield name


def population(folders: list[str]) -> list[Mutant]:
    """Every place at which an operator of cosmic-ray applies, in a fixed order."""
    operators = {name: plugins.get_operator(name)() for name in sorted(_operators())}
    out = []
    for folder in folders:
        for path in sorted((ROOT / "src" / "rheos" / folder).glob("*.py")):
            seen: Counter[str] = Counter()
            nodes = list(ast_nodes(get_ast(path.read_text(encoding="utf-8"))))
            for node in nodes:
                for name, operator in operators.items():
                    for (line, _), _ in operator.mutation_positions(node):
                        out.append(Mutant(str(path.relative_to(ROOT)), name, seen[name], line))
                        seen[name] += 1
    return out


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _tests_digest() -> str:
    files = sorted((ROOT / "tests").rglob("*.py"))
    return _digest(*(f"{path.relative_to(ROOT)}\0{path.read_text(encoding='utf-8')}" for path in files))


def _stages(mutant: Mutant) -> list[list[str]]:
    """The tests to run: those that bear the module's name, the rest of its folder, the folders above."""
    own = f"tests/{mutant.folder}"
    named = f"{own}/test_{Path(mutant.file).stem}.py"
    stages = [[named], [own, f"--ignore={named}"]] if (ROOT / named).exists() else [[own]]
    above = ABOVE.get(mutant.folder, [])
    higher = [f"tests/{folder}" for folder in above if any((ROOT / "tests" / folder).glob("test_*.py"))]
    return [*stages, higher] if higher else stages


def _passed(stages: list[list[str]]) -> bool:
    """Whether every stage passes, up to the first that does not. Tests that are not there pass nothing."""
    quiet = ["-x", "-q", "--assert=plain", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist"]
    found = False
    for tests in stages:
        result = pytest.main([*quiet, *tests])
        if result not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return False
        found |= result == pytest.ExitCode.OK
    return found


@dataclass
class Job:
    """A child at work on a mutant, in its own copy of the tree."""

    mutant: Mutant
    mutated: str
    pid: int
    started: float
    limit: float


def _child(copy: Path, module: str, stages: list[list[str]], log: Path) -> None:
    """Run the stages until one fails, and leave with the verdict as the exit code. Never returns."""
    os.setsid()
    code = BROKEN
    try:
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        os.chdir(copy)
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(copy / "src"))
        imported = __import__(module, fromlist=["_"])
        assert str(imported.__file__).startswith(str(copy)), f"{imported.__file__} is not the copy"
        code = KILLED
        code = PASSED if _passed(stages) else KILLED
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


class Slot:
    """A copy of the tree, in which one mutant at a time is judged."""

    def __init__(self, number: int) -> None:
        self.path = WORK / f"copy-{number}"
        self.log = WORK / f"copy-{number}.log"
        self.job: Job | None = None
        shutil.rmtree(self.path, ignore_errors=True)
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, self.path / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        shutil.copy(ROOT / "pyproject.toml", self.path)

    def begin(self, mutant: Mutant, mutated: str, limit: float) -> None:
        (self.path / mutant.file).write_text(mutated, encoding="utf-8")
        module = ".".join(Path(mutant.file).relative_to("src").with_suffix("").parts).removesuffix(".__init__")
        pid = os.fork()
        if pid == 0:
            _child(self.path, module, _stages(mutant), self.log)
        self.job = Job(mutant, mutated, pid, time.monotonic(), limit)

    def verdict(self) -> tuple[str, float] | None:
        """What became of the mutant, and the seconds it took; ``None`` while it is at work."""
        assert self.job is not None
        took = time.monotonic() - self.job.started
        pid, status = os.waitpid(self.job.pid, os.WNOHANG)
        if pid == 0 and took < self.job.limit:
            return None
        if pid == 0:
            os.kill(self.job.pid, signal.SIGKILL)
            os.waitpid(self.job.pid, 0)
            return "timeout", took
        code = os.waitstatus_to_exitcode(status)
        # A crash of the interpreter, or memory refused, is noticed by whoever runs the tests.
        return {PASSED: "survived", BROKEN: "broken"}.get(code, "killed"), took

    def end(self) -> None:
        assert self.job is not None
        shutil.copy(ROOT / self.job.mutant.file, self.path / self.job.mutant.file)
        self.job = None


def baseline(slot: Slot, folders: list[str]) -> dict[str, float]:
    """The seconds that the tests of each folder take on the sound tree.

    Raises:
        SystemExit: if they fail there, for then they would fail on every mutant.
    """
    seconds = {}
    for folder in folders:
        mutant = Mutant(f"src/rheos/{folder}/__init__.py", "", 0, 1)
        slot.begin(mutant, (ROOT / mutant.file).read_text(encoding="utf-8"), 1800.0)
        while (found := slot.verdict()) is None:
            time.sleep(0.05)
        slot.end()
        if found[0] != "survived":
            raise SystemExit(f"the tests for {folder} fail on the sound tree:\n{slot.log.read_text()[-3000:]}")
        seconds[folder] = found[1]
        print(f"{folder}: {found[1]:.1f} s on the sound tree", flush=True)
    return seconds


def judge(mutants: Iterator[Mutant], wanted: int, slots: list[Slot], seconds: dict[str, float]) -> list[dict[str, Any]]:
    """Verdicts on mutants until ``wanted`` of them were not broken; those known from earlier runs are not run again."""
    journal, tests = WORK / "verdicts.jsonl", _tests_digest()
    known = {}
    if journal.exists():
        known = {entry["id"]: entry for entry in map(json.loads, journal.read_text().splitlines())}
    out: list[dict[str, Any]] = []
    seen: set[str] = set()

    def counted() -> int:
        return sum(entry["verdict"] != "broken" for entry in out)

    def admit(entry: dict[str, Any]) -> None:
        out.append(entry)
        print(
            f"{counted()}/{wanted} {entry['verdict']:8} {entry['seconds']:6.1f} s {entry['file']}:{entry['line']}",
            flush=True,
        )

    with journal.open("a") as record:
        while True:
            busy = [slot for slot in slots if slot.job is not None]
            free = [slot for slot in slots if slot.job is None]
            while free and counted() + len(busy) < wanted and (mutant := next(mutants, None)) is not None:
                if (mutated := mutant.code()) is None or (key := _digest(mutant.file, mutated)) in seen:
                    continue
                seen.add(key)
                entry = known.get(key)
                if entry and (entry["verdict"] != "survived" or entry["tests"] == tests):
                    admit(entry)
                    continue
                slot = free.pop()
                slot.begin(mutant, mutated, 20 + 4 * seconds[mutant.folder])
                busy.append(slot)
            if not busy:
                return out
            time.sleep(0.02)
            for slot in busy:
                if (found := slot.verdict()) is None or (job := slot.job) is None:
                    continue
                key, difference = _digest(job.mutant.file, job.mutated), job.mutant.difference(job.mutated)
                entry = {"id": key, "verdict": found[0], "seconds": round(found[1], 2), "tests": tests}
                entry |= asdict(job.mutant) | {"difference": difference}
                record.write(json.dumps(entry) + "\n")
                record.flush()
                slot.end()
                admit(entry)


def report(entries: list[dict[str, Any]], options: argparse.Namespace, places: int, wall: float) -> dict[str, Any]:
    """The result file: the score, the counts of each folder, and every survivor with the reason given for it so far."""
    before = json.loads(RESULT.read_text())["survivors"] if RESULT.exists() else []
    reasons = {(s["file"], s["difference"]): s.get("why", "") for s in before}
    survivors = [
        {k: e[k] for k in ("file", "line", "operator", "difference")}
        | {"why": reasons.get((e["file"], e["difference"]), "")}
        for e in entries
        if e["verdict"] == "survived"
    ]
    counts = Counter(e["verdict"] for e in entries)
    caught, judged = counts["killed"] + counts["timeout"], len(entries) - counts["broken"]
    equivalent = sum(s["why"].startswith("equivalent") for s in survivors)
    folders: dict[str, Counter[str]] = {}
    for entry in entries:
        folders.setdefault(Path(entry["file"]).parent.name, Counter())[entry["verdict"]] += 1
    return {
        "command": f"python bench/mutation.py --sample {options.sample} --seed {options.seed}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "versions": {name: version(name) for name in ("torch", "pytest", "cosmic-ray")},
        "places": places,
        "judged": judged,
        "score": round(caught / max(judged, 1), 4),
        "score_without_equivalent": round(caught / max(judged - equivalent, 1), 4),
        "counts": dict(counts),
        "folders": {name: dict(count) for name, count in sorted(folders.items())},
        "wall_seconds": round(wall, 1),
        "survivors": sorted(survivors, key=lambda s: (s["file"], s["line"])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sample", type=int, default=300, help="mutants to judge, broken ones not counted")
    parser.add_argument("--seed", type=int, default=0, help="which mutants are drawn")
    parser.add_argument("--workers", type=int, default=2, help="mutants judged side by side")
    parser.add_argument("--folders", nargs="+", default=list(ABOVE), help="folders of src/rheos to mutate")
    parser.add_argument("--fresh", action="store_true", help="forget the verdicts of earlier runs")
    parser.add_argument("--out", type=Path, default=RESULT, help="the result file")
    options = parser.parse_args()
    WORK.mkdir(exist_ok=True)
    if options.fresh:
        (WORK / "verdicts.jsonl").unlink(missing_ok=True)
    # Children inherit this; two workers with threads of their own would wait for each other.
    torch.set_num_threads(1)
    threadpool_limits(1)
    started = time.monotonic()
    mutants = population(options.folders)
    random.Random(options.seed).shuffle(mutants)
    print(f"{len(mutants)} places in {', '.join(options.folders)}; SciPy {scipy.__version__}")
    slots = [Slot(number) for number in range(options.workers)]
    seconds = baseline(slots[0], options.folders)
    entries = judge(iter(mutants), options.sample, slots, seconds)
    result = report(entries, options, len(mutants), time.monotonic() - started)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"score {result['score']:.1%} of {result['judged']}; {len(result['survivors'])} survivors in {options.out}")


if __name__ == "__main__":
    main()

"""Compiled plans for one model: what is kept of them, and who may use them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, InputError
from ...core.protocols import Dynamics, Memory, S, Step
from ...core.rng import Rng
from ...paths import Affine
from ..base import FixedStep
from ..grids import Given, Grid
from .classical import CLASSICAL
from .field import Figures
from .rule import Fitted, Rule

VERSION = 1

SEEN = 4096
"""Numbers of a tensor that a fingerprint looks at, spread over it."""


@final
@dataclass(frozen=True)
class Entry:
    """What is best for one budget.

    Args:
        evaluations: of the model, for a sample.
        rule: the fitted rule, or the grid of a classical solver.
        solver: the name of the classical solver that is better than any rule that was found; ``None`` for the rule.
        expected: errors on draws that the fit has not seen.
        classical: the least errors of the classical solvers on the same draws, each figure by itself.
    """

    evaluations: int
    rule: Rule
    solver: str | None
    expected: Figures
    classical: Figures

    def __str__(self) -> str:
        name = "a fitted rule" if self.solver is None else self.solver
        return (
            f"{name} in {self.evaluations} evaluations, expected error {self.expected.median:.2g} in the median, "
            f"{self.expected.p95:.2g} in 95 of 100"
        )


@final
@dataclass(frozen=True)
class PlanSolver(FixedStep[S]):
    """The solver of an entry, to integrate a flow from 0 to 1 along its ``grid``.

    Args:
        entry: of a plan, ``plan.at(10)``.
        path: the path that the flow was learned on; straight lines when left out.
    """

    entry: Entry
    path: Affine = Affine()

    @property
    def solver(self) -> FixedStep[S]:
        """What takes the steps."""
        name = self.entry.solver
        return Fitted(self.entry.rule) if name is None else CLASSICAL[name](self.path)

    @property
    def order(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """That of the solver."""
        return self.solver.order

    @property
    def grid(self) -> Tensor:
        """The times (N+1,), float32."""
        return self.times(self.entry.rule.steps)

    @property
    def times(self) -> Grid:
        """The grid as a value that a recipe can hold."""
        return Given(self.entry.rule.times)

    def evaluations(self, steps: int) -> int:
        """Evaluations on a grid of ``steps`` steps."""
        return self.solver.evaluations(steps)

    def steps(self, evaluations: int) -> int:
        """The steps of the entry, whatever more is allowed.

        Raises:
            InputError: if it takes more.
        """
        if evaluations < self.entry.evaluations:
            raise InputError(f"this plan takes {self.entry.evaluations} evaluations, and {evaluations} are allowed.")
        return self.entry.rule.steps

    def start(self, dynamics: Dynamics[S], x: S, grid: Tensor) -> Memory:
        return self.solver.start(dynamics, x, grid)

    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Memory = (), rng: Rng | None = None
    ) -> Step[S]:
        return self.solver.step(dynamics, x, t, s, memory, rng)


@final
@dataclass(frozen=True)
class Plan:
    """Sampling rules for one model, by the number of evaluations.

    Args:
        entries: by budget.
        guidance: the least and the greatest scale that the rules were fitted for; 1 is none.
        model: the fingerprint of the model.
        draws: noises that each rule was fitted on.
        sharp: whether it was fitted to one distribution of conditions, to be used with that alone.
        costs: states that were evaluated to fit each budget.
    """

    entries: Mapping[int, Entry]
    guidance: tuple[float, float] = (1.0, 1.0)
    model: str = ""
    draws: int = 0
    sharp: bool = False
    costs: Mapping[int, int] = field(default_factory=dict)

    def at(self, evaluations: int) -> Entry:
        """The entry of the largest budget that does not exceed ``evaluations``.

        Raises:
            InputError: if there is none.
        """
        fitting = [budget for budget in self.entries if budget <= evaluations]
        if not fitting:
            raise InputError(
                f"this plan begins at {min(self.entries)} evaluations, {evaluations} are allowed; allow more, or "
                "compile a plan for fewer."
            )
        return self.entries[max(fitting)]

    def require(self, model: str, guidance: float = 1.0) -> None:
        """Refuse another model or guidance.

        Raises:
            CheckpointError: for another model.
            InputError: for a guidance that the plan was not fitted for.
        """
        if model != self.model:
            raise CheckpointError(
                "this plan was compiled for another model, or this one has learned or been changed since; compile it "
                "anew."
            )
        low, high = self.guidance
        if not low <= guidance <= high:
            raise InputError(
                f"this plan was compiled for guidance from {low:g} to {high:g}, not {guidance:g}; compile one for it."
            )

    def to_json(self) -> str:
        """The plan as text."""
        entries = [
            {
                "evaluations": entry.evaluations,
                "solver": entry.solver,
                "times": list(entry.rule.times),
                "rows": [list(row) for row in entry.rule.rows],
                "expected": asdict(entry.expected),
                "classical": asdict(entry.classical),
            }
            for entry in self.entries.values()
        ]
        content = {
            "format": "rheos plan",
            "version": VERSION,
            "time": "noise at 0, data at 1",
            "guidance": list(self.guidance),
            "model": self.model,
            "draws": self.draws,
            "sharp": self.sharp,
            "costs": {str(budget): cost for budget, cost in self.costs.items()},
            "entries": entries,
        }
        return json.dumps(content, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Plan:
        """The plan that :meth:`to_json` wrote.

        Raises:
            CheckpointError: if it is none, damaged, or of another version.
        """
        try:
            content = json.loads(text)
            if content["format"] != "rheos plan" or content["version"] != VERSION:
                raise CheckpointError(
                    f"this is no plan of version {VERSION}: {content['format']!r}, version {content['version']!r}."
                )
            entries = [_entry(each) for each in content["entries"]]
            low, high = map(float, content["guidance"])
            return Plan(
                {entry.evaluations: entry for entry in entries},
                (low, high),
                str(content["model"]),
                int(content["draws"]),
                bool(content["sharp"]),
                {int(budget): int(cost) for budget, cost in content["costs"].items()},
            )
        except CheckpointError:
            raise
        except (ValueError, KeyError, TypeError, InputError) as error:
            raise CheckpointError(f"the plan is damaged ({error!r}); compile it anew.") from error


def _entry(content: Mapping[str, Any]) -> Entry:
    rule = Rule(tuple(map(float, content["times"])), tuple(tuple(map(float, row)) for row in content["rows"]))
    solver = content["solver"]
    if solver is not None and solver not in CLASSICAL:
        raise InputError(f"there is no solver {solver!r}")
    expected, classical = (
        Figures(**{name: float(value) for name, value in content[part].items()}) for part in ("expected", "classical")
    )
    return Entry(int(content["evaluations"]), rule, solver, expected, classical)


def fingerprint(model: nn.Module) -> str:
    """What tells a model from others: the SHA-256 sum of the names, shapes and, spread over each, some numbers of its
    tensors. A change of precision, of layers or by training changes it."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // SEEN)][:SEEN].cpu()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        found.update(some.contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()

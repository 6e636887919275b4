"""A recipe: every part that makes a generator for one kind of data, resolved and frozen.

A recipe holds no weights and no data. It is what ``run.json`` stores, so that a run needs nothing else to sample.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, final

import torch
from torch import Tensor, nn

from ..core import Guidance, InputError, Objective, Order, Rng, Solver
from ..data import Dataset
from ..dynamics import Noise
from ..evaluation import Findings
from ..metrics import energy_distance
from ..nn import seeded
from ..solvers.grids import Grid
from ..training import Training


@final
@dataclass(frozen=True)
class Build:
    """A network yet to be built: its class and the arguments.

    Args:
        network: the class.
        options: its arguments by name: numbers, text, tuples.

    Raises:
        InputError: if it is no class of a network.
    """

    network: type[nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (isinstance(self.network, type) and issubclass(self.network, nn.Module)):
            raise InputError(f"a network is named by its class, a torch.nn.Module, got {self.network!r}.")

    def __call__(self, rng: Rng | int) -> nn.Module:
        """The network, with initial weights that are a function of ``rng`` alone."""
        with seeded(rng):
            return self.network(**self.options)


@final
@dataclass(frozen=True)
class DataRef:
    """Where the training data came from. Sampling never opens it.

    Args:
        path: file or folder; ``None`` for data that come with a dependency.
        fingerprint: what tells these data from others.
        count: the number of data that are trained on.
    """

    path: str | None
    fingerprint: str
    count: int


@final
@dataclass(frozen=True)
class RunRef:
    """The run that another learns from. Sampling never opens it.

    Args:
        path: its folder.
        fingerprint: of its averaged weights.
        guidance: under which it teaches, in times of the student's path; none when ``None``. Of a range of scales the
            middle one, under which it is shown.
    """

    path: str
    fingerprint: str
    guidance: Guidance | None = None


@final
@dataclass(frozen=True)
class Splits:
    """Data to train on and data held out for measuring.

    Args:
        training: the data to train on.
        held_out: the others.
        fingerprint: of both together; :attr:`DataRef.fingerprint` while they are unchanged.
        report: what a reader should know of them, such as the names of files that were left out; often nothing.
    """

    training: Dataset
    held_out: Dataset
    fingerprint: str
    report: str = ""


class Generate(Protocol):
    """A trained generator, for measuring: sample i comes from noise i, whatever the budget."""

    @property
    def evaluations(self) -> int:
        """Network evaluations a sample when nothing else is asked."""
        ...

    def __call__(self, labels: Tensor | None, count: int, evaluations: int) -> Tensor:
        """``count`` states with these labels (count,), in at most so many network evaluations."""
        ...

    def curve(self, labels: Tensor | None, count: int, budgets: Iterable[int]) -> tuple[dict[int, Tensor], int]:
        """States from the same noise for several budgets, by the evaluations that they took, and which of these
        numbers is that of the generator's own budget."""
        ...

    def log_prob(self, states: Tensor, labels: Tensor | None, rng: Rng) -> Tensor:
        """The model's log-density (B,) of states with these labels, in nats; ``rng`` draws what estimating it
        needs."""
        ...


JUDGED = 8_000
"""Held-out data that samples are compared with, at most; half of them tell the floor."""


class Judge(NamedTuple):
    """One figure by which samplers of one kind of data are compared, the lower the better.

    Args:
        name: of the figure.
        distance: of states (N, ...) from the data.
        floor: the figure of real data that were held out.
    """

    name: str
    distance: Callable[[Tensor], float]
    floor: float


@dataclass(frozen=True)
class Kind(ABC):
    """One kind of data: the resolved facts, and the few functions that only this kind needs."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one state."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels; empty when nothing conditions a sample."""
        return ()

    @property
    @abstractmethod
    def endings(self) -> tuple[str, ...]:
        """Endings of the files that :meth:`write` can write, the usual one first; "" stands for a folder."""

    @abstractmethod
    def open(self, path: str | None) -> Splits:
        """The data, as they were when the recipe was resolved."""

    @abstractmethod
    def read(self, values: Tensor, rng: Rng) -> Tensor:
        """Raw values of a dataset as states; augmentation is a function of ``rng``."""

    @abstractmethod
    def write(self, states: Tensor, labels: Tensor | None, file: Path) -> None:
        """Write states by the ending of ``file``."""

    @abstractmethod
    def measure(
        self, generate: Generate, splits: Splits, count: int, folder: Path, weights: Path | None = None
    ) -> Findings:
        """Figures of merit.

        Args:
            generate: gives the samples.
            splits: the data.
            count: samples to draw.
            folder: keeps what measuring had to learn, such as a classifier.
            weights: a file of weights for a feature extractor of the user's.
        """

    def judge(self, splits: Splits, folder: Path) -> Judge:
        """The figure by which samplers are compared: the energy distance of states to held-out data, unless a kind
        knows a better one. ``folder`` keeps what judging had to learn."""
        index = torch.arange(min(JUDGED, len(splits.held_out)))
        values, _ = splits.held_out.take(index)
        real = self.read(values, Rng(0).rows(index)).flatten(1)
        one, other = real[::2], real[1::2]
        floor = energy_distance(one, other)
        return Judge("energy distance", lambda states: energy_distance(one, states.flatten(1)), floor)


@final
@dataclass(frozen=True)
class Recipe:
    """Everything that a run is made from.

    Args:
        name: what the command line calls it.
        kind: the kind of data.
        data: where the data came from.
        network: what learns.
        objective: what it learns.
        order: which datum stands in which row of which batch.
        solver: what samples.
        grid: where the solver steps.
        evaluations: network evaluations a sample.
        guidance: how a condition is stressed; not at all when ``None``.
        training: how long and how fast.
        source: where the data at t = 0 came from, when a flow goes from data to data; noise stands there otherwise.
        noise: how noise is added on the way of a sample; not at all when ``None``.
        teacher: the run that is distilled; none when ``None``.

    Raises:
        InputError: if a part is not what its field says.
    """

    name: str
    kind: Kind
    data: DataRef
    network: Build
    objective: Objective[Tensor]
    order: Order
    solver: Solver
    grid: Grid
    evaluations: int
    guidance: Guidance | None
    training: Training
    source: DataRef | None = None
    noise: Noise | None = None
    teacher: RunRef | None = None

    def __post_init__(self) -> None:
        for name, sort in _SORTS.items():
            value = getattr(self, name)
            if not isinstance(value, sort):
                raise InputError(f"the {name} of a recipe must be a {sort.__name__}, got {value!r}.")
        if not hasattr(self.objective, "dynamics"):
            raise InputError(f"the objective of a recipe must be an Objective, got {self.objective!r}.")
        for name in ("objective", "order", "guidance", "noise"):
            value = getattr(self, name)
            if not callable(value) and (value is not None or name in ("objective", "order")):
                raise InputError(f"the {name} of a recipe must be callable, got {value!r}.")
        if isinstance(self.evaluations, bool) or self.evaluations < 1:
            raise InputError(f"a sample takes at least 1 evaluation, got evaluations = {self.evaluations!r}.")


_SORTS = {
    "name": str,
    "kind": Kind,
    "data": DataRef,
    "network": Build,
    "solver": Solver,
    "grid": Grid,
    "evaluations": int,
    "training": Training,
}

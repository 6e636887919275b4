"""The nouns of rheos as protocols, and the small values that pass between them.

The idea behind all of it: *evaluating is not moving*. ``rate`` is one evaluation of a network; ``move`` carries the
state along a rate that is held. A solver combines rates and asks for moves, so that no solver is written twice:
Euler on a flow is Euler, on a diffusion Euler-Maruyama, on a jump process tau-leaping.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, Self, TypeGuard, TypeVar

from torch import Tensor, nn

from .condition import Cond
from .rng import Rng

S = TypeVar("S")
"""A state: a tensor (B, ...), a Ragged, or a tuple of states."""

Quantity = Literal["velocity", "data", "noise", "score", "v"]
"""What a network predicts; any one follows from any other and (x, t)."""

Memory = Any
"""What a solver remembers between steps: a tree of tensors of fixed shapes."""

Model = Callable[..., Any]
"""A network, or a network under guidance: ``model(x, t, cond)``, or ``model(x, t)`` when nothing conditions it. That of
a flow map is also told where a step ends, ``model(x, t, cond, s=s)``; without, it is asked for the velocity. One with
guidance built in is told its scale, ``model(x, t, cond, scale=w)``; without, it is not guided."""


def over(model: Model, wrap: Callable[[Model], Model]) -> Model:
    """Wrap the networks inside a model: itself when it is a network. A model that is made of models has a method
    ``over(wrap)``, which gives the same model with ``wrap`` around each network inside."""
    inside = getattr(model, "over", None)
    return wrap(model) if inside is None else inside(wrap)


class Dynamics(Protocol[S]):
    """What was learned, ready to be integrated."""

    def over(self, wrap: Callable[[Model], Model]) -> Self:
        """The same dynamics with ``wrap`` around its model: a condition, guidance, a counter."""
        ...

    def rate(self, x: S, t: Tensor, s: Tensor | None = None) -> Any:
        """One evaluation of the model at (x, t), for a step that ends at ``s``."""
        ...

    def move(self, x: S, rate: Any, t: Tensor, s: Tensor, rng: Rng | None = None) -> S:
        """Carry ``x`` from ``t`` to ``s`` along a rate that is held."""
        ...

    def determined(self, t: Tensor) -> Tensor | None:
        """Where the rate at ``t`` is determined, of the shape of ``t``; ``None`` when it is everywhere."""
        ...


class Step(NamedTuple, Generic[S]):
    """A state, the time it stands at, the solver's memory, and an error estimate a sample where there is one."""

    x: S
    t: Tensor
    memory: Memory = ()
    error: Tensor | None = None


class Solver(ABC, Generic[S]):
    """A rule that carries a state over one step. A frozen dataclass: what changes from step to step is its memory.

    Attributes:
        order: the power of the step by which the error falls.
        adaptive: whether a step may stop short of its end, so that the loop asks for another.
    """

    order: int = 1
    adaptive: bool = False

    def start(self, dynamics: Dynamics[S], x: S, grid: Tensor) -> Memory:
        """The memory before the first step of ``grid``."""
        return ()

    @abstractmethod
    def step(
        self, dynamics: Dynamics[S], x: S, t: Tensor, s: Tensor, memory: Memory = (), rng: Rng | None = None
    ) -> Step[S]:
        """Carry ``x`` from ``t`` to ``s``. An adaptive solver may stop short; the returned time says how far it
        came."""


class PathSample(NamedTuple, Generic[S]):
    """A point of a conditional path: the state, its time, and the conditional velocity there."""

    x: S
    t: Tensor
    target: Any


class Path(Protocol[S]):
    """How noise becomes data when both ends are known."""

    def sample(self, x0: S, x1: S, t: Tensor, rng: Rng | None = None) -> PathSample[S]: ...


class Pairs(NamedTuple, Generic[S]):
    """Noise and data joined row by row: ``x0 = noise[i]``, ``x1 = data[j]``. ``i`` and ``j`` are int64 ``(B,)``;
    ``gap`` is an upper bound of ``(cost - optimum)/cost``, or ``None`` where none is known."""

    x0: S
    x1: S
    i: Tensor
    j: Tensor
    gap: float | None = None


class Coupling(Protocol[S]):
    """Which noise goes with which data. ``independent`` is False once they depend on one another: then there is no
    score. Every row of the noise is used once, so that what stands at t = 0 keeps its law."""

    independent: ClassVar[bool]

    def __call__(self, x0: S, x1: S, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[S]: ...


class DatasetCoupling(Coupling[S], Protocol[S]):
    """A coupling that is fitted to a whole dataset once. From then on each noise finds its datum by itself: ``x1`` of a
    call is that dataset, (N, ...), and ``cond`` has a row a noise."""

    @property
    def fitted(self) -> bool | None:
        """Whether :meth:`fit` or :meth:`restored` made it; ``None`` for a wrapper around a coupling that is not fitted
        to a dataset."""
        ...

    def fit(self, data: S, cond: Cond | None, rng: Rng) -> Self:
        """The same coupling fitted to data (N, ...) with their conditions, on the device of the data."""
        ...

    def assign(self, x0: S, cond: Cond | None = None) -> Tensor:
        """The datum of each noise (B, ...), int64 (B,); ``cond`` is what each noise is to be joined within."""
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """What fitting found, without the data."""
        ...

    def restored(self, data: S, cond: Cond | None, tensors: Mapping[str, Tensor]) -> Self:
        """The coupling that :meth:`tensors` described, of the same data."""
        ...


def fits(coupling: Coupling[S]) -> TypeGuard[DatasetCoupling[S]]:
    """Whether a coupling is one that is fitted to a whole dataset."""
    return getattr(coupling, "fitted", None) is not None


class Source(Protocol[S]):
    """What stands at t = 0. Shaped like ``like``, one row a key of ``rng``."""

    def __call__(self, rng: Rng, like: S) -> S: ...


@dataclass(frozen=True)
class Draw:
    """Which datum and which noise key stand in each row of a batch: 16 bytes a row. Both int64 ``(B,)``."""

    index: Tensor
    key: Tensor


class Order(ABC):
    """A function from global rows (``step * global_batch + place``) to draws; computed anywhere, resumable from the
    step.

    Attributes:
        joined: whether the noise of each key belongs to its datum, so that no coupling is to join them again.
    """

    joined: bool = False

    @abstractmethod
    def __call__(self, seed: int, rows: Tensor) -> Draw:
        """The draws of global rows, int64 ``(B,)``."""


@dataclass(frozen=True)
class Loss:
    """The loss of every row ``(B,)``, and its named parts, each ``(B,)``."""

    rows: Tensor
    parts: Mapping[str, Tensor] = field(default_factory=dict)


class Objective(Protocol[S]):
    """Turns a path, a coupling and a model into a loss."""

    @property
    def coupling(self) -> Coupling[S]:
        """Which noise goes with which data. A trainer may join them ahead of time and give the joined noise."""
        ...

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        """Parts that train beside the network."""
        ...

    def __call__(
        self,
        model: Model,
        x1: S,
        cond: Cond | None = None,
        rng: Rng | None = None,
        *,
        x0: S | None = None,
        t: Tensor | None = None,
        state: Any = None,
    ) -> Loss:
        """The loss of every row. ``state`` is the average of the network over training, where a trainer keeps one."""
        ...

    def draw(self, rng: Rng, like: S) -> tuple[S, Tensor]:
        """The noise and the times of these rows; the trainer draws them for many steps at once."""
        ...

    def prior(self, rng: Rng, like: S) -> S:
        """The states that sampling starts from, for the rows of ``rng``."""
        ...

    def dynamics(self, network: Model) -> Dynamics[S]:
        """What to integrate, given what was trained."""
        ...


class Guidance(Protocol):
    """A model in, a model out; so guidance composes."""

    def __call__(self, model: Model) -> Model: ...

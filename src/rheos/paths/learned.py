r"""A path that bends, and learns how.

    x = alpha(t)*x1 + sigma(t)*x0 + t*(1 - t)*phi(x0, x1, t)

with a network phi (Albergo and Vanden-Eijnden 2023, section 2; Kapusniak et al. 2024). The ends are those of the
schedule whatever phi gives. The conditional velocity is the derivative along t, by forward-mode differentiation of phi.
What phi is trained for is the objective's affair: see :mod:`rheos.objectives.learned`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core.errors import InputError, ShapeError
from ..core.protocols import PathSample
from ..core.rng import Rng, Stream
from ..core.time import expand
from ..schedules import Linear, Schedule
from ..schedules.learned import Learned, bernstein
from .affine import Affine


@final
class Correction(nn.Module):
    """The default phi, for states that are vectors or small enough to be flattened into one:

        phi = sum_k b_k(t)*(M_k [x0, x1] + m_k) + perceptron([x0, x1], t),

    with Bernstein's polynomials b_k. The first part is a schedule of matrices in place of numbers: it removes what
    curvature comes from directions of different variance, which on images is most of it. The perceptron bends each pair
    in a way of its own, which curved data ask for; it is harder to follow for the network that trains beside it. Both
    begin at zero.

    Args:
        shape: the shape of one state, or its dimension d.
        degree: of the polynomials of t; there are ``2*d*d*(degree + 1)`` numbers in the matrices.
        width: features of the perceptron; 0 for none.
        depth: its hidden layers.
    """

    def __init__(self, shape: int | Sequence[int], degree: int = 3, width: int = 0, depth: int = 2) -> None:
        super().__init__()
        self.shape = (shape,) if isinstance(shape, int) else tuple(shape)
        if not self.shape or min(self.shape) < 1 or degree < 0 or width < 0 or depth < 1:
            raise InputError(
                "a correction needs a state of at least one number, degree >= 0, width >= 0 and depth >= 1; got "
                f"shape={self.shape}, degree={degree}, width={width}, depth={depth}."
            )
        self.degree, self.width = degree, width
        size = math.prod(self.shape)
        self.matrices = _silent(nn.Linear(2 * size, (degree + 1) * size))
        if width:
            self.enter = nn.Linear(2 * size, width)
            self.time = nn.Linear(degree + 1, width, bias=False)
            self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
            self.leave = _silent(nn.Linear(width, size))

    def forward(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        """The correction, like ``x1`` (B, ...), at times () or (B,).

        Raises:
            ShapeError: if the states or the times do not fit.
        """
        if x1.shape[1:] != self.shape or t.dim() > 1:
            raise ShapeError(
                f"this correction takes states {('B', *self.shape)} and times () or (B,), got {tuple(x1.shape)} and "
                f"{tuple(t.shape)}."
            )
        ends = torch.cat([x0.flatten(1), x1.flatten(1)], 1)
        basis = bernstein(self.degree, t.expand(len(x1))).to(ends.dtype)
        out = (self.matrices(ends).unflatten(1, (self.degree + 1, -1)) * basis[:, :, None]).sum(1)
        if self.width:
            h = self.enter(ends) + self.time(basis)
            for layer in self.layers:
                h = h + layer(functional.silu(h))
            out = out + self.leave(functional.silu(h))
        return out.reshape(x1.shape)


@final
@dataclass(frozen=True)
class LearnedInterpolant:
    """The path ``alpha*x1 + sigma*x0 + t*(1 - t)*phi(x0, x1, t)``. It is no affine path: no quantity but the velocity
    follows from another, and there is no score.

    Args:
        network: the class of phi, ``phi(x0, x1, t)``, like x1: :class:`Correction`, or one that forward mode
            differentiates in t.
        options: its arguments by name: numbers, text, tuples.
        schedule: the curve (alpha, sigma); it may be a :class:`~rheos.schedules.learned.Learned` one.
        seed: the first weights of phi are a function of it alone.

    Attributes:
        phi: the network.

    Raises:
        InputError: if the network is no class of one.
    """

    network: type[nn.Module]
    options: Mapping[str, Any] = field(default_factory=dict)
    schedule: Schedule = Linear()
    seed: int = 0
    phi: nn.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not (isinstance(self.network, type) and issubclass(self.network, nn.Module)):
            raise InputError(f"phi is named by its class, a torch.nn.Module, got {self.network!r}.")
        # PyTorch's layers draw their first weights from the global generator, which is given back as it was.
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(int(Rng(self.seed).fold(Stream.WEIGHTS).key))
            object.__setattr__(self, "phi", self.network(**self.options))

    @property
    def learned(self) -> Mapping[str, nn.Module]:
        """The parts that are trained."""
        return {"phi": self.phi, **learned_parts(self.schedule)}

    def sample(self, x0: Tensor, x1: Tensor, t: Tensor, rng: Rng | None = None) -> PathSample[Tensor]:
        """The point at time ``t`` between noise ``x0`` and data ``x1``, with its conditional velocity as the target.

        Args:
            x0: noise (B, ...).
            x1: data, of the same shape.
            t: times, of a shape that is a prefix of the state's, and that phi takes.
            rng: unused; a learned path is deterministic once its ends are known.
        """
        straight = Affine(self.schedule).sample(x0, x1, t)
        # Compiled, PyTorch 2.13 writes into tangents that are zero, and fails. A decorator would load the compiler with
        # the package.
        along: Any = torch.compiler.disable(_along) if torch.compiler.is_compiling() else _along
        phi, slope = along(self.phi, x0, x1, t)
        if phi.shape != x1.shape:
            raise ShapeError(f"phi must return the state's shape {tuple(x1.shape)}, got {tuple(phi.shape)}.")
        clock = expand(t, x1)
        gate, turn = (clock * (1 - clock)).to(x1.dtype), (1 - 2 * clock).to(x1.dtype)
        return PathSample(straight.x + gate * phi, t, straight.target + turn * phi + gate * slope)

    def prior(self, x0: Tensor) -> Tensor:
        """Where sampling starts: the noise at its weight at t = 0, ``sigma(0)*x0``."""
        return Affine(self.schedule).prior(x0)


def learned_parts(schedule: Schedule) -> dict[str, nn.Module]:
    """The part of a schedule that is trained; empty for one that is not learned."""
    return {"schedule": schedule.increments} if isinstance(schedule, Learned) else {}


def _along(phi: nn.Module, x0: Tensor, x1: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """phi and its derivative in t; in full precision under autocast, for in bfloat16 the target would be no derivative
    of the point."""
    with torch.autocast(x1.device.type, enabled=False):
        both = torch.func.jvp(lambda time: phi(x0, x1, time), (t.clone(),), (torch.ones_like(t),))
    return both[0], both[1]


def _silent(layer: nn.Linear) -> nn.Linear:
    """The layer with all weights zero, so that a path begins straight."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer

"""How noise is added on the way of a sample: values that a recipe can hold, each making a dynamics of a flow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from ..core.errors import InputError
from ..core.protocols import Dynamics
from ..schedules import Schedule
from .ancestral import Ancestral
from .diffusion import Convertible, Diffusion
from .flow import Flow


class Noise(Protocol):
    """A dynamics with the marginals of a flow that was learned on ``path``."""

    def __call__(self, flow: Flow, path: Convertible) -> Dynamics[Tensor]: ...


@final
@dataclass(frozen=True)
class AncestralNoise:
    """The steps of :class:`~rheos.dynamics.Ancestral`.

    Args:
        eta: 1 for DDPM, 0 for DDIM.
        wide: the larger of DDPM's two variances.
    """

    eta: float = 1.0
    wide: bool = False

    def __post_init__(self) -> None:
        _require_share(self.eta, most=1.0)

    def __call__(self, flow: Flow, path: Convertible) -> Ancestral:
        return Ancestral(flow, path, self.eta, self.wide)


@final
@dataclass(frozen=True)
class DiffusionNoise:
    """A :class:`~rheos.dynamics.Diffusion` with ``g**2 = 2*eta*D*sigma``, D the speed of the schedule: on straight
    lines ``2*eta*sigma``. The drift is finite at both ends.

    Args:
        eta: 1 adds as much noise as the flow takes away.
    """

    eta: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.eta, most=float("inf"))

    def __call__(self, flow: Flow, path: Convertible) -> Diffusion:
        return Diffusion(flow, path, _Coefficient(path.schedule, self.eta))


@final
@dataclass(frozen=True)
class _Coefficient:
    schedule: Schedule
    eta: float

    def __call__(self, t: Tensor) -> Tensor:
        flux = torch.as_tensor(self.schedule.frame(t).flux, dtype=t.dtype, device=t.device)
        return (2 * self.eta * flux).sqrt().expand_as(t)


def _require_share(eta: float, most: float) -> None:
    if not 0 <= eta <= most or eta == float("inf"):
        raise InputError(f"the share eta of the noise is 0 or more{', and at most 1' if most == 1 else ''}, got {eta}.")

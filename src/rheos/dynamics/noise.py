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
from .flow_map import FlowMap
from .restarted import Restarted


class Noise(Protocol):
    """A dynamics with the marginals of a flow, or of the flow of a map, that was learned on ``path``."""

    def __call__(self, flow: Flow | FlowMap, path: Convertible) -> Dynamics[Tensor]: ...


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

    def __call__(self, flow: Flow | FlowMap, path: Convertible) -> Ancestral:
        return Ancestral(_velocity(flow), path, self.eta, self.wide)


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

    def __call__(self, flow: Flow | FlowMap, path: Convertible) -> Diffusion:
        return Diffusion(_velocity(flow), path, _Coefficient(path.schedule, self.eta))


@final
@dataclass(frozen=True)
class RestartNoise:
    """The steps of :class:`~rheos.dynamics.Restarted`, of a flow map only.

    Args:
        share: of the noise at the end of a step that is fresh.
    """

    share: float = 1.0

    def __post_init__(self) -> None:
        _require_share(self.share, most=1.0)

    def __call__(self, flow: Flow | FlowMap, path: Convertible) -> Restarted:
        """The restarted map.

        Raises:
            InputError: if it is no map.
        """
        if isinstance(flow, Flow):
            raise InputError(
                "restarts go beyond the end of a step and back, which takes a flow map, got a Flow; add the noise of "
                "DiffusionNoise() or AncestralNoise(), or make a map of the run by `rheos distill`."
            )
        return Restarted(flow, path, self.share)


def _velocity(flow: Flow | FlowMap) -> Flow:
    return flow if isinstance(flow, Flow) else flow.flow


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

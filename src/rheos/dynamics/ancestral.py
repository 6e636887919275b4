r"""A flow that moves as the samplers of diffusion models do: exactly for a data prediction that is held, with noise.

Between two times, with the data x1 known, the noising process of an affine path has ``x_t = r*x_s + kappa*z`` for t
before s, where ``r = alpha_t/alpha_s`` and ``kappa**2 = sigma_t**2 - r**2*sigma_s**2``. Its reversal, given x1, is

    x_s = alpha_s*x1 + sqrt(sigma_s**2 - c**2)*x0 + c*z,    x0 = (x_t - alpha_t*x1)/sigma_t,

with ``c = eta*sigma_s*kappa/sigma_t`` and eta = 1; every eta up to 1 has the same marginals (Song, Meng and Ermon 2021,
DDIM). eta = 0 is the flow itself. Euler's rule here is DDIM, and for eta = 1 the ancestral sampling of DDPM (Ho, Jain
and Abbeel 2020); a rule of higher order combines data predictions of several times.

The rate is the data prediction. It is not determined where the velocity is not, where the velocity does not depend on
the data, and at sigma = 0, where the noise would be lost.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from ..core.errors import InputError, UndeterminedError
from ..core.protocols import Model
from ..core.rng import Rng
from ..core.time import factor, ratio
from .diffusion import Convertible
from .flow import Flow


@final
@dataclass(frozen=True)
class Ancestral:
    """The steps of DDIM and DDPM on a flow.

    Towards noise no noise is drawn: that is DDIM's inversion, for any eta.

    Args:
        flow: the flow whose marginals are kept.
        path: the affine path it was learned on.
        eta: the share of the noise of DDPM's steps; 0 is deterministic.
        wide: draw DDPM's noise as if the data were normal of unit variance (Ho et al.'s ``beta``, their larger choice),
            and not as if they were known. A step to sigma = 0 draws none.

    Raises:
        InputError: if eta is not between 0 and 1.
        UndeterminedError: when noise is drawn and the flow's own was coupled to the data.
    """

    flow: Flow
    path: Convertible
    eta: float = 1.0
    wide: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise InputError(f"eta is between 0 (no noise) and 1 (that of DDPM), got {self.eta}.")
        if self.eta and not self.flow.independent:
            raise UndeterminedError(
                "noise keeps the marginals only where it was Gaussian and independent of the data; this flow was "
                "trained on coupled pairs. Take eta = 0, or train with couplings.Independent()."
            )

    def over(self, wrap: Callable[[Model], Model]) -> Ancestral:
        """The same dynamics with ``wrap`` around its velocity."""
        return replace(self, flow=self.flow.over(wrap))

    def rate(self, x: Tensor, t: Tensor, s: Tensor | None = None) -> Tensor:
        """The data prediction at (x, t): one evaluation."""
        return self.path.convert(self.flow.rate(x, t, s), x, t, given="velocity", want="data")

    def move(self, x: Tensor, rate: Tensor, t: Tensor, s: Tensor, rng: Rng | None = None) -> Tensor:
        """The state at ``s`` for a data prediction that is held, and noise with a key a row."""
        (a, b), (alpha, sigma) = self.path.schedule(t), self.path.schedule(s)
        kappa = (b.square() - (ratio(a, alpha) * sigma).square()).clamp(min=0.0).sqrt()
        kappa = torch.where(alpha * b > a * sigma, kappa, 0.0)
        spread = self.eta * sigma * ratio(kappa, b)
        kept = ratio((sigma.square() - spread.square()).clamp(min=0.0).sqrt(), b)
        moved = factor(alpha - kept * a, x) * rate + factor(kept, x) * x
        if not self.eta:
            return moved
        if rng is None:
            raise InputError(
                "ancestral steps draw noise: give integrate an rng (an Rng, a torch.Generator or a seed), or take "
                "eta = 0."
            )
        if self.wide:
            wide = self.eta * kappa * ((alpha.square() + sigma.square()) / (a.square() + b.square())).sqrt()
            spread = torch.where(sigma == 0, 0.0, wide)
        noise = rng.per_row(x.shape[0], x.device).normal(*x.shape[1:], dtype=x.dtype)
        return moved + factor(spread, x) * noise

    def determined(self, t: Tensor) -> Tensor:
        """Where the velocity determines the data, and the state the noise; of the shape of ``t``."""
        frame = self.path.schedule.frame(t)
        told = (frame.sigma != 0) & (torch.as_tensor(frame.speed, device=t.device) != 0)
        flow = self.flow.determined(t)
        return told if flow is None else told & flow

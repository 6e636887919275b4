r"""Reflow: matching between a noise and the datum that a flow leads it to.

Where two conditional paths cross, the marginal flow turns aside; where noise and data were joined by a flow, which
crosses nowhere, the straight paths between them cross less. So matching once more on such pairs gives a straighter
flow, never of more transport cost, with the same ends (Liu, Gong and Liu 2023, "Flow straight and fast"). Pairs that
start from noise teach what the flow makes, and pairs that start from data, carried back, keep it near the data (Kim et
al. 2025). The map of the straighter flow is matched on its pairs likewise, in one step or a few.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core.condition import Cond
from ..core.errors import InputError, ShapeError
from ..core.protocols import Loss, Model, Source
from ..core.rng import Rng, Stream
from ..couplings import Independent
from ..dynamics import Flow, FlowMap
from ..paths import Affine
from .flow_map import FlowMapMatching
from .matching import Matching


@final
@dataclass(frozen=True)
class Rectified:
    """An objective on pairs. A datum is a pair (2, ...), noise first, and the network's state has the shape of one of
    them.

    Args:
        inner: what is asked of the network between the two; its coupling has nothing to join, and its source is what
            sampling starts from.
    """

    inner: Matching | FlowMapMatching = Matching()
    learned: Mapping[str, nn.Module] = field(default_factory=dict)

    @property
    def path(self) -> Affine:
        """The path between the two."""
        return self.inner.path

    @property
    def source(self) -> Source[Tensor]:
        """What stands at t = 0."""
        return self.inner.source

    @property
    def coupling(self) -> Independent:
        """There is no noise to join with the data: it is a part of each datum."""
        return Independent()

    def __call__(
        self,
        model: Model,
        x1: Tensor,
        cond: Cond | None = None,
        rng: Rng | torch.Generator | int | None = None,
        *,
        x0: Tensor | None = None,
        t: Tensor | None = None,
        state: Any = None,
    ) -> Loss:
        """The loss of every row.

        Args:
            model: the network, ``model(x, t, cond)`` at states (B, ...).
            x1: pairs (B, 2, ...).
            cond: the condition of each row.
            rng: draws what the inner objective does, a key a row.
            x0: unused; the noise is ``x1[:, 0]``.
            t: times (B,).
            state: for the inner objective.
        """
        if x1.dim() < 2 or x1.shape[1] != 2:
            raise ShapeError(f"a datum is a pair, noise and data (B, 2, ...), got {tuple(x1.shape)}.")
        if t is None:
            if rng is None:
                raise InputError("give an rng (an Rng, a torch.Generator or a seed) to draw the times with.")
            t = self.inner.times(Rng.of(rng).per_row(len(x1), x1.device).fold(Stream.TIME))
        return self.inner(model, x1[:, 1], cond, rng, x0=x1[:, 0], t=t, state=state)

    def draw(self, rng: Rng, like: Tensor) -> tuple[Tensor, Tensor]:
        """No noise, which is written as zeros like ``like``, and times, for the rows of ``rng``."""
        return like.new_zeros(()).expand(like.shape), self.inner.times(rng.fold(Stream.TIME))

    def prior(self, rng: Rng, like: Tensor) -> Tensor:
        """The states that sampling starts from, for the rows of ``rng``."""
        return self.inner.prior(rng, like)

    def dynamics(self, network: Model) -> Flow | FlowMap:
        """The straighter flow, or its map. Noise and data are joined, so that it determines no score."""
        return replace(self.inner.dynamics(network), independent=False)

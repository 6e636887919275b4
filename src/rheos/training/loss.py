"""The loss module: network and objective together, the one thing that is compiled and distributed."""

from __future__ import annotations

from typing import Any, final

from torch import Tensor, nn

from ..core import Cond, Objective, Rng


@final
class LossModule(nn.Module):
    """Gives the mean loss of a part of a batch. Its parameters are ``network.*`` and ``learned.NAME.*``.

    Args:
        network: the network.
        objective: turns it into a loss.
    """

    def __init__(self, network: nn.Module, objective: Objective[Any]) -> None:
        super().__init__()
        self.network = network
        self.learned = nn.ModuleDict(dict(objective.learned))
        # In tuples, neither an objective that is itself a module nor the average is registered as a part.
        self._objective = (objective,)
        self._average: tuple[nn.Module, ...] = ()

    def beside(self, average: nn.Module) -> None:
        """Let the objective ask the network's average, too."""
        self._average = (average,)

    def forward(
        self, x1: Any, cond: Cond | None, keys: Tensor, rows: Tensor, x0: Any, t: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss ``()``, and the objective's named parts, each ``(B,)``."""
        average = self._average[0] if self._average else None
        loss = self._objective[0](self.network, x1, cond, Rng(keys, rows), x0=x0, t=t, state=average)
        return loss.rows.mean(), dict(loss.parts)


def trained(module: LossModule) -> nn.ModuleDict:
    """What has weights, without the objective around it: ``network`` and ``learned``, of the same parameter names."""
    return nn.ModuleDict({"network": module.network, "learned": module.learned})

"""AdamW (Loshchilov and Hutter 2019) in one fused pass, its rate a pure function of the step.

The gradient is clipped inside the same pass: the fused kernel divides by a scale as it reads, so that
``max(1, norm / clip)`` given as that scale saves a pass over all gradients. Measured on CPUs, fused against for-each:
five times faster on an MLP of 0.6 M weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ..core import CheckpointError
from .settings import Training


def learning_rate(settings: Training, step: int) -> float:
    """The rate of step ``step``, counted from 0.

    ``rate * min(1, (step + 1)/w)`` over ``w = warmup * steps`` steps, then ``rate * (1 + cos(pi * u))/2``, u the
    share of the remaining steps that is behind.
    """
    rise = round(settings.warmup * settings.steps)
    if step < rise:
        return settings.learning_rate * (step + 1) / rise
    if settings.decay == "constant":
        return settings.learning_rate
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / (settings.steps - rise)))


@final
class Optimizer:
    """AdamW over the parameters of a module.

    Args:
        module: what is trained; parameters that need no gradient are left alone.
        settings: rates, decays and the clip.
    """

    def __init__(self, module: nn.Module, settings: Training) -> None:
        self._settings = settings
        self._named = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._parameters = list(self._named.values())
        matrices = [p for p in self._parameters if p.dim() > 1]
        vectors = [p for p in self._parameters if p.dim() <= 1]
        groups = [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # One group where nothing is decayed: each group is a pass of its own.
        if not settings.weight_decay:
            groups = [{"params": self._parameters, "weight_decay": 0.0}]
        self._adam = torch.optim.AdamW([g for g in groups if g["params"]], betas=settings.betas, fused=True)

    def norm(self) -> Tensor:
        """The norm of the whole gradient, ``()``."""
        return get_total_norm([p.grad for p in self._parameters if p.grad is not None], foreach=True)

    def step(self, step: int, scale: float, norm: Tensor, skip: Tensor | None = None) -> float:
        """Move the parameters along their gradients, which stay until :meth:`forget`.

        Args:
            step: the step's number, from 0.
            scale: a factor on the learning rate.
            norm: the gradient's norm, from :meth:`norm`.
            skip: 1 on the device where nothing may move; no host waits for it.

        Returns:
            the rate used.
        """
        rate = scale * learning_rate(self._settings, step)
        for group in self._adam.param_groups:
            group["lr"] = rate
        # The two attributes by which torch.amp.GradScaler hands these tensors to a fused optimiser.
        adam: Any = self._adam
        adam.grad_scale = (norm / self._settings.clip).clamp_(min=1.0) if math.isfinite(self._settings.clip) else None
        adam.found_inf = skip
        self._adam.step()
        return rate

    def forget(self) -> None:
        """Drop the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def tensors(self) -> dict[str, Tensor]:
        """The moments and the count of steps of every parameter, as ``moment/parameter``."""
        return {
            f"{moment}/{name}": value
            for name, parameter in self._named.items()
            for moment, value in self._adam.state.get(parameter, {}).items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what :meth:`tensors` gave; an empty mapping is the state before the first step.

        Raises:
            CheckpointError: if a tensor belongs to no parameter, or to one of another shape.
        """
        self._adam.state.clear()
        for key, value in tensors.items():
            moment, _, name = key.partition("/")
            parameter = self._named.get(name)
            if parameter is None or (moment != "step" and value.shape != parameter.shape):
                raise CheckpointError(
                    f"the optimiser's {key!r} of shape {tuple(value.shape)} belongs to no parameter of this network; "
                    "resume with the network that the run was started with."
                )
            # Adam reads its moments in the memory layout of the parameter.
            like = torch.empty((), device=parameter.device) if moment == "step" else torch.empty_like(parameter)
            self._adam.state[parameter][moment] = like.copy_(value)

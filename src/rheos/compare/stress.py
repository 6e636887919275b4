"""How samples change when the network errs: by noise of a known size at every evaluation, and in bfloat16.

The change is the root mean square of how far each sample moves, over the standard deviation of all samples, from the
same starting noise. An error of the same relative size in what each side predicts is what a smaller number format, or
more compression, would bring.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core import Rng
from ..recipes import Recipe, Sampler

SIZES = (0.01, 0.05)
"""Of the noise, relative to the root mean square of what the network gives."""

EVALUATIONS = 20


class Perturbed(nn.Module):
    """A network with normal noise added to what it gives, anew at every evaluation and for every sample.

    Args:
        network: the network.
        size: of the noise, relative to the root mean square of the output.
        seed: of the noise.
    """

    def __init__(self, network: nn.Module, size: float, seed: int = 0) -> None:
        super().__init__()
        self.network, self.size, self.rng, self.calls = network, size, Rng(seed), 0

    def forward(self, x: Tensor, t: Tensor, *cond: Tensor | None, **end: Tensor) -> Tensor:
        out = self.network(x, t, *cond, **end)
        noise = self.rng.fold(self.calls).rows(torch.arange(len(x), device=x.device)).normal(*out.shape[1:])
        self.calls += 1
        return out + self.size * out.square().mean().sqrt() * noise.to(out.dtype)


def stressed(recipe: Recipe, network: nn.Module, count: int, seed: int) -> dict[str, float | bool]:
    """The change of samples under each error, and whether drawing them twice gives the same bits."""

    def drawn(model: nn.Module) -> Tensor:
        return Sampler(recipe, model, seed, batch=count).draw(count, evaluations=EVALUATIONS).states

    plain = drawn(network)
    scale = float(plain.std())
    found: dict[str, float | bool] = {"same seed, same bits": torch.equal(drawn(network), plain)}

    def moved(states: Tensor) -> float:
        return float((states.float() - plain).square().mean().sqrt()) / scale

    for size in SIZES:
        found[f"noise of {size:.0%}"] = moved(drawn(Perturbed(network, size)))
    device = next(network.parameters()).device.type
    with torch.autocast(device, dtype=torch.bfloat16):
        found["bfloat16"] = moved(drawn(network))
    return found

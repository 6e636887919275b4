"""What few_evaluations.py samples: exact mixtures of Gaussians, and networks that it trains."""

from __future__ import annotations

import copy
import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rheos import nn as networks
from rheos.core import Rng, integrate
from rheos.data import Shuffled, Tensors, digits, eight_gaussians, to_unit
from rheos.data.mixtures import GaussianMixture
from rheos.dynamics import Flow
from rheos.guidance import ClassifierFree
from rheos.metrics import train_classifier
from rheos.objectives import Matching
from rheos.objectives.times import Uniform
from rheos.paths import Affine
from rheos.solvers import Dopri5
from rheos.training import Training, fit

ROWS = 512
"""States that are given to a model at once."""

EXACT = 1e-8
"""The tolerance of references."""


@dataclass(frozen=True)
class Case:
    """Something to sample.

    Args:
        title: for a reader.
        flows: by the scale of their guidance.
        shape: of a sample.
        mode: which mode, or class, samples (B, ...) belong to (B,).
        classes: the number of labels that condition it; 0 for none.
        dtype: in which the model computes.
        count: fresh draws that are judged.
        reference: the flows in float64.
    """

    title: str
    flows: Mapping[float, Flow]
    shape: tuple[int, ...]
    mode: Callable[[Tensor], Tensor]
    classes: int
    dtype: torch.dtype
    count: int
    reference: Mapping[float, Flow]

    def draws(self, seed: int, count: int) -> tuple[Tensor, Tensor | None]:
        """Noise in float64, and labels in turn."""
        rows = torch.arange(count)
        noise = Rng(seed).rows(rows).normal(*self.shape, dtype=torch.float64)
        return noise, rows % self.classes if self.classes else None

    def widened(self, scale: float) -> Flow:
        """The flow of a scale for states in float64."""
        flow, dtype = self.flows[scale], self.dtype
        if dtype == torch.float64:
            return flow
        narrow = flow.velocity

        def velocity(x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
            given = () if cond is None else (cond,)
            return narrow(x.to(dtype), t.to(dtype), *given).double()

        return Flow(velocity)

    def exact(self, scale: float, noise: Tensor, cond: Tensor | None) -> Tensor:
        """Where exact integration leads."""
        grid = torch.tensor([0.0, 1.0], dtype=torch.float64)
        parts = [integrate(Dopri5(EXACT, EXACT), self.reference[scale], x, grid, c).x for x, c in in_parts(noise, cond)]
        return torch.cat(parts)


def in_parts(noise: Tensor, cond: Tensor | None, rows: int = ROWS) -> list[tuple[Tensor, Tensor | None]]:
    """A batch in parts of at most so many rows."""
    conds = [None] * math.ceil(len(noise) / rows) if cond is None else cond.split(rows)
    return list(zip(noise.split(rows), conds, strict=True))


def _mixture(title: str, mix: GaussianMixture, count: int = 4096) -> Case:
    flow = Flow(mix.velocity(Affine()))
    whole = {1.0: flow}

    def mode(x: Tensor) -> Tensor:
        offset = torch.einsum("kij,nki->nkj", mix.axes, x.double()[:, None] - mix.means)
        return (offset.square() / mix.variances + mix.variances.log()).sum(-1).argmin(1)

    return Case(title, whole, (mix.means.shape[1],), mode, 0, torch.float64, count, whole)


def ring(moved: float = 0.0) -> Case:
    """Eight modes; moved by so much of their distance from the middle, each its own way."""
    angle = torch.arange(8, dtype=torch.float64) * math.pi / 4
    means = 3 * torch.stack([angle.cos(), angle.sin()], 1)
    return _mixture("ring of 8 modes, 2-d", _isotropic(_moved(means, moved), 0.3))


def separated(moved: float = 0.0) -> Case:
    means = Rng(1).normal(16, 64, dtype=torch.float64)
    return _mixture("16 modes, 64-d, separated", _isotropic(_moved(means, moved), 0.2))


def overlapping(moved: float = 0.0) -> Case:
    means = 0.35 * Rng(3).normal(16, 64, dtype=torch.float64)
    return _mixture("16 modes, 64-d, overlapping", _isotropic(_moved(means, moved), 0.5))


def _moved(means: Tensor, share: float) -> Tensor:
    way = Rng(9).normal(*means.shape, dtype=torch.float64)
    return means + share * means.norm(dim=1, keepdim=True) * way / way.norm(dim=1, keepdim=True)


def anisotropic() -> Case:
    modes, size = 32, 256
    means = 0.6 * Rng(4).normal(modes, size, dtype=torch.float64)
    axes = torch.linalg.qr(Rng(5).normal(modes, size, size, dtype=torch.float64))[0]
    deviations = torch.logspace(-1.3, 0, size, dtype=torch.float64)
    covariances = torch.einsum("kij,j,klj->kil", axes, deviations.square(), axes)
    return _mixture("32 anisotropic modes, 256-d", GaussianMixture(torch.ones(modes).double(), means, covariances))


def _isotropic(means: Tensor, deviation: float) -> GaussianMixture:
    modes, size = means.shape
    covariance = deviation**2 * torch.eye(size, dtype=torch.float64)
    return GaussianMixture(torch.ones(modes).double(), means, covariance.expand(modes, size, size))


SCALES = (1.0, 4.0, 7.0)
"""Of guidance."""


@dataclass(frozen=True)
class Learned:
    """How a network is trained that is sampled then.

    Args:
        title: for a reader.
        data: states and labels; no labels for a network without.
        build: the network, by the number of labels.
        settings: of training.
        count: fresh draws that are judged.
    """

    title: str
    data: Callable[[], tuple[Tensor, Tensor | None]]
    build: Callable[[int], nn.Module]
    settings: Training
    count: int

    def case(self, folder: Path) -> Case:
        """Train in a folder, or go on there."""
        x, labels = self.data()
        classes = 0 if labels is None else int(labels.max()) + 1
        with networks.seeded(0):
            network = self.build(classes)
        objective = Matching(times=Uniform(stratified=True))
        dataset, order = Tensors(x, labels), Shuffled(len(x))
        network = fit(network, objective, dataset, order, self.settings, seed=0, out=folder).average.eval()
        network.requires_grad_(False)

        def guided(one: nn.Module) -> dict[float, Flow]:
            flow = objective.dynamics(one)
            scales = SCALES if classes else (1.0,)
            return {scale: flow if scale == 1.0 else flow.over(ClassifierFree(scale)) for scale in scales}

        return Case(
            title=self.title,
            flows=guided(network),
            shape=tuple(x.shape[1:]),
            mode=_eighth if labels is None else train_classifier(x, labels, Rng(0)).predict,
            classes=classes,
            dtype=torch.float32,
            count=self.count,
            reference=guided(copy.deepcopy(network).double()),
        )


def _eighth(x: Tensor) -> Tensor:
    """In which eighth of the circle points lie, in which each of eight Gaussians has one to itself."""
    return (torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).round().long() % 8


def _digits() -> tuple[Tensor, Tensor]:
    found = digits()
    values, labels = found.take(torch.arange(len(found)))
    assert labels is not None
    return to_unit(values), labels.long()


def _fashion() -> tuple[Tensor, Tensor]:
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        values, labels = (torch.from_numpy(stored[key]) for key in ("x_train", "y_train"))
    return to_unit(values)[:, None], labels.long()


def _settings(steps: int, batch: int) -> Training:
    return Training(steps=steps, batch=batch, drop=0.1, snapshots=0, sample_every=0, checkpoint_every=500)


def unet(classes: int) -> nn.Module:
    return networks.UNet(1, 16, (1, 2), 1, patch=1, classes=classes)


LEARNED = {
    "plane": Learned(
        "eight Gaussians, MLP",
        lambda: (eight_gaussians(20_000, Rng(1)), None),
        lambda classes: networks.MLP(2, 128, 3),
        _settings(4_000, 512),
        4096,
    ),
    "digits": Learned("digits, UNet", _digits, unet, _settings(1_000, 128), 512),
    "fashion": Learned(
        "Fashion-MNIST, UNet",
        _fashion,
        lambda classes: networks.UNet(1, 16, (1, 2), 1, patch=2, classes=classes),
        _settings(1_000, 128),
        256,
    ),
    "fashion-dit": Learned(
        "Fashion-MNIST, DiT",
        _fashion,
        lambda classes: networks.DiT(1, 28, patch=4, width=96, depth=4, heads=3, classes=classes),
        _settings(1_000, 128),
        256,
    ),
}
"""Networks."""

MIXTURES = {
    "ring": ring,
    "separated": separated,
    "overlapping": overlapping,
    "anisotropic": anisotropic,
}
"""Exact mixtures."""

MOVED = ("ring", "separated", "overlapping")
"""Mixtures whose plans are tried on moved modes besides."""

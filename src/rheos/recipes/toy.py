"""Distributions in the plane, small enough to see: moons, eight Gaussians, a checkerboard, spirals."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch
from matplotlib.figure import Figure as Plot
from torch import Tensor, nn

from ..core import InputError, Rng, Stream, nearest
from ..core.files import write_whole
from ..data import Shuffled, Tensors, checkerboard, eight_gaussians, moons, spirals
from ..evaluation import Findings, measure_points
from ..nn import MLP
from ..objectives import Matching
from ..objectives.times import Uniform
from ..solvers import AdamsBashforth, grids
from ..training import Training
from .recipe import Build, DataRef, Generate, Kind, Recipe, Splits

SHAPES: dict[str, Callable[[int, Rng], Tensor]] = {
    "moons": moons,
    "eight-gaussians": eight_gaussians,
    "checkerboard": checkerboard,
    "spirals": spirals,
}
"""The distributions by the name that ``--data`` takes."""

COUNT = 20_000
"""Points to train on; as many again are held out."""

BUDGETS = (2, 5, 100)
"""Network evaluations at which quality is measured besides the run's own."""


@final
@dataclass(frozen=True)
class Plane(Kind):
    """Points of the plane as states (B, 2), of mean 0 and about unit variance."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def endings(self) -> tuple[str, ...]:
        return (".png", ".csv", ".npz")

    def open(self, path: str | None) -> Splits:
        shape = _named(path)
        points = SHAPES[shape](2 * COUNT, Rng(0).fold(Stream.ORDER))
        training, held_out = Tensors(points[:COUNT]), Tensors(points[COUNT:])
        return Splits(training, held_out, training.fingerprint)

    def read(self, values: Tensor, rng: Rng) -> Tensor:
        return values

    def write(self, states: Tensor, labels: Tensor | None, file: Path) -> None:
        points = states.cpu().numpy()
        content = io.BytesIO()
        if file.suffix == ".csv":
            lines = io.StringIO(newline="")
            csv.writer(lines).writerows([["x", "y"], *points.tolist()])
            content.write(lines.getvalue().encode())
        elif file.suffix == ".npz":
            np.savez(content, samples=points)
        else:
            plot = Plot(figsize=(5, 5), layout="constrained")
            axes = plot.subplots()
            axes.scatter(points[:, 0], points[:, 1], s=4 if len(points) > 300 else 12, alpha=0.6, linewidths=0)
            axes.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
            plot.savefig(content, dpi=100, format="png")
        write_whole(file, content.getvalue())

    def measure(
        self, generate: Generate, splits: Splits, count: int, folder: Path, weights: Path | None = None
    ) -> Findings:
        real, _ = splits.held_out.take(torch.arange(min(2 * count, len(splits.held_out))))
        drawn, chosen = generate.curve(None, count, BUDGETS)
        return measure_points(drawn, chosen, real, Rng(0))


def toy(
    data: str | None = None, *, source: str | None = None, network: type[nn.Module] = MLP, width: int = 128
) -> Recipe:
    """The recipe for points of the plane.

    Args:
        data: "moons", "eight-gaussians", "checkerboard" or "spirals"; moons when left out.
        source: likewise, to start from instead of noise.
        network: ``nn.MLP``.
        width: features of the network.
    """
    shape = _named(data)
    if width < 1:
        raise InputError(f"a network has a width of at least 1, got {width}.")
    if network is not MLP:
        raise InputError(f"points of the plane are learned by an MLP, got {network.__name__}; leave --net out.")
    kind = Plane()
    return Recipe(
        name="toy",
        kind=kind,
        data=DataRef(shape, kind.open(shape).fingerprint, COUNT),
        network=Build(network, {"shape": 2, "width": width, "depth": 3}),
        objective=Matching(times=Uniform(stratified=True)),
        order=Shuffled(COUNT),
        solver=AdamsBashforth(2),
        grid=grids.Uniform(),
        evaluations=10,
        guidance=None,
        training=Training(steps=4_000, batch=512),
        source=None if source is None else DataRef(_named(source), kind.open(source).fingerprint, COUNT),
    )


def _named(data: str | None) -> str:
    shape = data or "moons"
    if shape not in SHAPES:
        raise InputError(f"there is no toy distribution {shape!r}; {nearest(shape, SHAPES)}")
    return shape

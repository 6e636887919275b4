"""Pairs that a trained flow makes, kept on disk, and the recipe of a straighter one that learns from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Cond, Dynamics, Rng, integrate
from ..core.condition import take
from ..data import Shuffled, States, Tensors
from ..dynamics import FlowMap
from ..objectives import Matching, Rectified
from ..solvers import AdamsBashforth, Euler, grids
from ..training import Layout, checkpoint
from .distilling import require_pairs, require_teacher, taught
from .recipe import Recipe, Splits
from .run import Run
from .sampling import evaluating
from .sources import with_source

SHARD = 2_000
"""Pairs of a shard."""

STEPS = 32
"""Evaluations of a pair. Adams-Bashforth 3 then errs by less than what a network learns."""

NOISES = 2
"""Folded into the seed: the noises of pairs are those of no sample."""

SHARDS = "reflow"
"""Where a run keeps its pairs."""


def rectified(teacher: Run, network: nn.Module, pairs: int, steps: int, guidance: Any) -> Recipe:
    """The recipe of a student that is matched on a teacher's pairs.

    Args:
        teacher: the run.
        network: its network with the averaged weights.
        pairs: that it learns from.
        steps: in which it is to be sampled.
        guidance: under which pairs are made; the student then needs none.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide, or there are no pairs.
    """
    require_pairs(pairs)
    named, flow, before = taught(teacher, network, guidance)
    student = as_rectified(teacher.recipe, flow, pairs, before)
    return replace(student, evaluations=steps, guidance=None, teacher=named)


def as_rectified(recipe: Recipe, flow: Matching, pairs: int, before: Matching | None = None) -> Recipe:
    """The recipe with matching on pairs that a flow makes in place of its objective, sampled in one step.

    Args:
        recipe: of the flow.
        flow: what made the pairs learned.
        pairs: that are learned from.
        before: what the network was trained by until now, when that is something else than ``flow``.
    """
    return replace(
        recipe,
        objective=Rectified(Matching(flow.path, times=flow.times, source=flow.source, before=before)),
        order=Shuffled(pairs),
        solver=Euler(),
        grid=grids.Uniform(),
        evaluations=1,
        noise=None,
    )


def made_pairs(
    run: Run,
    network: nn.Module,
    splits: Splits,
    tell: Callable[[str], Any] = lambda line: None,
    layout: Layout = Layout(),
) -> Tensors:
    """The pairs of a run, made by its teacher where they are not there yet: half of them from data where there are as
    many, the others from noise. A shard is a function of the run's seed and its number, and whole or not there; of
    several processes each makes its share of them.

    Args:
        run: the student's.
        network: the teacher's, with its averaged weights.
        splits: the data.
        tell: is told how far it came.
        layout: the processes.
    """
    recipe = run.recipe
    require_teacher(recipe, network)
    assert isinstance(recipe.order, Shuffled)
    count, folder = recipe.order.count, run.folder / SHARDS
    if layout.leads:
        checkpoint.recover(folder)
    layout.wait()
    kept = [torch.arange(count)[start : start + SHARD] for start in range(0, count, SHARD)]
    places = [folder / f"shard-{number:05d}" for number in range(len(kept))]
    for number, (place, rows) in enumerate(zip(places, kept, strict=True)):
        if number % layout.world == layout.rank and not place.is_dir():
            tensors = _shard(run, network, splits, rows)
            checkpoint.write(place, (("pairs.safetensors", checkpoint.pack(tensors)),))
            tell(f"{int(rows[-1]) + 1:,} of {count:,} pairs")
    layout.wait()
    parts = []
    for place in places:
        checkpoint.verify(place)
        parts.append(checkpoint.read_tensors(place, "pairs"))
    labels = torch.cat([part["labels"] for part in parts]) if "labels" in parts[0] else None
    return Tensors(torch.cat([part["pairs"] for part in parts]), labels)


def _shard(run: Run, network: nn.Module, splits: Splits, rows: Tensor) -> dict[str, Tensor]:
    """The pairs of these numbers: even ones begin at a datum, as long as there are any, odd ones at a noise."""
    recipe, device = with_source(run.recipe, "training"), next(network.parameters()).device
    flow, keys = _flow(run.recipe, network), Rng(run.seed).fold(NOISES).rows(rows)
    datum = rows // 2
    backward = (rows % 2 == 0) & (datum < len(splits.training))
    x, cond = States(splits.training, recipe.kind.read).take(datum % len(splits.training), keys.key)
    noise = recipe.objective.prior(keys, torch.empty_like(x))
    grid = grids.Uniform()(STEPS, device=device)

    def carried(x: Tensor, chosen: Tensor, grid: Tensor) -> Tensor:
        told = take(cond, chosen.nonzero().flatten())
        with evaluating(network), torch.no_grad():
            return _led(flow, x[chosen].to(device), grid, None if told is None else _to(told, device))

    noise[backward] = carried(x, backward, grid.flip(0))
    x[~backward] = carried(noise, ~backward, grid)
    found = {"pairs": torch.stack([noise, x], 1)}
    return {**found, "labels": cond} if isinstance(cond, Tensor) else found


def _flow(recipe: Recipe, network: nn.Module) -> Dynamics[Tensor]:
    """The teacher's flow on the student's path, guided where it is to be."""
    objective = recipe.objective
    assert isinstance(objective, Rectified)
    found = objective.inner.dynamics(network)
    flow = found.flow if isinstance(found, FlowMap) else found
    guidance = None if recipe.teacher is None else recipe.teacher.guidance
    return flow if guidance is None else flow.over(guidance)


def _led(flow: Dynamics[Tensor], x: Tensor, grid: Tensor, cond: Cond | None) -> Tensor:
    return integrate(AdamsBashforth(3), flow, x, grid, cond).x.cpu() if len(x) else x.cpu()


def _to(cond: Cond, device: torch.device) -> Cond:
    return cond.to(device) if isinstance(cond, Tensor) else {name: value.to(device) for name, value in cond.items()}

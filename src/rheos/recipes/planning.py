"""Sampling plans of a run: compiled for its network, and used in its recipe."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core import Cond, InputError, Rng
from ..core.condition import take
from ..dynamics import Flow
from ..guidance import ClassifierFree
from ..paths import Affine
from ..solvers.plans import Entry, Plan, PlanSolver, calibrate, fingerprint
from ..solvers.plans.calibrate import EFFORT, JUDGED
from .recipe import Recipe
from .sampling import evaluating

TIMED = 256
"""Noises with which an evaluation is timed."""

SECONDS, LEAST = 30, 14
"""How long a fit may take, and the power of two of states that it takes at least."""

NOISES = 1
"""Folded into the seed: the noises of a plan are those of no sample."""


def compiled(
    recipe: Recipe,
    network: nn.Module,
    budgets: Iterable[int],
    *,
    guidance: Sequence[float] = (),
    draws: int,
    effort: int | None = None,
    sharp: bool = False,
    seed: int = 0,
    tell: Callable[[Entry], Any] = lambda entry: None,
) -> Plan:
    """Compile a plan for a trained network.

    Args:
        recipe: says what the network learned.
        network: with its trained weights.
        budgets: evaluations.
        guidance: scales that the plan is to serve; the recipe's own when left out.
        draws, sharp, tell: see :func:`~rheos.solvers.plans.calibrate`.
        effort: states that may be evaluated to fit each budget; :func:`affordable` when left out.
        seed: of the noises.

    Raises:
        InputError: if the recipe learns no flow, or has nothing to guide.
    """
    own = guidance_scale(recipe)
    if own is None:
        raise InputError("a plan serves plain guidance, and this run has another; sample it without a plan.")
    scales = sorted(set(guidance)) or [own]
    if scales != [1.0] and not recipe.kind.classes:
        raise InputError("guidance contrasts a class with none, and this run has no classes; leave --guidance out.")
    flow = recipe.objective.dynamics(network)
    if not isinstance(flow, Flow):
        raise InputError(f"a plan is fitted to a flow, and this run's dynamics is {type(flow).__name__}.")
    flows = {scale: flow if scale == 1.0 else flow.over(ClassifierFree(scale)) for scale in scales}
    count = draws + JUDGED * (2 if sharp else 1)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    rows = torch.arange(count, device=device)
    noise = recipe.objective.prior(
        Rng(seed).fold(NOISES).rows(rows), torch.empty(count, *recipe.kind.shape, device=device)
    )
    classes = len(recipe.kind.classes)
    # Draws are dealt out to the scales in turn, and so are the classes within each.
    cond = rows // len(scales) % classes if classes else None
    with evaluating(network):
        return calibrate(
            flows,
            noise,
            cond,
            budgets,
            path=_path(recipe),
            draws=draws,
            sharp=sharp,
            effort=affordable(flows[scales[-1]], noise, cond) if effort is None else effort,
            model=fingerprint(network),
            tell=tell,
        )


def affordable(flow: Flow, noise: Tensor, cond: Cond | None) -> int:
    """The states that a flow is evaluated at in half a minute on this machine, a power of two, at most EFFORT."""
    rows = torch.arange(min(TIMED, len(noise)), device=noise.device)
    given = () if cond is None else (take(cond, rows),)
    times = torch.full((len(rows),), 0.5, device=noise.device)
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        # The host waits for the sum.
        flow.velocity(noise[rows], times, *given).sum().item()
        seconds.append(time.perf_counter() - began)
    states = SECONDS * len(times) / min(seconds)
    return min(EFFORT, 2 ** max(LEAST, math.floor(math.log2(states))))


def planned(recipe: Recipe, plan: Plan, evaluations: int) -> tuple[Recipe, Entry]:
    """The recipe that is sampled by a plan in at most so many evaluations, and the plan's entry."""
    entry = plan.at(evaluations)
    solver = PlanSolver(entry, _path(recipe))
    return replace(recipe, solver=solver, grid=solver.times, evaluations=entry.evaluations), entry


def guidance_scale(recipe: Recipe) -> float | None:
    """The scale of plain guidance, 1 without any; ``None`` for another kind."""
    if recipe.guidance is None:
        return 1.0
    return recipe.guidance.scale if isinstance(recipe.guidance, ClassifierFree) else None


def _path(recipe: Recipe) -> Affine:
    path = getattr(recipe.objective, "path", None)
    return path if isinstance(path, Affine) else Affine()

"""A run made from another: the same data and network, sampled in fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..core import CheckpointError, Guidance, InputError
from ..data import Shuffled
from ..guidance import ClassifierFree, Interval, Told
from ..objectives import FlowMapMatching, Matching, Rectified, Scales
from ..paths import Affine
from ..solvers.plans import fingerprint
from ..training import checkpoint, load_weights
from .flow_maps import as_flow_map
from .recipe import Recipe, RunRef
from .run import Run
from .sources import with_source

PAIRS = 20_000
"""That a student learns from, where it learns from pairs and nothing else is asked."""

DIAGONAL = 0.25
"""The share of a student's rows on the diagonal. There it begins as its teacher, so that it has less to learn than from
scratch: on two moons, after 600 steps, the distance in one step is half of what it is with presets' half or three
quarters of the rows."""

SECOND = ("embedding.gap.", "embedding.scale.")
"""How the names of weights begin that a student's network has besides its teacher's."""


def distilled(
    teacher: Run,
    network: nn.Module,
    make: Callable[..., FlowMapMatching],
    steps: int,
    guidance: Guidance | Scales | None,
    pairs: int = PAIRS,
) -> Recipe:
    """The recipe of a student that learns the map of a trained flow; of a straightened one, on pairs that it makes.

    Args:
        teacher: the run.
        network: its network with the averaged weights.
        make: the student's objective.
        steps: in which it is to be sampled.
        guidance: under which the teacher is distilled, in times of the student's path; its student then needs none. Of
            scales the student is told one, the middle one when nothing else is asked.
        pairs: that the map of a straightened flow learns from.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide, or its network knows no second
            time, or a map to the data only is to take more steps than one without fresh noise.
    """
    scales = guidance if isinstance(guidance, Scales) else None
    shown = _middle(guidance) if isinstance(guidance, Scales) else guidance
    named, flow, before = taught(teacher, network, shown)
    parts = {"before": before, "diagonal": DIAGONAL, **({} if scales is None else {"guided": scales})}
    student = as_flow_map(replace(teacher.recipe, objective=flow, guidance=None), partial(make, **parts))
    made = student.objective
    assert isinstance(made, FlowMapMatching)
    if made.path != flow.path and before is None:
        # The student's path is its own, to which the teacher's flow is carried over.
        made = replace(made, before=Matching(flow.path))
    if made.segments > 1:
        # Its segments are the steps.
        made = replace(made, segments=steps)
    student = replace(student, objective=made, evaluations=steps, teacher=named)
    if isinstance(teacher.recipe.objective, Rectified):
        require_pairs(pairs)
        student = replace(student, objective=Rectified(made), order=Shuffled(pairs), noise=None)
    if made.segments == 1 and steps > 1 and student.noise is None:
        raise InputError(
            f"{steps} steps of a map that leads to the data only want fresh noise between them, and the noise of "
            f"{teacher.folder} belongs to its data; take --steps 1, or --to lagrangian."
        )
    return student


def _middle(scales: Scales) -> Guidance:
    """The guidance of the middle scale."""
    guidance = ClassifierFree(scales.middle)
    whole = (scales.start, scales.end) == (0.0, 1.0)
    return guidance if whole else Interval(guidance, scales.start, scales.end)


def taught(
    teacher: Run, network: nn.Module, guidance: Guidance | Scales | None
) -> tuple[RunRef, Matching, Matching | None]:
    """What a student takes over: the name of its teacher, the objective of the flow that it is to learn, and what its
    network was trained by until then. A diffusion model is distilled as the flow that it is, on straight lines.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide, or there are several scales.
    """
    if isinstance(guidance, Scales):
        raise InputError(
            "a flow map can be told which of several scales of guidance to follow, and a straighter flow follows one; "
            "give one scale, or distil to a flow map."
        )
    objective: object = teacher.recipe.objective
    if isinstance(objective, Rectified):
        objective = objective.inner
    if not isinstance(objective, Matching):
        raise InputError(
            f"a run of matching can be distilled, and {teacher.folder} was trained by {type(objective).__name__}; "
            "distil the run that it came from, or train one."
        )
    if guidance is not None and not teacher.recipe.kind.classes:
        raise InputError("guidance contrasts a class with none, and this run has no classes; leave --guidance out.")
    named = reference(teacher, network, guidance)
    if objective.predict == "velocity":
        return named, objective, objective.before
    before = Matching(objective.path, predict=objective.predict, data_std=objective.data_std, before=objective.before)
    return named, Matching(coupling=objective.coupling, times=objective.times, source=objective.source), before


def reference(teacher: Run, network: nn.Module, guidance: Guidance | None = None) -> RunRef:
    """The name under which a student knows its teacher, whose network with the averaged weights this is."""
    return RunRef(str(teacher.folder.expanduser().resolve()), fingerprint(network), guidance)


def with_teacher(recipe: Recipe, network: nn.Module) -> Recipe:
    """The recipe with its teacher at hand, as training needs it.

    Args:
        recipe: of a student.
        network: the teacher's, with its averaged weights, on the device of the training.

    Raises:
        CheckpointError: if the teacher is no longer what it was.
    """
    if isinstance(recipe.objective, Rectified):
        told = with_teacher(replace(recipe, objective=recipe.objective.inner), network).objective
        return replace(recipe, objective=replace(recipe.objective, inner=told))
    objective, named = recipe.objective, require_teacher(recipe, network)
    if isinstance(objective, Matching):
        # It learns from the teacher's pairs.
        return recipe
    assert isinstance(objective, FlowMapMatching)
    network = network.eval().requires_grad_(False)
    before = objective.before
    velocity = network if before is None else before.carried(network, objective.path)
    # Of several scales the objective takes care itself.
    if named.guidance is not None and objective.guided is None:
        velocity = named.guidance(velocity)
    return replace(recipe, objective=replace(objective, teacher=velocity))


def require_teacher(recipe: Recipe, network: nn.Module) -> RunRef:
    """The name of a student's teacher, whose network this is.

    Raises:
        CheckpointError: if it is another.
    """
    named = recipe.teacher
    assert named is not None
    if fingerprint(network) != named.fingerprint:
        raise CheckpointError(
            f"the teacher {named.path} is no longer the one that this run was made with; restore it, or distil anew."
        )
    return named


def require_pairs(pairs: int) -> None:
    """Refuse to learn from nothing.

    Raises:
        InputError: if there is no pair.
    """
    if pairs < 1:
        raise InputError(f"a student learns from at least one pair, got {pairs}.")


def teaching(teacher: Run, student: Recipe) -> Recipe:
    """The teacher's recipe as it is shown beside a student: from held-out states, under the guidance that it taught
    with, at the scale that the student is told."""
    named = student.teacher
    assert named is not None
    guidance = named.guidance
    within = guidance.guidance if isinstance(guidance, Interval) else guidance
    if isinstance(student.guidance, Told):
        within = ClassifierFree(student.guidance.scale)
    if isinstance(guidance, Interval) and within is not None:
        low, high = (_on(teacher.recipe, student, time) for time in (guidance.low, guidance.high))
        within = Interval(within, low, high)
    return replace(with_source(teacher.recipe, "held_out"), guidance=within)


def _on(teacher: Recipe, student: Recipe, time: float) -> float:
    """The time of a teacher's path that has the signal-to-noise ratio of a time of its student's."""
    own, path = (getattr(recipe.objective, "path", None) for recipe in (teacher, student))
    if path == own or not (isinstance(path, Affine) and isinstance(own, Affine)):
        return time
    return float(own.schedule.time_of(*path.schedule(torch.tensor(time, dtype=torch.float64))))


def started(network: nn.Module, teacher: Path) -> dict[str, Tensor]:
    """The weights at which a student begins: its teacher's, and its own of the second time and of scales, which add
    nothing yet.

    Raises:
        CheckpointError: if the teacher's weights are those of another network.
    """
    own, weights = network.state_dict(), load_weights(teacher)
    merged: Mapping[str, Tensor] = {**{name: own[name] for name in own if name.startswith(SECOND)}, **weights}
    checkpoint.check_fit(merged, own, f"the teacher {teacher}")
    return dict(merged)

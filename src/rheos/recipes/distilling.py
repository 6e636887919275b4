"""A run made from another: the same data and network, sampled in fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ..core import CheckpointError, Guidance, InputError
from ..objectives import FlowMapMatching, Matching
from ..solvers.plans import fingerprint
from ..training import checkpoint, load_weights
from .flow_maps import as_flow_map
from .recipe import Recipe, RunRef
from .run import Run
from .sources import with_source

SECOND = "embedding.gap."
"""Names of weights that a network of two times has besides those of one."""


def distilled(
    teacher: Run, network: nn.Module, make: Callable[..., FlowMapMatching], steps: int, guidance: Guidance | None
) -> Recipe:
    """The recipe of a student that learns the map of a trained flow.

    Args:
        teacher: the run.
        network: its network with the averaged weights.
        make: the student's objective.
        steps: in which it is to be sampled.
        guidance: under which the teacher is distilled; its student then needs none.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide, or its network knows no second
            time.
    """
    named, flow, before = taught(teacher, network, teacher.recipe.objective, guidance)
    student = as_flow_map(replace(teacher.recipe, objective=flow), partial(make, before=before))
    made = student.objective
    if isinstance(made, FlowMapMatching) and made.path != flow.path and before is None:
        # The student's path is its own, to which the teacher's flow is carried over.
        student = replace(student, objective=replace(made, before=Matching(flow.path)))
    return replace(student, evaluations=steps, guidance=None, teacher=named)


def taught(
    teacher: Run, network: nn.Module, objective: object, guidance: Guidance | None
) -> tuple[RunRef, Matching, Matching | None]:
    """What a student takes over: the name of its teacher, the objective of the flow that it is to learn, and what its
    network was trained by until then. A diffusion model is distilled as the flow that it is, on straight lines.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide.
    """
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
    objective, named = recipe.objective, require_teacher(recipe, network)
    assert isinstance(objective, FlowMapMatching)
    network = network.eval().requires_grad_(False)
    before = objective.before
    velocity = network if before is None else before.carried(network, objective.path)
    if named.guidance is not None:
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


def teaching(teacher: Run, named: RunRef) -> Recipe:
    """The teacher's recipe as it is shown beside a student: from held-out states, under the guidance that it taught
    with."""
    return replace(with_source(teacher.recipe, "held_out"), guidance=named.guidance)


def started(network: nn.Module, teacher: Path) -> dict[str, Tensor]:
    """The weights at which a student begins: its teacher's, and of the second time its own, which add nothing yet.

    Raises:
        CheckpointError: if the teacher's weights are those of another network.
    """
    own, weights = network.state_dict(), load_weights(teacher)
    merged: Mapping[str, Tensor] = {**{name: own[name] for name in own if name.startswith(SECOND)}, **weights}
    checkpoint.check_fit(merged, own, f"the teacher {teacher}")
    return dict(merged)

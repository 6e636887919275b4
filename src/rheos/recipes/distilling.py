"""A run made from another: the same data and network, sampled in fewer steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from ..core import CheckpointError, Guidance, InputError
from ..data import Shuffled
from ..objectives import FlowMapMatching, Matching, Rectified
from ..solvers.plans import fingerprint
from ..training import checkpoint, load_weights
from .flow_maps import as_flow_map
from .recipe import Recipe, RunRef
from .run import Run
from .sources import with_source

PAIRS = 20_000
"""That a student learns from, where it learns from pairs and nothing else is asked."""

SECOND = "embedding.gap."
"""Names of weights that a network of two times has besides those of one."""


def distilled(
    teacher: Run,
    network: nn.Module,
    make: Callable[..., FlowMapMatching],
    steps: int,
    guidance: Guidance | None,
    pairs: int = PAIRS,
) -> Recipe:
    """The recipe of a student that learns the map of a trained flow; of a straightened one, on pairs that it makes.

    Args:
        teacher: the run.
        network: its network with the averaged weights.
        make: the student's objective.
        steps: in which it is to be sampled.
        guidance: under which the teacher is distilled; its student then needs none.
        pairs: that the map of a straightened flow learns from.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide, or its network knows no second
            time, or a map to the data only is to take more steps than one without fresh noise.
    """
    named, flow, before = taught(teacher, network, guidance)
    student = as_flow_map(replace(teacher.recipe, objective=flow), partial(make, before=before))
    made = student.objective
    assert isinstance(made, FlowMapMatching)
    if made.path != flow.path and before is None:
        # The student's path is its own, to which the teacher's flow is carried over.
        made = replace(made, before=Matching(flow.path))
    if made.segments > 1:
        # Its segments are the steps.
        made = replace(made, segments=steps)
    student = replace(student, objective=made, evaluations=steps, guidance=None, teacher=named)
    if isinstance(teacher.recipe.objective, Rectified):
        require_pairs(pairs)
        student = replace(student, objective=Rectified(made), order=Shuffled(pairs), noise=None)
    if made.segments == 1 and steps > 1 and student.noise is None:
        raise InputError(
            f"{steps} steps of a map that leads to the data only want fresh noise between them, and the noise of "
            f"{teacher.folder} belongs to its data; take --steps 1, or --to lagrangian."
        )
    return student


def taught(teacher: Run, network: nn.Module, guidance: Guidance | None) -> tuple[RunRef, Matching, Matching | None]:
    """What a student takes over: the name of its teacher, the objective of the flow that it is to learn, and what its
    network was trained by until then. A diffusion model is distilled as the flow that it is, on straight lines.

    Raises:
        InputError: if the run learned no flow of matching, or has nothing to guide.
    """
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


def require_pairs(pairs: int) -> None:
    """Refuse to learn from nothing.

    Raises:
        InputError: if there is no pair.
    """
    if pairs < 1:
        raise InputError(f"a student learns from at least one pair, got {pairs}.")


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

"""Contenders: each keeps the laws of an objective, and each of its samplers carries the exact model to the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import testing
from rheos.cli.parts import resolve
from rheos.compare import CONTENDERS, contender
from rheos.compare.contenders import USUAL
from rheos.core import InputError
from rheos.couplings import BatchOT, Conditional
from rheos.data import Shuffled
from rheos.nn import MLP
from rheos.objectives import FlowMapMatching, Matching, Rectified, SimulatedLikelihood
from rheos.recipes import FLOW_MAPS, Build, Sampler, decode, encode, images, toy
from rheos.solvers import RK4

MEAN, STD = torch.tensor([0.6, -0.4]), 0.3
"""Of the normal data whose exact model is known."""


def posterior(x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """The mean of normal data given ``x = alpha*x1 + sigma*x0``."""
    variance = alpha**2 * STD**2 + sigma**2
    return MEAN + alpha * STD**2 / variance * (x - alpha * MEAN)


class Exact(nn.Module):
    """What the network of an objective would be at its best."""

    def __init__(self, objective: Matching) -> None:
        super().__init__()
        # A network that goes on still is what it was.
        self.objective = objective.before or objective

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        t = t.expand(len(x))[:, None]
        std = self.objective.data_std
        if std is None:
            alpha, sigma = self.objective.path.schedule(t)
            data = posterior(x, alpha, sigma)
            path, want = self.objective.path, self.objective.predict
            return path.convert(data, x, t.expand_as(x), given="data", want=want)
        # The network of EDM is told x/n at the time of straight lines, and gives what is left of the data.
        level = (1 - t) / t
        norm = (std**2 + level**2).sqrt()
        x = x * norm
        data = posterior(x, torch.ones_like(level), level)
        return (data - std**2 / norm**2 * x) / (level * std / norm)


class ExactMap(nn.Module):
    """The average velocity from one time to another of the flow to normal data: each state keeps its place among the
    others, in standard deviations from the mean."""

    def __init__(self, objective: FlowMapMatching) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, x: Tensor, t: Tensor, cond: Any = None, s: Tensor | None = None) -> Tensor:
        if s is None or bool((s == t).all()):
            return Exact(Matching(self.objective.path))(x, t)
        (mean, std), (later_mean, later_std) = self.law(t), self.law(s)
        later = later_mean + later_std / std * (x - mean)
        return (later - x) / (s - t)

    def law(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation at a time."""
        alpha, sigma = self.objective.path.schedule(t)
        return alpha * MEAN, (alpha**2 * STD**2 + sigma**2).sqrt()


def exact(objective: Any) -> nn.Module:
    """The network of an objective at its best."""
    if isinstance(objective, FlowMapMatching):
        return ExactMap(objective)
    return Exact(objective.inner if isinstance(objective, Rectified) else objective)


MAPS = [name for name, side in CONTENDERS.items() if "its map" in next(iter(side.ways))]
STUDENTS = ["flow-to-lagrangian", "reflow"]


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "simulated"])
def test_every_sampler_carries_the_exact_model_to_the_data(name: str) -> None:
    side = contender(name, toy())
    network = exact(side.recipe.objective)
    assert next(iter(side.ways.values())) == side.recipe
    for way, recipe in side.ways.items():
        drawn = Sampler(recipe, network).draw(1_000, evaluations=100).states
        assert bool(drawn.isfinite().all()), way
        assert float((drawn.mean(0) - MEAN).abs().max()) < 0.06, way
        assert float((drawn.std(0) - STD).abs().max()) < 0.03, way
        rough = Sampler(recipe, network).draw(10, evaluations=4).states
        assert bool(rough.isfinite().all()), way


@pytest.mark.parametrize("name", MAPS)
def test_an_exact_map_needs_one_evaluation_and_its_velocity_many(name: str) -> None:
    own, along = contender(name, toy()).ways.values()
    network = exact(own.objective)
    drawn = Sampler(own, network).draw(1_000, evaluations=1)
    assert drawn.passes == 1
    assert float((drawn.states.mean(0) - MEAN).abs().max()) < 0.03
    assert float((drawn.states.std(0) - STD).abs().max()) < 0.02
    fine = Sampler(along, network).draw(1_000, evaluations=100).states
    rough = Sampler(along, network).draw(1_000, evaluations=1).states
    # From the same noise, so that they agree sample by sample where the velocity is followed closely.
    assert float((fine - drawn.states).abs().max()) < 0.01 < float((rough - drawn.states).abs().max())


@pytest.mark.parametrize("name", MAPS)
def test_steps_after_the_first_start_anew_where_all_steps_end_at_the_data(name: str) -> None:
    own = contender(name, toy()).recipe
    one, four = (Sampler(own, exact(own.objective)).draw(50, evaluations=n).states for n in (1, 4))
    anew = name in ("consistency", "continuous-consistency")
    assert anew == (float((one - four).abs().max()) > 0.1)


@pytest.mark.parametrize("name", FLOW_MAPS)
def test_maps_are_those_that_train_makes(name: str) -> None:
    assert contender(name, toy()).recipe == resolve("toy", {"objective": name})


@pytest.mark.parametrize("name", CONTENDERS)
def test_objectives_keep_the_laws_and_recipes_are_kept(name: str) -> None:
    side = contender(name, toy())
    # A reflow's data are pairs, and the laws of what it learns from them are kept in tests/objectives.
    if name not in ("simulated", "reflow"):
        testing.check_objective(side.recipe.objective)
    for recipe in side.ways.values():
        assert decode(encode(recipe)) == recipe


@pytest.mark.parametrize("name", CONTENDERS)
def test_all_but_its_own_parts_are_the_recipes(name: str) -> None:
    recipe = replace(toy(width=12), evaluations=7, training=replace(toy().training, steps=400))
    made = contender(name, recipe).recipe
    family = CONTENDERS[name].family
    for part in ("name", "kind", "data", "training", *(("evaluations", "order") if family != "few steps" else ())):
        assert getattr(made, part) == getattr(recipe, part)
    two = {"two_times": True} if name in MAPS else {}
    assert made.network == Build(MLP, {**recipe.network.options, **two})
    assert (made.order == recipe.order) == (name != "reflow")
    made_for = 2 if name == "consistency-flow-matching" else 1
    assert made.evaluations == (made_for if family == "few steps" else 7)


def test_transport_sees_labels_where_there_are_any() -> None:
    assert contender("flow-ot", toy()).recipe.objective.coupling == BatchOT()
    assert contender("flow-ot", images(width=8)).recipe.objective.coupling == Conditional(BatchOT())


def test_families_and_the_usual_ones() -> None:
    assert {side.family for side in CONTENDERS.values()} == {"flow", "diffusion", "hybrid", "few steps", "simulated"}
    assert {name for name, side in CONTENDERS.items() if side.family == "few steps"} == {*FLOW_MAPS, *STUDENTS}
    assert set(USUAL) <= set(CONTENDERS)
    assert {CONTENDERS[name].family for name in USUAL} == {"flow", "diffusion"}


@pytest.mark.parametrize(("name", "own"), [("flow", "velocity"), ("ddpm", "noise"), ("v", "v")])
def test_a_side_may_predict_another_quantity(name: str, own: str) -> None:
    plain = contender(name, toy())
    assert plain.recipe.objective.predict == own  # type: ignore[attr-defined]
    for quantity in ("data", "noise", "v"):
        other = contender(f"{name}:{quantity}", toy())
        assert other.title == f"{plain.title} ({quantity} predicted)"
        assert other.recipe.objective == replace(plain.recipe.objective, predict=quantity)  # type: ignore[type-var]
        drawn = Sampler(other.recipe, exact(other.recipe.objective)).draw(1_000, evaluations=100).states
        assert float((drawn.mean(0) - MEAN).abs().max()) < 0.06
    with pytest.raises(InputError, match="infinite at an end"):
        contender("ddpm:velocity", toy())
    with pytest.raises(InputError, match="'noize' cannot be predicted; did you mean 'noise'"):
        contender("flow:noize", toy())
    with pytest.raises(InputError, match="a preconditioned network is one that predicts data"):
        contender("edm:noise", toy())


def test_a_hybrid_begins_as_the_diffusion_model_and_others_as_nothing_else() -> None:
    for name, first in (("ddpm-to-flow", "ddpm"), ("v-to-flow", "v")):
        before = contender(name, toy()).before
        assert before is not None
        assert before.objective == contender(first, toy()).recipe.objective
        assert not contender(name, toy()).learns
    assert all(contender(name, toy()).before is None for name in ("flow", "ddpm", "edm", "simulated", *FLOW_MAPS))


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_begins_as_the_flow_that_it_learns_from(name: str) -> None:
    side = contender(name, toy())
    assert side.before == contender("flow", toy()).recipe
    assert side.learns


def test_a_pair_is_learned_from_ten_times_or_more() -> None:
    def pairs(steps: int, batch: int) -> int:
        recipe = replace(toy(), training=replace(toy().training, steps=steps, batch=batch))
        order = contender("reflow", recipe).recipe.order
        assert isinstance(order, Shuffled)
        return order.count

    # Of the steps, the second half learns from pairs; of an odd number it is the larger.
    assert pairs(400, 128) == 2_560
    assert pairs(401, 100) == 2_010
    assert pairs(100_000, 512) == 20_000
    assert pairs(10, 64) == 64


def test_what_shows_the_training_is_the_sampler_of_the_highest_order() -> None:
    for name, way in (("flow", "Adams-Bashforth 2"), ("ddpm", "DPM-Solver++ (2M)"), ("vp", "DPM-Solver++ (2M)")):
        side = contender(name, toy())
        assert side.accurate == side.ways[way]
        assert side.budget is None
    for name in MAPS:
        assert contender(name, toy()).accurate == contender(name, toy()).recipe
    reflow = contender("reflow", toy())
    assert reflow.accurate == reflow.ways["Adams-Bashforth 2"]
    assert {contender(name, toy()).budget for name in (*MAPS, "reflow")} == {1, 2}


def test_the_simulated_flow_is_one_of_few_dimensions() -> None:
    assert isinstance(contender("simulated", toy()).recipe.objective, SimulatedLikelihood)
    with pytest.raises(InputError, match="at most 16 numbers, these have 64"):
        contender("simulated", images(width=8))


def test_others_are_refused() -> None:
    with pytest.raises(InputError, match="there is no contender 'ddmp'; did you mean 'ddpm'"):
        contender("ddmp", toy())
    with pytest.raises(InputError, match="a comparison is one of matching, and toy has another objective"):
        contender("flow", replace(toy(), objective=SimulatedLikelihood(RK4())))
    with pytest.raises(InputError, match="ways from noise to data, and toy has a source of its own"):
        contender("flow", toy(source="spirals"))


@pytest.mark.parametrize("name", [*MAPS, "reflow", "simulated"])
def test_a_side_that_is_asked_for_velocities_has_no_other_quantity(name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' learns velocities as .* leave ':data' out"):
        contender(f"{name}:data", toy())


def test_a_map_wants_a_network_of_two_times() -> None:
    plain = replace(toy(), network=Build(nn.Linear, {"in_features": 2, "out_features": 2}))
    assert contender("reflow", plain).recipe.network == plain.network
    with pytest.raises(InputError, match="told where a step ends, and Linear has no two_times"):
        contender("mean-flow", plain)

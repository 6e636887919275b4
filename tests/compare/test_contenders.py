"""Contenders: each keeps the laws of an objective, and each of its samplers carries the exact model to the data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import testing
from rheos.compare import CONTENDERS, contender
from rheos.compare.contenders import USUAL
from rheos.core import InputError
from rheos.couplings import BatchOT, Conditional
from rheos.objectives import Matching, SimulatedLikelihood
from rheos.recipes import Sampler, decode, encode, images, toy
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


@pytest.mark.parametrize("name", [name for name in CONTENDERS if name != "simulated"])
def test_every_sampler_carries_the_exact_model_to_the_data(name: str) -> None:
    side = contender(name, toy())
    network = Exact(side.recipe.objective)  # type: ignore[arg-type]
    assert next(iter(side.ways.values())) == side.recipe
    for way, recipe in side.ways.items():
        drawn = Sampler(recipe, network).draw(1_000, evaluations=100).states
        assert bool(drawn.isfinite().all()), way
        assert float((drawn.mean(0) - MEAN).abs().max()) < 0.06, way
        assert float((drawn.std(0) - STD).abs().max()) < 0.03, way
        rough = Sampler(recipe, network).draw(10, evaluations=4).states
        assert bool(rough.isfinite().all()), way


@pytest.mark.parametrize("name", CONTENDERS)
def test_objectives_keep_the_laws_and_recipes_are_kept(name: str) -> None:
    side = contender(name, toy())
    if name != "simulated":
        testing.check_objective(side.recipe.objective)
    for recipe in side.ways.values():
        assert decode(encode(recipe)) == recipe


@pytest.mark.parametrize("name", CONTENDERS)
def test_all_but_its_own_parts_are_the_recipes(name: str) -> None:
    recipe = replace(toy(width=12), evaluations=7)
    made = contender(name, recipe).recipe
    for part in ("name", "kind", "data", "network", "order", "evaluations", "training"):
        assert getattr(made, part) == getattr(recipe, part)


def test_transport_sees_labels_where_there_are_any() -> None:
    assert contender("flow-ot", toy()).recipe.objective.coupling == BatchOT()
    assert contender("flow-ot", images(width=8)).recipe.objective.coupling == Conditional(BatchOT())


def test_families_and_the_usual_ones() -> None:
    assert {side.family for side in CONTENDERS.values()} == {"flow", "diffusion", "hybrid", "simulated"}
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
        drawn = Sampler(other.recipe, Exact(other.recipe.objective)).draw(1_000, evaluations=100).states  # type: ignore[arg-type]
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
    assert all(contender(name, toy()).before is None for name in ("flow", "ddpm", "edm", "simulated"))


def test_what_shows_the_training_is_the_sampler_of_the_highest_order() -> None:
    for name, way in (("flow", "Adams-Bashforth 2"), ("ddpm", "DPM-Solver++ (2M)"), ("vp", "DPM-Solver++ (2M)")):
        side = contender(name, toy())
        assert side.accurate == side.ways[way]


def test_the_simulated_flow_is_one_of_few_dimensions() -> None:
    assert isinstance(contender("simulated", toy()).recipe.objective, SimulatedLikelihood)
    with pytest.raises(InputError, match="at most 16 numbers, these have 64"):
        contender("simulated", images(width=8))


def test_others_are_refused() -> None:
    with pytest.raises(InputError, match="there is no contender 'ddmp'; did you mean 'ddpm'"):
        contender("ddmp", toy())
    with pytest.raises(InputError, match="a comparison is one of matching, and toy has another objective"):
        contender("flow", replace(toy(), objective=SimulatedLikelihood(RK4())))

"""Counting what training and sampling cost, and what errors of the network do to samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rheos.compare import Contender, contender
from rheos.compare.cost import EVALUATIONS, SAMPLES, _Held, sampling_cost, training_cost
from rheos.compare.phases import Phase
from rheos.compare.stress import Perturbed, stressed
from rheos.nn import MLP
from rheos.recipes import Build, Recipe, Run, RunRef, lesson, toy
from rheos.solvers.plans import fingerprint

CPU = torch.device("cpu")


class Line(nn.Module):
    """One matrix, which is all that it costs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(2))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        return x @ self.weight


class Double(nn.Module):
    """Twice the state."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return 2 * x


def side(name: str = "flow", **training: int) -> Contender:
    plain = toy(width=8)
    network = plain.network if name in FEW else Build(Line)
    given = replace(plain.training, **{"batch": 32, **training})
    return contender(name, replace(plain, network=network, training=given))


def recipe(name: str = "flow") -> Recipe:
    return side(name).recipe


def phase(recipe: Recipe, folder: Path = Path("nowhere"), teacher: nn.Module | None = None) -> Phase:
    """A part of a training that is about to begin."""
    run = Run(folder, recipe, 0, {})
    if teacher is not None:
        run = replace(run, recipe=replace(recipe, teacher=RunRef("", fingerprint(teacher))))
    taught = lesson(run, recipe.kind.open(recipe.data.path), teacher)
    return Phase(run, taught, recipe.network(0))


FEW = ("shortcut", "lagrangian", "flow-to-lagrangian", "reflow")
SAMPLED = {"operations": 6_400.0, "joules": None}


def test_a_step_is_one_pass_and_its_products_are_counted() -> None:
    given = recipe()
    found = training_cost([phase(given)], SAMPLED, CPU)
    # Forward and the gradient of the weight, a product of (32, 2) and (2, 2) each; two operations a multiplication.
    assert (found["passes"], found["operations"]) == (1, 2 * 2 * 32 * 2 * 2)
    assert found == training_cost([phase(given)], SAMPLED, CPU)
    wide = replace(given, training=replace(given.training, batch=320))
    assert training_cost([phase(wide)], SAMPLED, CPU)["bytes"] > 5 * found["bytes"]


def test_a_pass_is_one_of_all_rows() -> None:
    """Off the diagonal a shortcut model is asked twice more, which a quarter of the rows are."""
    rows = 4_096
    found = training_cost([phase(side("shortcut", batch=rows).recipe)], SAMPLED, CPU)
    passes = found["passes"]
    assert passes is not None
    off = (passes - 1) / 2
    assert abs(off - 0.25) < 4 * (0.25 * 0.75 / rows) ** 0.5
    assert off * rows == round(off * rows)


def test_a_teacher_is_asked_too_and_its_weights_are_held() -> None:
    student = side("flow-to-lagrangian", batch=64).recipe
    teacher = toy(width=8).network(1)
    alone, taught = (training_cost([phase(student, teacher=who)], SAMPLED, CPU) for who in (None, teacher))
    # In place of the network's own average off the diagonal, and on every row of it besides.
    assert taught["passes"] == pytest.approx((alone["passes"] or 0) + 1)
    weights = sum(4 * each.numel() for each in teacher.parameters())
    assert (taught["bytes"] or 0) >= (alone["bytes"] or 0) + weights


@pytest.mark.parametrize(("name", "evaluations"), [("flow-to-lagrangian", 0), ("reflow", 67 * 32)])
def test_a_step_of_two_parts_costs_their_mean_with_what_was_made_between_them(
    name: str, evaluations: int, tmp_path: Path
) -> None:
    whole = side(name, steps=41)
    assert whole.before is not None
    teacher = whole.before.network(1)
    first, second = (replace(part.training, steps=count) for part, count in ((whole.before, 20), (whole.recipe, 21)))
    parts = [
        phase(replace(whole.before, training=first)),
        phase(replace(whole.recipe, training=second), tmp_path / "run", teacher),
    ]
    costs = [training_cost([part], SAMPLED, CPU) for part in parts]
    found = training_cost(parts, SAMPLED, CPU)
    passes, operations = ([cost[unit] or 0 for cost in costs] for unit in ("passes", "operations"))
    # Of each evaluation of the pairs, ten operations.
    assert found["passes"] == pytest.approx((20 * passes[0] + 21 * passes[1] + evaluations / 32) / 41)
    assert found["operations"] == pytest.approx((20 * operations[0] + 21 * operations[1] + evaluations * 10) / 41)
    assert (passes[0] == passes[1]) == (name == "reflow")
    assert found["bytes"] == max(cost["bytes"] or 0 for cost in costs)
    assert found["joules"] is None


def test_sampling_is_as_many_passes_as_evaluations() -> None:
    found = sampling_cost(recipe(), Line())
    assert found["operations"] == EVALUATIONS * 2 * SAMPLES * 2 * 2
    # Noise, a state and some rates live at once, not one for each step.
    assert found["bytes"] < 20 * SAMPLES * 2 * 4


def test_what_is_let_go_is_held_no_longer() -> None:
    with _Held([]) as held:
        for _ in range(5):
            x = torch.ones(1000)
            y = x * 2
            del x, y
    assert held.most == 8000
    with _Held([]) as held:
        kept = [torch.ones(1000) for _ in range(5)]
    assert held.most == 20_000
    view = kept[0][:10]
    with _Held([]) as held:
        view.reshape(2, 5)
    assert held.most == 4000


def test_noise_is_of_the_size_asked_for_and_fresh_each_time() -> None:
    x = torch.randn(2000, 3, generator=torch.Generator().manual_seed(1))
    noisy = Perturbed(Double(), 0.1)
    first, second = noisy(x, torch.tensor(0.5)) - 2 * x, noisy(x, torch.tensor(0.5)) - 2 * x
    scale = 0.1 * float((2 * x).square().mean().sqrt())
    assert float(first.std()) == pytest.approx(scale, rel=0.05)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05
    again = Perturbed(Double(), 0.1)
    assert torch.equal(again(x, torch.tensor(0.5)) - 2 * x, first)


def test_samples_move_in_proportion_to_the_error() -> None:
    found = stressed(recipe(), Line(), 64, 0)
    assert found["same seed, same bits"] is True
    small, large = found["noise of 1%"], found["noise of 5%"]
    assert 0 < small < 0.02
    assert large == pytest.approx(5 * small, rel=0.05)
    assert 0 < found["bfloat16"] < 0.05
    assert found == stressed(recipe(), Line(), 64, 0)


def test_a_map_errs_where_its_network_does_and_is_asked_as_often_as_a_flow() -> None:
    given = recipe("shortcut")
    network = given.network(0)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.1)
    found = stressed(given, network, 16, 0)
    assert found["same seed, same bits"] is True
    # The errors are those of the noise alone: as the end of a step is told with it and without.
    assert 0 < found["noise of 1%"] < 0.1
    assert found["noise of 5%"] == pytest.approx(5 * found["noise of 1%"], rel=0.1)
    plain = side().recipe
    assert given.network == Build(MLP, {**toy(width=8).network.options, "two_times": True})
    asked = [
        sampling_cost(each, net)["operations"] for each, net in ((given, network), (plain, toy(width=8).network(0)))
    ]
    # A map reads two times where a flow reads one.
    assert 1 < (asked[0] or 0) / (asked[1] or 1) < 1.5


@pytest.mark.parametrize("name", ["ddpm", "edm", "vp"])
def test_every_side_can_be_counted_and_stressed(name: str) -> None:
    given = recipe(name)
    assert training_cost([phase(given)], SAMPLED, CPU)["passes"] == 1
    assert sampling_cost(given, Line())["operations"] > 0
    assert stressed(given, Line(), 16, 0)["noise of 5%"] > 0

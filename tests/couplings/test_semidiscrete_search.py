"""The search for the best of many scores: dense, by a tree, and pruned, against all scores in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rheos.core import Rng
from rheos.couplings import Semidiscrete
from rheos.couplings.semidiscrete.blocks import Block, Exact, best, longest, rounding
from rheos.couplings.semidiscrete.dense import Dense
from rheos.couplings.semidiscrete.pruned import MARGIN, Pruned
from rheos.couplings.semidiscrete.tree import Tree
from rheos.objectives.sources import Normal
from support.clouds import images, noise


def nearest(points: Tensor, h: Tensor, x0: Tensor) -> Tensor:
    """The best of all scores in float64."""
    return torch.cat([(z.double() @ points.double().T + h).argmax(1) for z in x0.split(256)])


@pytest.mark.parametrize("block", [1 << 12, 1 << 16, 1 << 24])
@pytest.mark.parametrize(("count", "d"), [(1, 1), (5, 2), (1000, 7), (1031, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dense_search_finds_the_best(count: int, d: int, block: int, dtype: torch.dtype) -> None:
    points, h = images(count, d).to(dtype), noise(count, seed=1, dtype=torch.float64)
    z = noise(300, d, dtype=dtype)
    assert torch.equal(Dense(points, block).at(h)(z), nearest(points, h, z))


@pytest.mark.parametrize("d", [1, 2, 3])
def test_the_tree_finds_the_best(d: int) -> None:
    points, h, z = images(500, d), noise(500, seed=1, dtype=torch.float64), noise(1000, d)
    assert torch.equal(Tree(points).at(h)(z), nearest(points, h, z))


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("block", [1 << 14, 1 << 24])
def test_pruned_search_finds_the_best(half: bool, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.semidiscrete.pruned._fast_half", lambda: half)
    monkeypatch.setattr("rheos.couplings.semidiscrete.pruned.AXES", 24)
    points = images(4200, 160)
    h = -3.5 * (points - points.mean(0)).double().norm(dim=1) + noise(4200, seed=1, dtype=torch.float64)
    search = Pruned.of(points, block)
    assert search.pays
    assert search.places.shape[:2] == (4, 1056)
    assert search.places.dtype == (torch.bfloat16 if half else torch.float32)
    look, z = search.at(h), noise(1200, 160)
    found = look(z)
    assert torch.equal(found, nearest(points, h, z))
    assert len(found.unique()) > 300
    assert torch.equal(torch.cat([look(part) for part in z[:300].split(37)]), found[:300])


def test_what_pruning_leaves_out_is_known() -> None:
    """Every point stands in one place, and the axes of its leaf and ``rho`` make up its distance from the mean."""
    points = images(4200, 160)
    search = Pruned.of(points, 1 << 24)
    real = search.number >= 0
    assert search.number[real].sort().values.tolist() == list(range(4200))
    inside = (points - points.mean(0)) @ search.shared
    for leaf in range(4):
        rows = search.number[leaf][real[leaf]]
        off = inside[rows] - search.means[leaf]
        outside = (points - points.mean(0))[rows].square().sum(1) - inside[rows].square().sum(1)
        whole = off.square().sum(1) + outside
        seen = search.places[leaf, real[leaf], :-2].float().square().sum(1)
        assert torch.allclose(seen + search.rho[leaf, real[leaf]].square(), whole, rtol=0.02)
    assert bool((search.rho[real] > 0).all())
    assert bool((search.spare[real] > (MARGIN - 1) * search.rho[real]).all())
    assert not Pruned.of(noise(4200, 160), 1 << 24).pays


def test_the_search_suits_the_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rheos.couplings.semidiscrete.pruned.FEWEST", 1000)
    few, many, wide, alike = images(999, 160), images(1000, 10), images(1000, 160), noise(1000, 160)
    for half in (False, True):
        monkeypatch.setattr("rheos.couplings.semidiscrete.pruned._fast_half", lambda half=half: half)
        chosen = {
            "few": Semidiscrete()._search(few),
            "many": Semidiscrete()._search(many),
            "wide": Semidiscrete()._search(wide),
            "alike": Semidiscrete()._search(alike),
            "line": Semidiscrete()._search(many[:, :3]),
            "source": Semidiscrete(source=Normal())._search(wide),
        }
        assert {name: type(search) for name, search in chosen.items()} == {
            "few": Dense,
            "many": Pruned if half else Dense,
            "wide": Pruned,
            "alike": Dense,
            "line": Tree,
            "source": Dense,
        }


@pytest.mark.parametrize(("unit", "slack"), [(0.05, 0.0), (0.0, 0.2), (0.05, 0.2)])
def test_rounded_scores_lose_nothing(unit: float, slack: float) -> None:
    """Scores of 3 leaves of 64 points, coarse by a share of what is left after an offset, and by a slack."""
    points, h, z = noise(192, 4), noise(192, seed=1, dtype=torch.float64), noise(400, 4, seed=2)
    exact = points @ z.T + h.float()[:, None]
    offset = exact.amax(0) + 20 * noise(3, 400, seed=3)
    rest = exact.view(3, 2, 32, 400) - offset[:, None, None]
    off = 2 * Rng(4).uniform(3, 2, 32, 400) - 1
    coarse = rest + 0.99 * off * (unit * rest.abs() / (1 + unit) + slack / 2)
    number = torch.arange(192).view(3, 2, 32)
    halves = [Block(coarse[k], offset[k], torch.zeros(len(k), 2, 32), number[k], unit) for k in ([0], [1, 2])]
    found = best(iter(halves), Exact(points, h, z), torch.full((400,), slack), promising=2)
    assert torch.equal(found, nearest(points, h, z))


def test_scores_within_rounding_go_to_the_lowest_point() -> None:
    """A point in the middle of two others, with a score in the middle: three equal scores everywhere on a plane."""
    points = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    z = torch.stack([torch.zeros(50), noise(50)], 1)
    for h in (torch.zeros(3).double(), torch.full((3,), 1 / 3).double()):
        assert Dense(points, 1 << 12).at(h)(z).tolist() == [0] * 50


@pytest.mark.parametrize(("precision", "unit"), [("highest", 2.0**-23), ("high", 2.0**-11), ("medium", 2.0**-8)])
def test_slack_covers_the_precision_of_products(precision: str, unit: float) -> None:
    before = torch.get_float32_matmul_precision()
    points, z = images(500, 64), noise(100, 64)
    try:
        torch.set_float32_matmul_precision(precision)
        slack = rounding(longest(points), torch.zeros(500), z)
        found = Dense(points, 1 << 16).at(torch.zeros(500).double())(z)
    finally:
        torch.set_float32_matmul_precision(before)
    coarse = (z * (1 + unit)) @ points.T
    assert bool(((coarse - z.double() @ points.double().T).abs().amax(1) < 2 * slack + 1).all())
    assert bool((slack > unit * longest(points)).all())
    assert torch.equal(found, nearest(points, torch.zeros(500), z))

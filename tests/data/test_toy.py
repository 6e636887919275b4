import pytest
import torch

from rheos.core import Rng, ShapeError
from rheos.data import Tensors, checkerboard, eight_gaussians, moons, spirals

ALL = [moons, eight_gaussians, checkerboard, spirals]


@pytest.mark.parametrize("draw", ALL)
def test_mean_is_zero_and_variance_one(draw):
    x = draw(100_000, Rng(0))
    assert x.shape == (100_000, 2)
    assert x.dtype == torch.float32
    # Five standard errors of a mean of 100,000 is .016.
    assert x.mean(0).abs().max() < 0.016
    assert abs(x.var(0).mean() - 1) < 0.016


@pytest.mark.parametrize("draw", ALL)
def test_a_point_depends_on_seed_and_number_only(draw):
    x = draw(64, Rng(1))
    assert torch.equal(draw(16, Rng(1)), x[:16])
    assert torch.equal(draw(3, Rng(1).rows(torch.tensor([5, 2, 60]))), x[[5, 2, 60]])
    assert not torch.equal(draw(64, Rng(2)), x)
    assert len(x.unique(dim=0)) == 64


def test_eight_gaussians_are_eight_and_even():
    x = eight_gaussians(8000, Rng(0), noise=1e-4)
    angle = torch.atan2(x[:, 1], x[:, 0]) / (torch.pi / 4)
    assert (angle - angle.round()).abs().max() < 1e-2
    counts = torch.bincount((angle.round().long()) % 8, minlength=8)
    assert bool(((counts - 1000).abs() < 150).all())
    assert (x.norm(dim=1) - 2**0.5).abs().max() < 1e-2


def test_checkerboard_fills_every_second_cell():
    x = checkerboard(16_000, Rng(0))
    cell = (x / (3**0.5 / 2) + 2).floor().long()
    assert bool(((cell >= 0) & (cell <= 3)).all())
    assert bool((cell.sum(1) % 2 == 0).all())
    counts = torch.bincount(cell[:, 0] * 4 + cell[:, 1], minlength=16)
    assert int((counts > 0).sum()) == 8
    assert bool(((counts[counts > 0] - 2000).abs() < 220).all())


def test_moons_lie_on_two_half_circles():
    x = moons(5000, Rng(0), noise=0.0)
    # Up to the common factor, the moons are arcs of one radius about two centres that are (1, 1/2) apart.
    radius = (x[:, 0].max() - x[:, 0].min()) / 3
    first, second = torch.tensor([-0.5, -0.25]) * radius, torch.tensor([0.5, 0.25]) * radius
    on_first = ((x - first).norm(dim=1) - radius).abs() < 1e-2
    on_second = ((x - second).norm(dim=1) - radius).abs() < 1e-2
    assert bool((on_first | on_second).all())
    assert abs(int(on_first.sum()) - 2500) < 200
    assert x[on_first & ~on_second, 1].min() >= first[1] - 1e-2
    assert x[on_second & ~on_first, 1].max() <= second[1] + 1e-2


def test_spirals_wind_with_their_radius():
    x = spirals(5000, Rng(0), noise=0.0, turns=1.5)
    radius = x.norm(dim=1) / 2
    turned = torch.atan2(x[:, 1], x[:, 0]) / torch.pi - 3 * radius
    assert (turned - turned.round()).abs().max() < 1e-3
    assert abs((turned.round().long() % 2).float().mean() - 0.5) < 0.05


def test_tensors_take_rows_with_their_conditions():
    x = torch.arange(12.0).reshape(6, 2)
    data = Tensors(x, {"a": torch.arange(6), "b": -x})
    values, cond = data.take(torch.tensor([4, 1]))
    assert torch.equal(values, x[[4, 1]])
    assert isinstance(cond, dict)
    assert cond["a"].tolist() == [4, 1]
    assert torch.equal(cond["b"], -x[[4, 1]])
    assert len(data.subset(torch.tensor([0, 5]))) == 2
    assert Tensors(x).take(torch.tensor([0]))[1] is None


def test_tensors_fingerprint_sees_values_and_conditions():
    x = torch.arange(12.0).reshape(6, 2)
    prints = [
        Tensors(x).fingerprint,
        Tensors(x + 1).fingerprint,
        Tensors(x.reshape(3, 4)).fingerprint,
        Tensors(x, torch.arange(6)).fingerprint,
        Tensors(x, {"a": torch.arange(6)}).fingerprint,
        Tensors(x, {"b": torch.arange(6)}).fingerprint,
    ]
    assert len(set(prints)) == len(prints)
    assert Tensors(x.clone(), torch.arange(6)).fingerprint == prints[3]


def test_tensors_refuse_other_lengths():
    with pytest.raises(ShapeError, match="6 data but 5 rows"):
        Tensors(torch.zeros(6, 2), torch.arange(5))

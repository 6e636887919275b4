"""The exact mixture: density against SciPy, velocity by the continuity equation, score by differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rheos.core import InputError, Rng, ShapeError
from rheos.data.mixtures import GaussianMixture
from rheos.paths import Affine
from rheos.schedules import Cosine, Linear, Polynomial, Schedule, VarianceExploding, VariancePreserving

SCHEDULES = [Linear(), Cosine(), Polynomial(), VariancePreserving(), VarianceExploding(0.1, 3.0)]
WEIGHTS = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
MEANS = torch.tensor([[1.0, -0.5], [-1.0, 0.3], [0.2, 1.5]], dtype=torch.float64)
COVARIANCES = torch.tensor(
    [[[0.5, 0.2], [0.2, 0.3]], [[0.2, -0.1], [-0.1, 0.4]], [[0.1, 0.0], [0.0, 0.9]]], dtype=torch.float64
)


def mixture() -> GaussianMixture:
    return GaussianMixture(WEIGHTS, MEANS, COVARIANCES)


def marginal(schedule: Schedule, t: Tensor) -> GaussianMixture:
    """The distribution at time t, as a mixture again."""
    alpha, sigma = schedule(t)
    return GaussianMixture(
        WEIGHTS, alpha * MEANS, alpha**2 * COVARIANCES + sigma**2 * torch.eye(2, dtype=torch.float64)
    )


POINTS = Rng(5).normal(6, 2, dtype=torch.float64)


def test_the_density_is_that_of_scipy() -> None:
    expected = sum(
        float(w / WEIGHTS.sum()) * stats.multivariate_normal(m.numpy(), c.numpy()).pdf(POINTS.numpy())
        for w, m, c in zip(WEIGHTS, MEANS, COVARIANCES, strict=True)
    )
    np.testing.assert_allclose(mixture().log_prob(POINTS).numpy(), np.log(expected), rtol=1e-12)


@pytest.mark.parametrize("size", [1, 3, 16])
def test_the_density_in_other_dimensions(size: int) -> None:
    root = Rng(size).normal(2, size, size, dtype=torch.float64)
    covariances = root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64)
    means = Rng(size).fold(1).normal(2, size, dtype=torch.float64)
    x = Rng(size).fold(2).normal(4, size, dtype=torch.float64)
    got = GaussianMixture(torch.tensor([3.0, 1.0], dtype=torch.float64), means, covariances).log_prob(x)
    parts = [
        stats.multivariate_normal(m.numpy(), c.numpy()).logpdf(x.numpy())
        for m, c in zip(means, covariances, strict=True)
    ]
    np.testing.assert_allclose(
        got.numpy(), np.logaddexp(parts[0] + math.log(0.75), parts[1] + math.log(0.25)), rtol=1e-10
    )


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("time", [0.1, 0.5, 0.9])
def test_the_velocity_satisfies_the_continuity_equation(schedule: Schedule, time: float) -> None:
    """d log p/dt + div u + u . grad log p = 0 everywhere."""
    velocity = mixture().velocity(Affine(schedule))
    t, h = torch.tensor(time, dtype=torch.float64), 1e-5
    change = (marginal(schedule, t + h).log_prob(POINTS) - marginal(schedule, t - h).log_prob(POINTS)) / (2 * h)
    x = POINTS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(marginal(schedule, t).log_prob(x).sum(), x)
    jacobian = torch.func.vmap(torch.func.jacrev(lambda point: velocity(point[None], t)[0]))(POINTS)
    divergence = jacobian.diagonal(dim1=1, dim2=2).sum(1)
    balance = change + divergence + (velocity(POINTS, t) * slope).sum(1)
    torch.testing.assert_close(balance, torch.zeros_like(balance), rtol=0, atol=2e-6 * (1 + float(change.abs().max())))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("time", [0.0, 0.3, 0.8, 1.0])
def test_the_score_is_the_gradient_of_the_log_density(schedule: Schedule, time: float) -> None:
    t = torch.tensor(time, dtype=torch.float64)
    x = POINTS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(marginal(schedule, t).log_prob(x).sum(), x)
    torch.testing.assert_close(mixture().score(Affine(schedule))(POINTS, t), slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_fields_hold_at_both_ends(schedule: Schedule) -> None:
    for field in (mixture().velocity(Affine(schedule)), mixture().score(Affine(schedule))):
        for end, near in ((0.0, 1e-8), (1.0, 1 - 1e-8)):
            at = field(POINTS, torch.tensor(end, dtype=torch.float64))
            torch.testing.assert_close(at, field(POINTS, torch.tensor(near, dtype=torch.float64)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["velocity", "score"])
def test_a_clock_a_sample_is_each_samples_own(kind: str) -> None:
    field = getattr(mixture(), kind)(Affine(Cosine()))
    x, t = POINTS[:2], torch.tensor([0.2, 0.7], dtype=torch.float64)
    both = field(x, t, torch.tensor([1, 2]))
    for row in range(2):
        torch.testing.assert_close(both[row : row + 1], field(x[row : row + 1], t[row]), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(field(x, 0.2)[0], both[0], rtol=1e-7, atol=1e-7)
    with pytest.raises(ShapeError):
        field(POINTS, t)


def test_float32_stays_float32() -> None:
    mix = GaussianMixture(WEIGHTS.float(), MEANS.float(), COVARIANCES.float())
    x = POINTS.float()
    assert mix.sample(3, 1).dtype == torch.float32
    for field in (mix.velocity(Affine()), mix.score(Affine())):
        for t in (torch.tensor(0.5), torch.full((6,), 0.5), torch.full((6,), 0.5, dtype=torch.float64)):
            assert field(x, t).dtype == torch.float32
    torch.testing.assert_close(mix.log_prob(x).double(), mixture().log_prob(POINTS), rtol=1e-4, atol=1e-4)


def test_samples_have_the_mixtures_moments() -> None:
    count = 40_000
    x = mixture().sample(count, 3)
    share = WEIGHTS / WEIGHTS.sum()
    mean = (share[:, None] * MEANS).sum(0)
    spread = MEANS - mean
    covariance = (share[:, None, None] * (COVARIANCES + spread[:, :, None] * spread[:, None, :])).sum(0)
    assert float(((x.mean(0) - mean) / (covariance.diagonal() / count).sqrt()).abs().max()) < 4
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.04)
    # The rank of the density at its own samples knows the whole distribution, shape of each part included.
    nearest = (x[:, None] - MEANS).square().sum(-1).argmin(1)
    fresh = mixture().sample(count, 4)
    other = (fresh[:, None] - MEANS).square().sum(-1).argmin(1)
    assert stats.ks_2samp(mixture().log_prob(x).numpy(), mixture().log_prob(fresh).numpy()).pvalue > 1e-3
    assert stats.chi2_contingency([nearest.bincount().tolist(), other.bincount().tolist()]).pvalue > 1e-3
    entropy = -float(mixture().log_prob(x).mean())
    grid = torch.cartesian_prod(*(torch.linspace(-6, 6, 400, dtype=torch.float64),) * 2)
    p = mixture().log_prob(grid)
    assert entropy == pytest.approx(-float((p.exp() * p).sum()) * (12 / 399) ** 2, abs=0.02)


def test_narrow_parts_are_drawn_in_proportion() -> None:
    means = torch.tensor([[-10.0], [0.0], [10.0]], dtype=torch.float64)
    mix = GaussianMixture(torch.tensor([2.0, 1.0, 5.0]), means.float(), torch.full((3, 1, 1), 1e-4))
    counts = (mix.sample(8000, 1) / 10).round().long().flatten() + 1
    assert stats.chisquare(counts.bincount(minlength=3).numpy(), [2000, 1000, 5000]).pvalue > 1e-3


def test_a_sample_depends_on_its_row_alone() -> None:
    whole = mixture().sample(9, Rng(7))
    assert torch.equal(mixture().sample(4, 7), whole[:4])
    assert torch.equal(mixture().sample(2, Rng(7).rows(torch.tensor([5, 8]))), whole[[5, 8]])
    assert not torch.equal(mixture().sample(9, 8), whole)


def test_weights_count_relative_to_their_sum() -> None:
    torch.testing.assert_close(
        GaussianMixture(10 * WEIGHTS, MEANS, COVARIANCES).log_prob(POINTS),
        mixture().log_prob(POINTS),
        rtol=1e-13,
        atol=0,
    )
    assert float(mixture().weights.sum()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("weights", "means", "covariances"),
    [((2,), (3, 2), (3, 2, 2)), ((3,), (3,), (3, 2, 2)), ((3,), (3, 2), (3, 2)), ((3,), (3, 2), (3, 2, 3))],
)
def test_shapes_that_make_no_mixture_are_refused(weights: tuple, means: tuple, covariances: tuple) -> None:
    with pytest.raises(ShapeError) as caught:
        GaussianMixture(torch.ones(weights), torch.ones(means), torch.ones(covariances))
    assert f"{weights}, {means} and {covariances}" in str(caught.value)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan")])
def test_weights_are_positive(weight: float) -> None:
    with pytest.raises(InputError, match="weights of a mixture must be positive"):
        GaussianMixture(torch.tensor([1.0, weight]), torch.zeros(2, 1), torch.ones(2, 1, 1))


def test_covariances_are_positive_definite() -> None:
    for bad in (torch.diag(torch.tensor([1.0, 0.0])), torch.diag(torch.tensor([1.0, -1.0]))):
        with pytest.raises(InputError, match="positive definite"):
            GaussianMixture(torch.ones(2), torch.zeros(2, 2), torch.stack([torch.eye(2), bad]))


@pytest.mark.parametrize("shape", [(3,), (3, 3), (3, 2, 1)])
def test_points_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    calls: list[Callable[[Tensor], Tensor]] = [
        mixture().log_prob,
        lambda x: mixture().score(Affine())(x, torch.tensor(0.5)),
        lambda x: mixture().velocity(Affine())(x, torch.tensor(0.5)),
    ]
    for call in calls:
        with pytest.raises(ShapeError, match=r"points of this mixture are \(B, 2\)"):
            call(torch.zeros(shape, dtype=torch.float64))

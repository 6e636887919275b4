"""A learned interpolant: its ends, its derivative, its parameters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import testing
from rheos.core import InputError, Rng, ShapeError
from rheos.core.time import expand
from rheos.paths import Affine
from rheos.paths.learned import Correction, LearnedInterpolant
from rheos.recipes.serial import decode, encode
from rheos.schedules import Cosine, Linear
from rheos.schedules.learned import Learned

X0, X1 = Rng(1).normal(4, 3, dtype=torch.float64), Rng(2).normal(4, 3, dtype=torch.float64)


class Wave(nn.Module):
    """A phi for states and times of any shape."""

    def __init__(self, rate: float = 2.0) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(rate))

    def forward(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return torch.sin(x0 + self.rate * expand(t, x1) * x1).to(x1.dtype)


class Wrong(Wave):
    def forward(self, x0: Tensor, x1: Tensor, t: Tensor) -> Tensor:
        return x0[:, :1]


def bent(seed: int = 0, width: int = 8, **options: object) -> LearnedInterpolant:
    """A path whose every weight is far from zero, in float64."""
    path = LearnedInterpolant(Correction, {"shape": (3,), "width": width, **options})
    path.phi.double()
    with torch.no_grad():
        for k, parameter in enumerate(path.phi.parameters()):
            parameter.copy_(Rng(seed).fold(k).normal(*parameter.shape, dtype=torch.float64))
    return path


@pytest.mark.parametrize(
    "path",
    [
        LearnedInterpolant(Wave),
        LearnedInterpolant(Wave, {"rate": 3.0}, Cosine()),
        LearnedInterpolant(Wave, schedule=Learned()),
        Affine(Learned()),
    ],
)
def test_the_laws_of_a_path_hold(path: LearnedInterpolant | Affine) -> None:
    testing.check_path(path)


@pytest.mark.parametrize("width", [0, 8])
@pytest.mark.parametrize("degree", [0, 3])
def test_the_target_is_the_derivative_of_the_point(width: int, degree: int) -> None:
    path, t, step = bent(3, width, degree=degree), torch.tensor([0.0, 0.3, 0.8, 1.0], dtype=torch.float64), 1e-6
    ahead, behind = path.sample(X0, X1, t + step).x, path.sample(X0, X1, t - step).x
    torch.testing.assert_close(path.sample(X0, X1, t).target, (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Learned()])
def test_the_ends_are_exact_whatever_the_parameters(schedule: Linear | Cosine | Learned) -> None:
    for seed in range(3):
        path = LearnedInterpolant(Correction, {"shape": 3, "width": 8}, schedule=schedule)
        path.phi.load_state_dict(bent(seed).phi.state_dict())
        x0, x1 = X0.float(), X1.float()
        assert torch.equal(path.sample(x0, x1, torch.zeros(4)).x, x0)
        assert torch.equal(path.sample(x0, x1, torch.ones(4)).x, x1)
        assert torch.equal(path.prior(x0), x0)
        assert not torch.allclose(path.sample(x0, x1, torch.full((4,), 0.5)).x, (x0 + x1) / 2, atol=0.1)


def test_it_begins_on_its_schedule() -> None:
    t = torch.tensor([0.1, 0.4, 0.5, 0.9])
    for schedule in (Linear(), Cosine()):
        path = LearnedInterpolant(Correction, {"shape": (3,), "width": 8}, schedule=schedule)
        found, want = (p.sample(X0.float(), X1.float(), t) for p in (path, Affine(schedule)))
        assert torch.equal(found.x, want.x)
        assert torch.equal(found.target, want.target)


def test_the_matrices_are_a_schedule_of_matrices() -> None:
    # phi = (1 - t)*A x0 + t*(B x1 + m), by matrices that are written down here.
    path = LearnedInterpolant(Correction, {"shape": (2,), "degree": 1})
    a, b, m = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[0.5, 0.0], [3.0, 1.0]]), torch.tensor([1.0, -1.0])
    linear = path.phi.get_submodule("matrices")
    with torch.no_grad():
        linear.get_parameter("weight").copy_(
            torch.cat([torch.cat([a, torch.zeros(2, 2)], 1), torch.cat([torch.zeros(2, 2), b], 1)])
        )
        linear.get_parameter("bias").copy_(torch.cat([torch.zeros(2), m]))
    x0, x1, t = X0[:, :2].float(), X1[:, :2].float(), torch.tensor([0.2, 0.5, 0.7, 0.9])
    c = t[:, None]
    phi = (1 - c) * x0 @ a.T + c * (x1 @ b.T + m)
    torch.testing.assert_close(path.sample(x0, x1, t).x, c * x1 + (1 - c) * x0 + c * (1 - c) * phi)


def test_the_gradient_reaches_every_parameter_of_point_and_target() -> None:
    path, t = bent(1), torch.tensor([0.2, 0.5, 0.7, 0.9], dtype=torch.float64)
    parameters = list(path.phi.parameters())

    def total(part: str) -> Tensor:
        sample = path.sample(X0, X1, t)
        return (sample.x if part == "x" else sample.target).sin().sum()

    for part in ("x", "target"):
        gradients = torch.autograd.grad(total(part), parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            direction = Rng(5).normal(*parameter.shape, dtype=torch.float64)
            with torch.no_grad():
                values = []
                for step in (1e-6, -2e-6, 1e-6):
                    parameter.add_(direction, alpha=step)
                    values.append(float(total(part).detach()))
            slope = (values[0] - values[1]) / 2e-6
            assert float((gradient * direction).sum()) == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_weights_are_a_function_of_the_seed_alone() -> None:
    def weights(seed: int) -> Tensor:
        phi = LearnedInterpolant(Correction, {"shape": (3,), "width": 8}, seed=seed).phi
        return torch.cat([p.detach().flatten() for p in phi.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_it_can_be_rebuilt_from_plain_json() -> None:
    path = LearnedInterpolant(Correction, {"shape": (1, 2), "width": 4}, Learned(6), seed=7)
    again = decode(encode(path))
    assert again == path
    assert again.phi is not path.phi
    for got, want in zip(again.phi.parameters(), path.phi.parameters(), strict=True):
        assert torch.equal(got, want)
    assert list(path.learned) == ["phi", "schedule"]
    assert list(LearnedInterpolant(Wave).learned) == ["phi"]


def test_one_time_is_that_time_for_every_row_in_any_shape() -> None:
    path = LearnedInterpolant(Correction, {"shape": (1, 3)})
    x0, x1 = X0[:, None].float(), X1[:, None].float()
    one = path.sample(x0, x1, torch.tensor(0.3))
    many = path.sample(x0, x1, torch.tensor(0.3).expand(4))
    assert one.x.shape == (4, 1, 3)
    torch.testing.assert_close(one.x, many.x)
    torch.testing.assert_close(one.target, many.target)


def test_autocast_leaves_it_a_derivative() -> None:
    path, t = bent(2), torch.full((4,), 0.4, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = path.sample(X0, X1, t)
    torch.testing.assert_close(found.target, path.sample(X0, X1, t).target, rtol=0, atol=0)


def test_bad_input_is_refused() -> None:
    path = LearnedInterpolant(Correction, {"shape": (3,)})
    x, t = X0.float(), torch.full((4,), 0.5)
    with pytest.raises(ShapeError, match="one shape"):
        path.sample(x, x[:, :2], t)
    with pytest.raises(ShapeError, match="prefix"):
        path.sample(x, x, t[:3])
    with pytest.raises(ShapeError, match="this correction takes"):
        path.sample(x[:, :2], x[:, :2], t)
    with pytest.raises(ShapeError, match="this correction takes"):
        path.sample(x, x, t[:, None].expand(4, 3))
    with pytest.raises(ShapeError, match="phi must return"):
        LearnedInterpolant(Wrong).sample(x, x, t)
    with pytest.raises(InputError, match="class"):
        LearnedInterpolant(Wave())  # pyright: ignore[reportArgumentType]
    wrong: list[dict[str, Any]] = [
        {"shape": ()},
        {"shape": (0,)},
        {"shape": 2, "degree": -1},
        {"shape": 2, "width": 1, "depth": 0},
    ]
    for options in wrong:
        with pytest.raises(InputError, match="a correction needs"):
            Correction(**options)

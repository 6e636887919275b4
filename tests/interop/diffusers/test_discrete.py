"""Models of diffusers as flows, on stand-ins that are called as diffusers calls its own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import InputError, Rng, ShapeError
from rheos.interop import Foreign, discrete_schedule, foreign_flow
from rheos.objectives import Matching
from rheos.paths import Affine
from rheos.schedules import CosineBetas, Discrete, LinearBetas, ScaledBetas

PLAIN = {"beta_schedule": "linear", "num_train_timesteps": 100, "beta_start": 1e-3, "beta_end": 0.05}
X = Rng(1).normal(3, 2, 4, 4, dtype=torch.float64)


def scheduler(**config: Any) -> Any:
    return SimpleNamespace(config={**PLAIN, **config})


class Denoiser:
    """Called as diffusers' networks are; notes what it was given."""

    def __init__(self, channels: int = 1) -> None:
        self.channels, self.seen = channels, []

    def __call__(self, sample: Tensor, timestep: Tensor, return_dict: bool = True, **given: Any) -> tuple[Tensor]:
        assert not return_dict
        self.seen.append((timestep, given))
        return (torch.tanh(sample).repeat(1, self.channels, 1, 1),)


def test_the_network_is_told_its_step_and_its_condition() -> None:
    model = Denoiser()
    network = Foreign(model, Discrete(LinearBetas(100)))
    times = Discrete(LinearBetas(100)).time(torch.tensor([99, 40, 0]))
    torch.testing.assert_close(network(X, times), torch.tanh(X))
    torch.testing.assert_close(model.seen[0][0], torch.tensor([99.0, 40.0, 0.0], dtype=torch.float64))
    network(X, torch.tensor(0.5, dtype=torch.float64), torch.tensor([1, 2, 3]))
    assert model.seen[1][0].tolist() == pytest.approx([49, 49, 49])
    assert model.seen[1][1]["class_labels"].tolist() == [1, 2, 3]
    network(X, times, {"encoder_hidden_states": X})
    assert list(model.seen[2][1]) == ["encoder_hidden_states"]


def test_a_learned_variance_is_left_beside() -> None:
    network = Foreign(Denoiser(2), Discrete())
    torch.testing.assert_close(network(X, torch.tensor(0.5)), torch.tanh(X))
    with pytest.raises(ShapeError, match=r"Denoiser gave \(3, 6, 4, 4\) for states \(3, 2, 4, 4\)"):
        Foreign(Denoiser(3), Discrete())(X, torch.tensor(0.5))


@pytest.mark.parametrize(
    ("named", "predict"), [("epsilon", "noise"), ("v_prediction", "v"), ("sample", "data"), (None, "noise")]
)
def test_its_flow_is_that_of_matching(named: str | None, predict: Any) -> None:
    given = {} if named is None else {"prediction_type": named}
    flow, path = foreign_flow(Denoiser(), scheduler(**given))
    schedule = Discrete(LinearBetas(100, 1e-3, 0.05))
    assert path == Affine(schedule)
    own = Matching(path, predict=predict).dynamics(Foreign(Denoiser(), schedule))
    t = torch.tensor([0.0, 0.4, 0.9], dtype=torch.float64)
    torch.testing.assert_close(flow.rate(X, t), own.rate(X, t))
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    ours, theirs = flow.determined(ends), own.determined(ends)
    assert ours is not None
    assert theirs is not None
    assert ours.tolist() == theirs.tolist()
    assert flow.independent


def test_betas_are_read_off_the_configuration() -> None:
    assert discrete_schedule(scheduler()).betas == LinearBetas(100, 1e-3, 0.05)
    assert discrete_schedule(scheduler(beta_schedule="scaled_linear")).betas == ScaledBetas(100, 1e-3, 0.05)
    assert discrete_schedule(scheduler(beta_schedule="squaredcos_cap_v2")).betas == CosineBetas(100)


def test_what_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="no scheduler of a discrete diffusion"):
        discrete_schedule(SimpleNamespace(config={"shift": 3.0}))
    with pytest.raises(InputError, match="'sigmoid' are not known; Known: linear"):
        discrete_schedule(scheduler(beta_schedule="sigmoid"))
    for config in ({"trained_betas": [0.1, 0.2]}, {"rescale_betas_zero_snr": True}):
        with pytest.raises(InputError, match="given one by one, or rescaled"):
            discrete_schedule(scheduler(**config))
    with pytest.raises(InputError, match="this model predicts 'flow_prediction'"):
        foreign_flow(Denoiser(), scheduler(prediction_type="flow_prediction"))

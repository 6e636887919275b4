"""A run small enough to train whole in a test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos import nn, objectives, training
from rheos.core import Rng
from rheos.data import Shuffled, Tensors

COUNT = 40


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data() -> Tensors:
    """Forty points of three numbers in four classes."""
    return Tensors(Rng(1).rows(torch.arange(COUNT)).normal(3), torch.arange(COUNT) % 4)


@pytest.fixture
def numbers() -> dict[str, Any]:
    """Settings of a short run; tests change what they are about."""
    return {
        "steps": 24,
        "batch": 8,
        "warmup": 0.1,
        "log_every": 5,
        "sample_every": 0,
        "checkpoint_every": 10,
        "snapshots": 2,
    }


@pytest.fixture
def network() -> Callable[[], nn.MLP]:
    """The same fresh network each time."""

    def make(dropout: float = 0.0) -> nn.MLP:
        with nn.seeded(2):
            return nn.MLP(3, 12, 2, classes=4, dropout=dropout)

    return make


@pytest.fixture
def train(data: Tensors, numbers: dict[str, Any], network: Callable[..., nn.MLP]) -> Callable[..., training.Fitted]:
    """``train(out, **changes)``: the run, with other settings or arguments."""

    def go(out: Path, **changes: Any) -> training.Fitted:
        fields = training.Training.__dataclass_fields__
        settings = training.Training(**{**numbers, **{k: v for k, v in changes.items() if k in fields}})
        given = {k: v for k, v in changes.items() if k not in fields}
        net = given.pop("network", None) or network()
        dataset = given.pop("dataset", data)
        objective = given.pop("objective", objectives.Matching())
        arguments: dict[str, Any] = {"seed": 3, "out": out, "progress": False, "forecast": False, **given}
        return training.fit(net, objective, dataset, Shuffled(len(dataset)), settings, **arguments)

    return go


@pytest.fixture
def weights() -> Callable[[torch.nn.Module], Tensor]:
    """All weights of a module as one vector."""
    return lambda module: torch.cat([p.detach().flatten() for p in module.parameters()])

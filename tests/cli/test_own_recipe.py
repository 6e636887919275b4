"""A recipe in a module of one's own trains by its name, and its run is sampled by those who trust the module."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

MODULE = '''
"""Points on a ring."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from rheos import objectives, solvers
from rheos.core import Rng
from rheos.data import Shuffled, Tensors
from rheos.evaluation import measure_points
from rheos.recipes import Build, DataRef, Kind, Recipe, Splits
from rheos.training import Training


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, t, cond=None):
        return self.layers(torch.cat([x, t.expand(len(x))[:, None]], 1))


@dataclass(frozen=True)
class Ring(Kind):
    @property
    def shape(self):
        return (2,)

    @property
    def endings(self):
        return (".npz",)

    def open(self, path):
        turn = 6.2831853 * Rng(0).rows(torch.arange(200)).uniform()
        points = torch.stack([turn.cos(), turn.sin()], 1)
        training = Tensors(points[:100])
        return Splits(training, Tensors(points[100:]), training.fingerprint)

    def read(self, values, rng):
        return values

    def write(self, states, labels, file):
        np.savez(file, samples=states.numpy())

    def measure(self, generate, splits, count, folder, weights=None):
        real, _ = splits.held_out.take(torch.arange(100))
        drawn, chosen = generate.curve(None, count, (5,))
        return measure_points(drawn, chosen, real, Rng(0))


def ring(width: int = 8) -> Recipe:
    kind = Ring()
    return Recipe(
        name="ring",
        kind=kind,
        data=DataRef(None, kind.open(None).fingerprint, 100),
        network=Build(Net, {"width": width}),
        objective=objectives.Matching(),
        order=Shuffled(100),
        solver=solvers.Heun(),
        grid=solvers.grids.Uniform(),
        evaluations=8,
        guidance=None,
        training=Training(steps=20, batch=16, sample_every=0),
    )


def other():
    return 3


def lazy(width: int = 8) -> Recipe:
    from dataclasses import replace

    return replace(ring(width), order=lambda seed, rows: None)
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of the user's own, which Python finds."""
    (tmp_path / "ringed").mkdir()
    (tmp_path / "ringed" / "__init__.py").write_text("")
    (tmp_path / "ringed" / "ring.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    for name in ("ringed", "ringed.ring"):
        sys.modules.pop(name, None)


def forget() -> None:
    """As in a process that has not trained."""
    for name in ("ringed", "ringed.ring"):
        sys.modules.pop(name, None)


def test_it_trains_and_is_sampled_by_those_who_trust_it(rheos: Any, package: Path) -> None:
    run = package / "run"
    rheos.done("train", "ringed.ring:ring", "--steps", 10, "--width", 4, "--out", run)
    assert json.loads((run / "run.json").read_text())["recipe"]["kind"] == {"class": "ringed.ring:Ring"}
    forget()
    before = rheos.prints(run)
    for command in ("sample", "evaluate"):
        said = rheos.refused(command, run)
        assert "outside rheos, 'ringed.ring:Ring', which is not run" in said
        assert "--trust ringed.ring" in said
    assert "ringed.ring" not in sys.modules
    assert rheos.prints(run) == before
    # Trust is in a module, not in all that its package holds.
    assert "which is not run" in rheos.refused("sample", run, "--trust", "ringed")
    ended = rheos.done("sample", run, "--n", 5, "--trust", "ringed.ring", "--out", package / "x.npz")
    assert "8 evaluations" in ended.out
    assert np.load(package / "x.npz")["samples"].shape == (5, 2)
    rheos.done("evaluate", run, "--n", 20, "--trust", "ringed.ring")


def test_the_training_command_trusts_the_module_that_it_names(rheos: Any, package: Path) -> None:
    words = ("train", "ringed.ring:ring", "--steps", 10, "--out", package / "run")
    rheos.done(*words)
    forget()
    assert "were taken before" in rheos.done(*words).out
    assert "network.options.width is 8" in rheos.refused(*words, "--width", 4)
    assert "is a run of the recipe 'ringed.ring:ring', not of 'toy'" in rheos.refused(
        "train", "toy", "--out", package / "run", "--trust", "ringed.ring"
    )


def test_a_module_beside_the_command_is_found(rheos: Any, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", sys.path[1:])
    monkeypatch.chdir(package)
    rheos.done("train", "ringed.ring:ring", "--steps", 5, "--out", "run")
    forget()
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(package)])
    rheos.done("sample", "run", "--n", 2, "--trust", "ringed.ring", "--out", "x.npz")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ringed.ring:rnig", "has no attribute 'rnig'"),
        ("ringed.rign:ring", "No module named 'ringed.rign'"),
        ("ringed.ring:other", "must return a rheos.recipes.Recipe, it returned int"),
        ("ringed.ring:lazy", "Put what it does into a frozen dataclass"),
    ],
)
def test_what_is_no_recipe_is_refused(rheos: Any, package: Path, name: str, said: str) -> None:
    assert said in rheos.refused("train", name, "--out", package / "run")
    assert not (package / "run").exists()


def test_options_that_it_does_not_have_are_refused(rheos: Any, package: Path) -> None:
    said = rheos.refused("train", "ringed.ring:ring", "--data", "x", "--out", package / "run")
    assert "has no --data" in said

"""A run whose coupling joins ahead is the same run whoever joins, and however often it stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from rheos.core import CheckpointError, InputError, Pairs, Rng, ShapeError
from rheos.couplings import BatchOT, PairStore
from rheos.data import Tensors
from rheos.objectives import Matching
from rheos.training import Fitted, feed

Train = Callable[..., Fitted]
Weights = Callable[[torch.nn.Module], Tensor]

PLAIN = Tensors(Rng(1).rows(torch.arange(40)).normal(3))


class Spread:
    """A coupling of the whole dataset: noise goes to the datum that its first entry is nearest to."""

    independent = False

    def __init__(self, centres: Tensor | None = None) -> None:
        self.centres = centres

    @property
    def fitted(self) -> bool:
        return self.centres is not None

    def fit(self, data: Tensor, cond: Any, rng: Rng) -> Spread:
        FITS.append(len(data))
        return Spread(data[:, 0].clone())

    def assign(self, x0: Tensor, cond: Any = None) -> Tensor:
        assert self.centres is not None
        return (x0[:, :1] - self.centres).abs().argmin(1)

    def tensors(self) -> dict[str, Tensor]:
        assert self.centres is not None
        return {"centres": self.centres}

    def restored(self, data: Tensor, cond: Any, tensors: dict[str, Tensor]) -> Spread:
        if len(data) != len(tensors["centres"]):
            raise ShapeError("these centres are of other data")
        return Spread(tensors["centres"])

    def __call__(self, x0: Tensor, x1: Tensor, cond: Any = None, rng: Any = None) -> Pairs[Tensor]:
        j = self.assign(x0)
        return Pairs(x0, x1[j], torch.arange(len(x0)), j)


FITS: list[int] = []


@pytest.mark.parametrize("coupling", [BatchOT(), PairStore(BatchOT()), Spread()])
def test_who_joins_and_when_it_stops_changes_nothing(
    tmp_path: Path, train: Train, weights: Weights, coupling: Any
) -> None:
    given = {"objective": Matching(coupling=coupling), "dataset": PLAIN, "pairs": 12}
    here = train(tmp_path / "here", couplers=0, **given)
    ahead = train(tmp_path / "ahead", couplers=2, workers=1, accumulate=2, **given)
    torch.testing.assert_close(weights(ahead.network), weights(here.network), rtol=0, atol=1e-6)
    train(tmp_path / "cut", couplers=0, steps=13, decay="constant", **given)
    whole = train(tmp_path / "whole", couplers=1, decay="constant", warmup=0.1 * 13 / 24, **given)
    late = train(tmp_path / "cut", couplers=1, decay="constant", warmup=0.1 * 13 / 24, **given)
    assert late.step == whole.step == 24
    assert torch.equal(weights(late.network), weights(whole.network))
    independent = train(tmp_path / "independent", dataset=PLAIN)
    assert float((weights(independent.network) - weights(here.network)).abs().max()) > 1e-4


def test_joining_straightens_what_is_learned(tmp_path: Path, train: Train) -> None:
    def loss(out: Path) -> float:
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        return sum(line["loss"] for line in lines) / len(lines)

    train(tmp_path / "plain", dataset=PLAIN)
    train(tmp_path / "ot", dataset=PLAIN, objective=Matching(coupling=BatchOT()), couplers=0)
    assert loss(tmp_path / "ot") < 0.7 * loss(tmp_path / "plain")


def test_a_coupling_of_the_dataset_is_fitted_once_and_kept(
    tmp_path: Path, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    FITS.clear()
    given = {"objective": Matching(coupling=Spread()), "dataset": PLAIN, "couplers": 0}
    train(tmp_path, steps=10, decay="constant", warmup=0.0, progress=True, **given)
    assert "coupling: being fitted to all 40 data, once for this run" in capsys.readouterr().err
    train(tmp_path, decay="constant", warmup=0.0, **given)
    assert FITS == [40]
    with pytest.raises(CheckpointError, match="was fitted to other data: these centres are of other data"):
        train(tmp_path, **{**given, "dataset": Tensors(PLAIN.x[:30])}, steps=30)
    file = tmp_path / "fitted" / "coupling.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"coupling\.safetensors is damaged"):
        train(tmp_path, **given, steps=30)


def test_kept_pairs_that_are_damaged_are_joined_again(
    tmp_path: Path,
    train: Train,
    weights: Weights,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Noise is drawn step by step, so that no epoch is asked for before its time.
    monkeypatch.setattr(feed, "BLOCK_NUMBERS", 1)
    given = {"objective": Matching(coupling=PairStore(BatchOT())), "dataset": PLAIN, "couplers": 0, "pairs": 12}
    constant = {"decay": "constant", "warmup": 0.0}
    whole = train(tmp_path / "whole", **given, **constant)
    train(tmp_path / "cut", **given, **constant, steps=12)
    versions = sorted((tmp_path / "cut" / "pairs").iterdir())
    assert [file.name for file in versions] == ["version-000002", "version-000003"]
    for file in versions:
        content = bytearray(file.read_bytes())
        content[40] ^= 4
        file.write_bytes(content)
    late = train(tmp_path / "cut", **given, **constant)
    assert "version-000003 is damaged; its pairs are joined again" in caplog.text
    assert torch.equal(weights(late.network), weights(whole.network))


def test_a_run_tells_what_its_coupling_does(
    tmp_path: Path, train: Train, data: Tensors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rheos.couplings.ignored._warned", set())
    train(tmp_path / "ot", dataset=PLAIN, objective=Matching(coupling=BatchOT()), couplers=0, steps=2)
    told = json.loads((tmp_path / "ot" / "coupling.json").read_text())
    assert told["cost_ratio"] < 0.8
    assert abs(told["chi_squared"]) < 1e-12
    assert (told["uniqueness"], told["gap"], told["leakage"]) == (1, 0, None)
    # With labels the warning is given here, not in a worker whose words nobody reads.
    with pytest.warns(UserWarning, match=r"ignores the condition|Conditional"):
        train(tmp_path / "labels", objective=Matching(coupling=BatchOT()), steps=2)
    assert json.loads((tmp_path / "labels" / "coupling.json").read_text())["leakage"] is not None
    train(tmp_path / "plain", dataset=PLAIN, steps=2)
    assert not (tmp_path / "plain" / "coupling.json").exists()


def test_more_pairs_than_data_are_refused(tmp_path: Path, train: Train) -> None:
    with pytest.raises(InputError, match="pairs = 41 asks for more than the 40 data there are"):
        train(tmp_path, objective=Matching(coupling=BatchOT()), dataset=PLAIN, pairs=41)
    # Without a coupling the number has no meaning.
    train(tmp_path, dataset=PLAIN, pairs=41)


def test_a_store_of_pairs_keeps_no_coupling_of_a_dataset() -> None:
    with pytest.raises(InputError, match="Spread gives every noise its datum"):
        PairStore(Spread(torch.zeros(3)))
    with pytest.raises(InputError, match="0 or more rounds"):
        PairStore(BatchOT(), rounds=-1)
    with pytest.raises(InputError, match="every = -1"):
        PairStore(BatchOT(), every=-1)

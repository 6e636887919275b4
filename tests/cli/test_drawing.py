"""``rheos sample``: the same request gives the same samples, in every form, without the data."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rheos.cli.parts import SOLVERS, TABLES, with_sampling
from rheos.cli.train import trained_network
from rheos.recipes import Run, Sampler


@pytest.fixture(scope="module")
def labelled(trained: Callable[..., Path]) -> Path:
    return trained("images", "--net", "mlp")


@pytest.mark.parametrize("words", [("toy",), ("images", "--net", "mlp"), ("images", "--net", "unet")])
def test_twice_is_equal_bit_by_bit(rheos: Any, trained: Callable[..., Path], tmp_path: Path, words: Any) -> None:
    run = trained(*words)
    for name in ("a.npz", "b.npz"):
        rheos.done("sample", run, "--n", 64, "--steps", 10, "--seed", 7, "--out", tmp_path / name)
    rheos.done("sample", run, "--n", 64, "--steps", 10, "--seed", 8, "--out", tmp_path / "c.npz")
    a, b, c = (np.load(tmp_path / name)["samples"] for name in ("a.npz", "b.npz", "c.npz"))
    assert len(a) == 64
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize("net", ["unet", "dit", "mlp"])
def test_batches_of_64_16_and_1_agree(trained: Callable[..., Path], net: str) -> None:
    run = Run.open(trained("images", "--net", net))
    network = trained_network(run, "cpu")
    whole, some, single = (Sampler(run.recipe, network, 7, batch).draw(64, steps=10).states for batch in (64, 16, 1))
    torch.testing.assert_close(some, whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-5)


def test_a_compiled_network_draws_the_same(
    rheos: Any, toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[torch.nn.Module] = []
    eager = torch.nn.Module.compile

    def compile_eagerly(module: torch.nn.Module) -> None:
        compiled.append(module)
        eager(module, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch.nn.Module, "compile", compile_eagerly)
    torch.compiler.reset()
    for name, words in (("a.npz", ()), ("b.npz", ("--compile",))):
        rheos.done("sample", toy, "--n", 5, "--seed", 7, *words, "--out", tmp_path / name)
    assert len(compiled) == 1
    a, b = (np.load(tmp_path / name)["samples"] for name in ("a.npz", "b.npz"))
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_samples(rheos: Any, labelled: Path, tmp_path: Path, solver: str) -> None:
    ended = rheos.done("sample", labelled, "--n", 3, "--solver", solver, "--out", tmp_path / "x.npz")
    assert np.load(tmp_path / "x.npz")["samples"].shape == (3, 8, 8, 1)
    assert ended.out.startswith("3 samples in ")
    assert ended.err == ""


@pytest.mark.parametrize("grid", TABLES["grid"])
def test_every_grid_samples(rheos: Any, labelled: Path, tmp_path: Path, grid: str) -> None:
    rheos.done("sample", labelled, "--n", 2, "--grid", grid, "--out", tmp_path / "x.npz")
    rheos.done("sample", labelled, "--n", 2, "--grid", grid, "--steps", 1, "--out", tmp_path / "x.npz")


def test_restarts_are_those_of_a_map(rheos: Any, labelled: Path, tmp_path: Path) -> None:
    refused = rheos.refused("sample", labelled, "--noise", "restarts", "--out", tmp_path / "x.npz")
    assert "which takes a flow map, got a Flow" in refused


@pytest.mark.parametrize("noise", [name for name in TABLES["noise"] if name != "restarts"])
def test_every_noise_samples(rheos: Any, labelled: Path, tmp_path: Path, noise: str) -> None:
    drawn = []
    for name in ("none", noise, noise):
        rheos.done("sample", labelled, "--n", 4, "--noise", name, "--solver", "euler", "--out", tmp_path / "x.npz")
        drawn.append(np.load(tmp_path / "x.npz")["samples"])
    assert np.array_equal(drawn[1], drawn[2])
    # On straight lines DDIM is Euler on the flow.
    same = np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1
    assert same == (noise in ("none", "ddim"))


def test_parts_asked_for_are_used(labelled: Path) -> None:
    recipe = Run.open(labelled).recipe
    changed = with_sampling(recipe, {"solver": "heun", "grid": "cosine", "guidance": 0.0})
    assert type(changed.solver).__name__ == "Heun"
    assert type(changed.grid).__name__ == "Cosine"
    # Scale 0 asks for no class at all, which is not the same as no guidance.
    assert type(changed.guidance).__name__ == "ClassifierFree"
    assert with_sampling(changed, {"guidance": 1.0}).guidance is None


@pytest.mark.parametrize(
    ("words", "cost"),
    [
        ((), "10 evaluations (10 network passes)"),
        (("--steps", 4), "4 evaluations (4 network passes)"),
        (("--evaluations", 7, "--solver", "heun"), "6 evaluations (6 network passes)"),
        (("--steps", 3, "--solver", "rk4"), "12 evaluations (12 network passes)"),
        (("--steps", 4, "--guidance", 3), "4 evaluations (8 network passes)"),
        (("--steps", 4, "--guidance", 1), "4 evaluations (4 network passes)"),
        (("--evaluations", 8, "--guidance", 0), "8 evaluations (16 network passes)"),
        (("--steps", 4, "--guidance", 3, "--zero-star"), "4 evaluations (8 network passes)"),
    ],
)
def test_what_a_sample_costs(rheos: Any, labelled: Path, tmp_path: Path, words: Any, cost: str) -> None:
    assert cost in rheos.done("sample", labelled, "--n", 2, *words, "--out", tmp_path / "x.npz").out


def test_guidance_changes_samples(rheos: Any, labelled: Path, tmp_path: Path) -> None:
    scales = (0, 1, 4)
    for scale in scales:
        rheos.done("sample", labelled, "--n", 8, "--guidance", scale, "--out", tmp_path / f"{scale}.npz")
    found = [np.load(tmp_path / f"{scale}.npz")["samples"].astype(int) for scale in scales]
    assert not np.array_equal(found[0], found[1])
    assert not np.array_equal(found[1], found[2])


def test_forms_of_images(rheos: Any, labelled: Path, tmp_path: Path) -> None:
    for name in ("x.png", "x.npz", "x"):
        rheos.done("sample", labelled, "--n", 12, "--out", tmp_path / name)
    stored = np.load(tmp_path / "x.npz")
    assert stored["samples"].dtype == np.uint8
    assert stored["labels"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    files = sorted(p.relative_to(tmp_path / "x") for p in (tmp_path / "x").rglob("*.png"))
    assert len(files) == 12
    for number, label in enumerate(stored["labels"]):
        with Image.open(tmp_path / "x" / str(label) / f"{number:05d}.png") as image:
            assert np.array_equal(np.asarray(image), stored["samples"][number, ..., 0])
    with Image.open(tmp_path / "x.png") as sheet:
        # A column a class: magnified to 32 pixels, with 2 between.
        assert sheet.size == (10 * 34 + 2, 2 * 34 + 2)


def test_forms_of_points(rheos: Any, toy: Path, tmp_path: Path) -> None:
    for name in ("x.png", "x.npz", "x.csv"):
        rheos.done("sample", toy, "--n", 12, "--out", tmp_path / name)
    rheos.done("sample", toy, "--n", 12)
    assert (toy / "samples.png").read_bytes() == (tmp_path / "x.png").read_bytes()
    points = np.load(tmp_path / "x.npz")["samples"]
    with (tmp_path / "x.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[0] == ["x", "y"]
    assert np.allclose(np.array(lines[1:], float), points, atol=1e-6)


def test_labels_by_name_and_number(rheos: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (tmp_path / "x" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 255, (8, 8), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "x" / name / f"{number}.png")
    run = tmp_path / "run"
    rheos.done("train", "images", "--net", "mlp", *rheos.small, "--data", tmp_path / "x", "--out", run)
    # Sampling needs the run folder only.
    shutil.rmtree(tmp_path / "x")
    rheos.done("sample", run, "--n", 5, "--label", "owl", 0, "--out", tmp_path / "y.npz")
    assert np.load(tmp_path / "y.npz")["labels"].tolist() == [2, 0, 2, 0, 2]
    rheos.done("sample", run, "--n", 4, "--out", tmp_path / "z")
    assert sorted(p.name for p in (tmp_path / "z").iterdir()) == ["cat", "dog", "owl"]
    said = rheos.refused("sample", run, "--label", "dgo", "--out", tmp_path / "q.npz")
    assert "there is no class 'dgo'; did you mean 'dog'?" in said
    for name in ("3", "-1", "²"):
        assert f"there is no class {name!r}" in rheos.refused("sample", run, "--label", name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "x.gif"), "ends in '.gif'; this kind of data is written as .png, .npz, a folder"),
        (("--out", "none/x.png"), "the folder none does not exist"),
        (("--out", "full"), "is not an empty folder"),
        (("--out", "dir.png"), "is a folder, a .png file was asked for"),
        (("--label", "x"), "there is no class 'x'"),
        (("--label", "10"), "there is no class '10'"),
        (("--n", 0), "--n must be at least 1"),
        (("--steps", 0), "--steps must be at least 1"),
        (("--evaluations", 0), "--evaluations must be at least 1"),
        (("--batch", 0), "at least one sample, got batch = 0"),
        (("--steps", 2, "--evaluations", 2), "not both"),
        (("--steps", "two"), "invalid int value: 'two'"),
        (("--solver", "huen"), "there is no solver 'huen'; did you mean 'heun'?"),
        (("--grid", "cosin"), "there is no grid 'cosin'; did you mean 'cosine'?"),
        (("--solver", "rk4", "--evaluations", 3), "takes 4 evaluations"),
        (("--solver", "dopri5", "--evaluations", 30), "as many evaluations as its tolerances need"),
        (("--zero-star",), "give --guidance X with it"),
        (("--guidance", "nan"), "finite number"),
        (("--device", "tpu"), "there is no device 'tpu'"),
        (("--device", "meta"), "there is no device 'meta'"),
        (("--device", "cuda:99"), "there is no device 'cuda:99'"),
        (("--sovler", "heun"), "cannot use '--sovler'; did you mean --solver?"),
    ],
)
def test_requests_that_cannot_be_met(
    rheos: Any, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: Any, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("full", "dir.png"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "keep").write_text("kept")
    before = rheos.prints(tmp_path)
    assert said in rheos.refused("sample", digits, *words)
    assert rheos.prints(tmp_path) == before


def test_a_run_without_classes(rheos: Any, toy: Path) -> None:
    assert "has no classes" in rheos.refused("sample", toy, "--guidance", 2)
    assert "has no classes" in rheos.refused("sample", toy, "--label", 1)
    rheos.done("sample", toy, "--guidance", 1)


def test_foreign_code_is_named(rheos: Any, toy: Path) -> None:
    stored = json.loads((toy / "run.json").read_text())
    stored["recipe"]["kind"] = {"class": "stranger.module:Kind"}
    (toy / "run.json").write_text(json.dumps(stored))
    before = rheos.prints(toy)
    for command in (("sample", toy), ("evaluate", toy), ("train", "toy", "--out", toy)):
        said = rheos.refused(*command)
        assert "'stranger.module:Kind', which is not run" in said
        assert "--trust stranger.module" in said
    assert "No module named" in rheos.refused("sample", toy, "--trust", "stranger.module")
    assert rheos.prints(toy) == before


class TestDamage:
    def flip(self, file: Path) -> None:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)

    def test_the_checkpoint_before_a_damaged_one_is_used(self, rheos: Any, toy: Path, tmp_path: Path) -> None:
        shutil.copytree(toy, tmp_path / "short")
        shutil.rmtree(tmp_path / "short" / "checkpoints" / "step-000020")
        self.flip(toy / "checkpoints" / "step-000020" / "ema.safetensors")
        before = rheos.prints(toy / "checkpoints")
        ended = rheos.done("sample", toy, "--out", tmp_path / "a.npz")
        assert ended.err.startswith("rheos: ")
        assert ended.err.count("\n") == 1
        assert "step-000020/ema.safetensors is damaged" in ended.err
        rheos.done("sample", tmp_path / "short", "--out", tmp_path / "b.npz")
        assert np.array_equal(np.load(tmp_path / "a.npz")["samples"], np.load(tmp_path / "b.npz")["samples"])
        assert rheos.prints(toy / "checkpoints") == before

    def test_when_all_are_damaged_each_is_named(self, rheos: Any, toy: Path) -> None:
        for folder in (toy / "checkpoints").iterdir():
            self.flip(folder / "ema.safetensors")
        before = rheos.prints(toy)
        for command in (("sample", toy), ("train", "toy", "--out", toy)):
            ended = rheos(*command)
            assert ended.code == 2
            last = ended.err.splitlines()[-1]
            assert last.startswith("rheos: every checkpoint under")
            assert all(f"step-0000{step}/ema.safetensors is damaged" in last for step in ("00", "10", "20"))
            assert all(line.startswith("rheos: ") for line in ended.err.splitlines())
        assert rheos.prints(toy) == before

    def test_weights_of_another_network(self, rheos: Any, toy: Path) -> None:
        stored = json.loads((toy / "run.json").read_text())
        stored["recipe"]["network"]["options"]["width"] = 12
        (toy / "run.json").write_text(json.dumps(stored))
        assert "is of another network" in rheos.refused("sample", toy)

    def test_no_checkpoint_yet(self, rheos: Any, toy: Path) -> None:
        shutil.rmtree(toy / "checkpoints")
        assert "has no checkpoint; train it first" in rheos.refused("sample", toy)

    def test_no_run(self, rheos: Any, tmp_path: Path) -> None:
        for command in ("sample", "evaluate"):
            assert "is no run folder" in rheos.refused(command, tmp_path / "none")

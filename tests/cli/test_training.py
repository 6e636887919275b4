"""``rheos train``: a run is made, gone on with, refused when the command describes another, and started from others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from rheos.cli.parts import TABLES
from rheos.objectives import Matching
from rheos.paths import Affine
from rheos.recipes import Run
from rheos.schedules import Cosine


def weights(run: Path, step: int, part: str = "ema") -> dict[str, Any]:
    tensors = load_file(run / "checkpoints" / f"step-{step:06d}" / f"{part}.safetensors")
    return {name: value for name, value in tensors.items() if name.startswith("network.")}


def test_a_run_is_complete(trained: Callable[..., Path]) -> None:
    run = trained("toy")
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["step-000000", "step-000010", "step-000020"]
    stored = json.loads((run / "run.json").read_text())
    assert stored["request"]["recipe"] == "toy"
    assert stored["request"]["options"]["width"] == 8
    assert stored["recipe"]["training"]["steps"] == 20
    assert stored["seed"] == 0
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 20


def test_pictures_are_drawn_on_the_way(rheos: Any, tmp_path: Path) -> None:
    ended = rheos.done("train", "toy", *rheos.small, "--sample-every", 10, "--out", tmp_path / "run")
    assert sorted(p.name for p in (tmp_path / "run" / "samples").iterdir()) == ["step-000010.png", "step-000020.png"]
    assert f"Samples: {tmp_path / 'run' / 'samples' / 'step-000020.png'}" in ended.out
    assert f"next: rheos sample {tmp_path / 'run'}" in ended.out


def test_training_a_finished_run_changes_nothing(rheos: Any, toy: Path) -> None:
    before = rheos.prints(toy)
    for words in ((), rheos.small, ("--seed", 0), ("--path", "linear"), ("--width", 8, "--data", "moons")):
        ended = rheos.done("train", "toy", "--out", toy, *words)
        assert "all of its 20 steps were taken before" in ended.out
    assert rheos.prints(toy) == before


@pytest.mark.parametrize("words", [("toy",), ("images", "--net", "mlp")])
def test_the_rest_of_a_run_is_that_of_an_unbroken_one(
    rheos: Any, trained: Callable[..., Path], tmp_path: Path, words: tuple[str, ...]
) -> None:
    whole, run = trained(*words), tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoints" / "step-000020")
    ended = rheos.done("train", words[0], "--out", run)
    assert "going on from step 10" in ended.err
    assert "done." in ended.out
    assert rheos.prints(run / "checkpoints") == rheos.prints(whole / "checkpoints")
    shutil.rmtree(run / "checkpoints")
    rheos.done("train", words[0], "--out", run)
    assert rheos.prints(run / "checkpoints") == rheos.prints(whole / "checkpoints")


def test_the_seed_makes_the_run(rheos: Any, trained: Callable[..., Path], tmp_path: Path) -> None:
    for seed in (0, 1):
        rheos.done("train", "toy", *rheos.small, "--seed", seed, "--out", tmp_path / str(seed))
    first, again, other = (weights(run, 20) for run in (trained("toy"), tmp_path / "0", tmp_path / "1"))
    assert all(first[name].equal(again[name]) for name in first)
    assert not any(first[name].equal(other[name]) for name in first if name.endswith("weight"))


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (("--steps", 40), "training.steps is 20 in the run, 40 was asked for"),
        (("--batch", 64), "training.batch is 32 in the run, 64"),
        (("--width", 16), "network.options.width is 8 in the run, 16"),
        (("--data", "spirals"), "data.path is 'moons' in the run, 'spirals'"),
        (("--path", "cosine"), "objective.path.schedule.class is 'rheos.schedules.straight:Linear'"),
        (("--solver", "heun"), "solver.class is 'rheos.solvers.adams_bashforth:AdamsBashforth'"),
        (("--predict", "data"), "objective.predict is 'velocity' in the run, 'data'"),
        (("--seed", 1), "was started with --seed 0"),
    ],
)
def test_other_settings_are_refused_with_their_place(
    rheos: Any, toy: Path, words: tuple[object, ...], place: str
) -> None:
    before = rheos.prints(toy)
    assert place in rheos.refused("train", "toy", "--out", toy, *words)
    assert rheos.prints(toy) == before


def test_the_run_of_another_recipe_is_refused(rheos: Any, toy: Path) -> None:
    before = rheos.prints(toy)
    said = rheos.refused("train", "images", "--out", toy)
    assert "is a run of the recipe 'toy', not of 'images'; give --out another name" in said
    assert rheos.prints(toy) == before


def test_a_folder_of_others_is_left_alone(rheos: Any, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years")
    assert "is no run folder; give --out another name" in rheos.refused("train", "toy", "--out", tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


class TestFrom:
    def test_weights_begin_at_the_average_of_the_other(self, rheos: Any, toy: Path, tmp_path: Path) -> None:
        before = rheos.prints(toy)
        words = ("train", "toy", *rheos.small, "--data", "spirals", "--from", toy, "--out", tmp_path / "tuned")
        rheos.done(*words)
        average, last = weights(toy, 20), weights(toy, 20, "model")
        for part in ("model", "ema"):
            start = weights(tmp_path / "tuned", 0, part)
            assert all(start[name].equal(average[name]) for name in average)
        assert not all(last[name].equal(average[name]) for name in average)
        assert rheos.prints(toy) == before
        # The same command goes on, which here is nothing to do.
        assert "were taken before" in rheos.done(*words).out

    def test_a_diffusion_run_goes_on_as_the_flow_that_it_is(self, rheos: Any, tmp_path: Path) -> None:
        old, new, again = (tmp_path / name for name in ("old", "new", "again"))
        rheos.done("train", "toy", *rheos.small, "--path", "cosine", "--predict", "v", "--out", old)
        # With steps that change nothing the flow on straight lines ends where the diffusion model does.
        still = (*rheos.small, "--learning-rate", 1e-30, "--from", old)
        rheos.done("train", "toy", *still, "--out", new)
        objectives = [Run.open(folder).recipe.objective for folder in (old, new)]
        assert objectives[1] == Matching(times=objectives[1].times, before=Matching(Affine(Cosine()), predict="v"))
        ends = []
        for folder in (old, new):
            words = ("--n", 20, "--evaluations", 400, "--seed", 3, "--out", tmp_path / f"{folder.name}.npz")
            rheos.done("sample", folder, *words)
            ends.append(np.load(tmp_path / f"{folder.name}.npz")["samples"])
        np.testing.assert_allclose(*ends, atol=2e-3)
        # A flow that went on may itself be started from, and a run goes on with options that it has.
        rheos.done("train", "toy", *rheos.small, "--from", new, "--out", again)
        assert Run.open(again).recipe.objective == objectives[1]
        assert "were taken before" in rheos.done("train", "toy", *still[:-2], "--path", "linear", "--out", new).out

    def test_another_quantity_begins_with_a_warning(self, rheos: Any, toy: Path, tmp_path: Path) -> None:
        words = ("train", "toy", *rheos.small, "--predict", "data", "--from", toy, "--out", tmp_path / "data")
        assert "its network means nothing as yet for one that predicts data" in rheos.done(*words).err

    def test_a_kill_before_the_first_checkpoint_forgets_nothing(self, rheos: Any, toy: Path, tmp_path: Path) -> None:
        rheos.done("train", "toy", *rheos.small, "--from", toy, "--out", tmp_path / "tuned")
        whole = rheos.prints(tmp_path / "tuned" / "checkpoints")
        shutil.rmtree(tmp_path / "tuned" / "checkpoints")
        rheos.done("train", "toy", "--out", tmp_path / "tuned")
        assert rheos.prints(tmp_path / "tuned" / "checkpoints") == whole

    def test_another_network_is_refused_and_no_folder_made(self, rheos: Any, toy: Path, tmp_path: Path) -> None:
        said = rheos.refused("train", "toy", *rheos.small, "--width", 12, "--from", toy, "--out", tmp_path / "new")
        assert f"--from {toy} is of another network" in said
        assert not (tmp_path / "new").exists()

    def test_what_is_no_run_is_refused(self, rheos: Any, tmp_path: Path) -> None:
        said = rheos.refused("train", "toy", *rheos.small, "--from", tmp_path / "none", "--out", tmp_path / "new")
        assert "is no run folder" in said
        assert not (tmp_path / "new").exists()

    def test_a_run_that_is_there_is_not_started_anew(self, rheos: Any, toy: Path, trained: Callable[..., Path]) -> None:
        before = rheos.prints(toy)
        for other in (toy, trained("toy")):
            assert "--from starts a new one" in rheos.refused("train", "toy", "--out", toy, "--from", other)
        assert rheos.prints(toy) == before


def faces(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((8, 8), 5 * number % 256, np.uint8)).save(folder / f"{number:03d}.png")
    return folder


class TestData:
    def train(self, rheos: Any, how: str, data: Path, *words: object) -> Any:
        run = data.parent / "run"
        ended = getattr(rheos, how)(
            "train", "images", "--net", "mlp", *rheos.small, "--data", data, "--out", run, *words
        )
        assert how == "done" or not run.exists()
        return ended

    def test_missing(self, rheos: Any, tmp_path: Path) -> None:
        assert "none does not exist" in self.train(rheos, "refused", tmp_path / "none")

    def test_empty_folder(self, rheos: Any, tmp_path: Path) -> None:
        assert "holds no images" in self.train(rheos, "refused", faces(tmp_path / "x", 0))

    def test_one_image(self, rheos: Any, tmp_path: Path) -> None:
        assert "holds one image; at least 2" in self.train(rheos, "refused", faces(tmp_path / "x", 1))

    def test_two_images_are_enough(self, rheos: Any, tmp_path: Path) -> None:
        self.train(rheos, "done", faces(tmp_path / "x", 2))

    def test_nan_in_an_array(self, rheos: Any, tmp_path: Path) -> None:
        pixels = np.zeros((10, 8, 8), np.float32)
        pixels[3, 2, 1] = np.nan
        np.save(tmp_path / "x.npy", pixels)
        assert "NaN or infinite, the first in image 3" in self.train(rheos, "refused", tmp_path / "x.npy")

    def test_labels_that_do_not_match(self, rheos: Any, tmp_path: Path) -> None:
        np.savez(tmp_path / "x.npz", images=np.full((10, 8, 8), 9, np.uint8), labels=np.arange(9))
        said = self.train(rheos, "refused", tmp_path / "x.npz")
        assert "labels" in said
        assert "9" in said
        assert "10" in said

    def test_a_few_truncated_files_are_left_out_and_named(self, rheos: Any, tmp_path: Path) -> None:
        data = faces(tmp_path / "x", 40)
        (data / "007.png").write_bytes((data / "007.png").read_bytes()[:40])
        ended = self.train(rheos, "done", data)
        line = next(line for line in ended.err.splitlines() if line.startswith("rheos: "))
        assert line.startswith("rheos: 39 of 40 images can be read: left out: 007.png (")
        assert "007.png" in (tmp_path / "run" / "data.txt").read_text()

    def test_many_truncated_files_are_refused(self, rheos: Any, tmp_path: Path) -> None:
        data = faces(tmp_path / "x", 40)
        for name in ("007.png", "011.png", "012.png"):
            (data / name).write_bytes((data / name).read_bytes()[:40])
        said = self.train(rheos, "refused", data)
        assert "3 of 40 images cannot be read, more than 5%: 007.png" in said

    def test_data_that_changed_are_refused(self, rheos: Any, tmp_path: Path) -> None:
        data = faces(tmp_path / "x", 40)
        self.train(rheos, "done", data)
        run = tmp_path / "run"
        shutil.rmtree(run / "checkpoints" / "step-000020")
        before = rheos.prints(run)
        (data / "003.png").unlink()
        for command in (("train", "images", "--out"), ("evaluate",)):
            assert "are no longer those that" in rheos.refused(*command, run)
        shutil.rmtree(data)
        for command in (("train", "images", "--out"), ("evaluate",)):
            assert "does not exist" in rheos.refused(*command, run)
        assert rheos.prints(run) == before

    def test_a_run_goes_on_from_another_folder(
        self, rheos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faces(tmp_path / "x", 40)
        monkeypatch.chdir(tmp_path)
        words = ("train", "images", "--net", "mlp", *rheos.small, "--data", "x")
        rheos.done(*words, "--out", "run")
        rheos.done(*words, "--out", "run")
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        rheos.done("train", "images", "--out", tmp_path / "run")
        assert "does not exist" in rheos.refused(*words, "--out", tmp_path / "run")

    def test_a_folder_does_not_hide_a_name(self, rheos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "moons").mkdir()
        monkeypatch.chdir(tmp_path)
        rheos.done("train", "toy", *rheos.small, "--data", "moons")
        assert (tmp_path / "runs" / "toy" / "run.json").exists()


class TestParts:
    def test_a_velocity_that_is_infinite_is_refused(self, rheos: Any, tmp_path: Path) -> None:
        said = rheos.refused("train", "toy", "--path", "vp", "--out", tmp_path / "run")
        assert 'no network can predict it; predict "noise"' in said
        assert not (tmp_path / "run").exists()

    def test_every_part_at_once(self, rheos: Any, tmp_path: Path) -> None:
        run = tmp_path / "run"
        chosen = {"objective": "matching", "coupling": "stored-ot", "path": "vp", "predict": "noise"}
        chosen |= {"solver": "unipc", "noise": "none"}
        words = {name: list(names)[-1] for name, names in TABLES.items()} | chosen
        named = [word for name, value in words.items() for word in (f"--{name}", value)]
        rheos.done("train", "toy", *rheos.small, *named, "--out", run)
        rheos.done("sample", run, "--n", 4)
        rheos.done("evaluate", run, "--n", 20)

    def test_what_cannot_be_sampled_is_not_trained(self, rheos: Any, tmp_path: Path) -> None:
        for words, said in (
            (("--noise", "sde"), "a diffusion needs a score"),
            (("--solver", "churn"), "fresh noise keeps the marginals only where it was Gaussian and independent"),
        ):
            assert said in rheos.refused("train", "toy", "--coupling", "ot", *words, "--out", tmp_path / "run")
            assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize(
        ("path", "predict", "noise"), [("ddpm", "noise", "ddpm"), ("ddpm-cosine", "v", "ddim"), ("edm", "data", "sde")]
    )
    def test_diffusion_models(self, rheos: Any, tmp_path: Path, path: str, predict: str, noise: str) -> None:
        words = ("--path", path, "--predict", predict, "--times", "steps", "--noise", noise, "--solver", "euler")
        rheos.done("train", "toy", *rheos.small, *words, "--out", tmp_path / "run")
        rheos.done("sample", tmp_path / "run", "--n", 4, "--noise", "none", "--solver", "dpm")

    @pytest.mark.parametrize("objective", ["learned-schedule", "learned-path", "likelihood"])
    def test_every_objective(self, rheos: Any, tmp_path: Path, objective: str) -> None:
        run = tmp_path / "run"
        words = ("train", "toy", *rheos.small, "--objective", objective, "--out", run)
        rheos.done(*words)
        rheos.done("sample", run, "--n", 4)
        rheos.done(*words)
        assert "no --predict" in rheos(*words[:-1], tmp_path / "new", "--predict", "noise").err

    def test_optimal_transport_warns_in_one_line_where_there_are_labels(
        self, rheos: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("rheos.couplings.ignored._warned", set())
        words = ("train", "images", "--net", "mlp", *rheos.small, "--coupling", "ot", "--out", tmp_path / "run")
        lines = [line for line in rheos.done(*words).err.splitlines() if "transport" in line]
        assert len(lines) == 1
        assert lines[0].startswith("rheos: optimal transport within a batch ignores the condition")
        assert "warn" not in lines[0]

    def test_optimal_transport_does_not_warn_without_labels(self, rheos: Any, tmp_path: Path) -> None:
        ended = rheos.done("train", "toy", *rheos.small, "--coupling", "ot", "--out", tmp_path / "run")
        assert "rheos: " not in ended.err

    def test_guidance_needs_classes(self, rheos: Any, tmp_path: Path) -> None:
        assert "no classes" in rheos.refused("train", "toy", "--guidance", 2, "--out", tmp_path / "run")


def test_the_table_of_parts(capsys: pytest.CaptureFixture[str]) -> None:
    from rheos.cli import main

    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = capsys.readouterr().out
    table = text[text.index("parts by name (the first is the default") :].splitlines()
    for name, names in TABLES.items():
        (line,) = [line for line in table if line.strip().startswith(f"--{name} ")]
        assert line.split(None, 1)[1] == ", ".join(names)
    assert "highest learning rate (default: 0.002, or the recipe's)" in " ".join(text.split())

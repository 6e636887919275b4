"""What is exported is drawn again bit by bit, and its terms come along."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rheos.core import CheckpointError, InputError
from rheos.dynamics import DiffusionNoise
from rheos.guidance import ClassifierFree
from rheos.objectives import shortcut
from rheos.recipes import Sampler, toy
from rheos.solvers import Dopri5, Heun, grids
from rheos.training import checkpoint
from support.runs import tiny_run

pytestmark = pytest.mark.usefixtures("diffusers")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where diffusers keeps the code of pipelines that are trusted."""
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))


def drawn(pipe: Any, **asked: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe(num_images=5, output_type="latent", return_dict=False, **asked)[0]


def test_a_pipeline_draws_what_the_run_draws(tmp_path: Path) -> None:
    from rheos.interop.diffusers import export

    for number, changes in enumerate(
        (
            {},
            {"solver": Heun(), "grid": grids.Shifted(2.0), "evaluations": 6},
            {"guidance": ClassifierFree(2.0)},
        )
    ):
        run = tiny_run(tmp_path / f"run{number}", **changes)
        pipe = export(run, tmp_path / f"out{number}")
        network = run.network()
        network.load_state_dict(checkpoint.load_weights(run.folder))
        sampler = Sampler(run.recipe, network, seed=7)
        labels = torch.tensor([1, 9, 4, 4, -1])
        mine = sampler.draw(5, labels)
        found = drawn(pipe, generator=7, class_labels=labels.tolist())
        torch.testing.assert_close(found, mine.states, rtol=1e-4, atol=1e-5)
        assert len(pipe.scheduler.timesteps) == mine.evaluations


def test_loaded_again_it_draws_the_same_bits(tmp_path: Path, diffusers: ModuleType, modules: None) -> None:
    from rheos.interop.diffusers import RheosPipeline, export

    out = tmp_path / "out"
    pipe = export(tiny_run(tmp_path / "run"), out, licence="apache-2.0")
    first = drawn(pipe, generator=2)
    assert float(first.std()) > 0.1
    assert float((drawn(RheosPipeline.open(out), generator=2) - first).abs().max()) == 0.0
    theirs = diffusers.DiffusionPipeline.from_pretrained(str(out), trust_remote_code=True)
    assert float((drawn(theirs, generator=2) - first).abs().max()) == 0.0
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        diffusers.DiffusionPipeline.from_pretrained(str(out))
    assert {file.suffix for file in (out / "network").iterdir()} == {".json", ".safetensors"}
    assert "license: apache-2.0\n" in (out / "README.md").read_text()
    scheduler = theirs.scheduler
    scheduler.save_pretrained(tmp_path / "alone")
    again = type(scheduler).from_pretrained(tmp_path / "alone")
    pipe.scheduler = again
    assert float((drawn(pipe, generator=2) - first).abs().max()) == 0.0


def test_no_path_of_the_data_is_passed_on(tmp_path: Path) -> None:
    from dataclasses import replace

    from rheos.interop.diffusers import export

    base = tiny_run(tmp_path / "base").recipe
    run = tiny_run(tmp_path / "run", data=replace(base.data, path="/home/somebody/private"))
    export(run, tmp_path / "out")
    assert not [file for file in (tmp_path / "out").rglob("*.json") if "somebody" in file.read_text()]


def test_pictures_in_the_forms_of_diffusers(tmp_path: Path) -> None:
    from rheos.interop.diffusers import export

    pipe = export(tiny_run(tmp_path / "run"), tmp_path / "out")
    pipe.set_progress_bar_config(disable=True)
    states = drawn(pipe, generator=1)
    pictures = pipe(num_images=5, generator=1).images
    assert pictures[0].size == (8, 8)
    exact = np.asarray(states.clamp(-1, 1))[2, 0] * 127.5 + 127.5
    np.testing.assert_allclose(np.asarray(pictures[2], dtype=float), exact, atol=0.51)
    unit = pipe(num_images=5, generator=1, output_type="np").images
    assert unit.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(255 * unit[2, :, :, 0], exact, atol=1e-3)
    with pytest.raises(InputError, match="'pil', 'np', 'pt' or 'latent', got 'jpeg'"):
        pipe(output_type="jpeg")
    with pytest.raises(InputError, match="integers from -1"):
        pipe(class_labels=[10])


def test_a_scale_of_guidance_is_that_of_rheos(tmp_path: Path) -> None:
    from rheos.interop.diffusers import export

    plain = export(tiny_run(tmp_path / "plain"), tmp_path / "out")
    guided = export(tiny_run(tmp_path / "guided", guidance=ClassifierFree(3.0)), tmp_path / "guided-out")
    assert torch.equal(drawn(plain, guidance_scale=3.0), drawn(guided))
    assert torch.equal(drawn(plain), drawn(guided, guidance_scale=1.0))
    assert not torch.equal(drawn(plain), drawn(guided))


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    from rheos.interop.diffusers import RheosPipeline, export
    from rheos.recipes import Run

    with pytest.raises(InputError, match="runs of images are exported"):
        export(Run(tmp_path, toy(), 0, {}), tmp_path / "out")
    with pytest.raises(InputError, match="Dopri5 chooses its steps itself"):
        export(tiny_run(tmp_path / "a", solver=Dopri5()), tmp_path / "out")
    with pytest.raises(InputError, match="adds noise on the way"):
        export(tiny_run(tmp_path / "b", noise=DiffusionNoise()), tmp_path / "out")
    with pytest.raises(InputError, match="learned a map"):
        export(tiny_run(tmp_path / "m", objective=shortcut()), tmp_path / "out")
    run = tiny_run(tmp_path / "c")
    with pytest.raises(InputError, match="is no empty folder"):
        export(run, run.folder)
    with pytest.raises(CheckpointError, match="no pipeline that rheos exported"):
        RheosPipeline.open(tmp_path / "c")
    export(run, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model_index.json").read_text())
    index["scheduler"] = ["os", "system"]
    (tmp_path / "out" / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"a scheduler of another library, os\.system"):
        RheosPipeline.open(tmp_path / "out")


def test_terms_come_along(tmp_path: Path, modules: None) -> None:
    from rheos.interop.diffusers import export, open_pipeline, save

    run = tiny_run(tmp_path / "run")
    card = "---\nlicense: other\nlicense_name: some-terms\n---\nNot for sale.\n"
    (run.folder / "README.md").write_text(card)
    (run.folder / "LICENSE.md").write_text("All of it.")
    export(run, tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text() == card
    pipe = open_pipeline(tmp_path / "out", trust_remote_code=True)
    save(pipe, tmp_path / "again")
    assert (tmp_path / "again" / "README.md").read_text() == card
    assert (tmp_path / "again" / "LICENSE.md").read_text() == "All of it."
    bare = export(tiny_run(tmp_path / "bare"), tmp_path / "bare-out")
    with pytest.warns(UserWarning, match="no licence was found beside the model"):
        save(bare, tmp_path / "unknown")
    assert "license:" not in (tmp_path / "unknown" / "README.md").read_text()

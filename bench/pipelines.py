"""Pipelines of diffusers sped up: an SD3 and a Flux transformer, trained here, with a compiled plan and without.

    RHEOS_DATA=... python bench/pipelines.py sd3 flux [--steps 3000] [--out DIR]

Each has a few million parameters and learns Fashion-MNIST, the label as its text; random weights would make easy
fields. SD3 is sampled with guidance 4, Flux without. ``accelerate`` compiles 8 evaluations on labels in turn. Judged on
fresh noise, beside diffusers' own Euler, Heun, UniPC and DPM-Solver++ in 8 and 12 evaluations, each at the better of
shifts 1 and 3: distances from the image of 200 steps of Euler, and from the exact end (32 steps of RK4), over the root
mean square length of the exact ends. Kept as bench/results/pipeline-NAME.json.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from torch import Tensor, nn

from machine import keep
from rheos import nn as networks
from rheos.core import Rng
from rheos.data import Shuffled, Tensors, to_unit
from rheos.interop.diffusers import SolverScheduler, accelerate, load
from rheos.interop.diffusers.families import Network
from rheos.objectives import Matching
from rheos.objectives.times import Uniform
from rheos.solvers import RK4
from rheos.training import Training, fit

SIDE, CLASSES, WORDS = 28, 10, 4
TEXT, POOLED = 64, 64
COUNT = 64
"""Fresh samples that are judged."""

BUDGET, OTHERS = 8, (8, 12)
LONG, EXACT = 200, 32
SHIFTS = (1.0, 3.0)


@dataclass(frozen=True)
class Kind:
    """A pipeline to be trained.

    Args:
        build: the pipeline.
        pack: images (B, 1, H, W) as the states that its network sees.
        guided: the arguments of the pipeline that guide it.
    """

    build: Callable[[], Any]
    pack: Callable[[Tensor], Tensor]
    guided: Mapping[str, Any]


def sd3() -> Any:
    network = diffusers.SD3Transformer2DModel(
        sample_size=SIDE,
        patch_size=4,
        in_channels=1,
        out_channels=1,
        num_layers=6,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT,
        caption_projection_dim=128,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=16,
    )
    none = dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))
    return diffusers.StableDiffusion3Pipeline(network, diffusers.FlowMatchEulerDiscreteScheduler(), None, **none)


def flux() -> Any:
    network = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=3,
        num_single_layers=5,
        attention_head_dim=32,
        num_attention_heads=4,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        guidance_embeds=False,
        axes_dims_rope=[8, 12, 12],
    )
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return diffusers.FluxPipeline(scheduler, None, None, None, None, None, network)


def packed(images: Tensor) -> Tensor:
    """Patches of 2 x 2 as Flux holds them, (B, 196, 4)."""
    return diffusers.FluxPipeline._pack_latents(images, len(images), 1, SIDE, SIDE)


WORD = Rng(1).normal(CLASSES + 1, WORDS, TEXT)
POOL = Rng(2).normal(CLASSES + 1, POOLED)
"""What stands for the text of each label, and last of none."""

KINDS = {
    "sd3": Kind(sd3, lambda images: images, {"guidance_scale": 4.0}),
    "flux": Kind(flux, packed, {}),
}


def prompts(labels: Tensor) -> dict[str, Tensor]:
    return {"prompt_embeds": WORD[labels], "pooled_prompt_embeds": POOL[labels]}


def call(kind: Kind) -> dict[str, Any]:
    """The arguments of a sample but its prompts."""
    size = {"height": 8 * SIDE, "width": 8 * SIDE}
    if not kind.guided:
        return size
    # One row, which the pipeline repeats for none: it is given for each prompt.
    return {**size, **kind.guided}


class Labelled(nn.Module):
    """A network of diffusers as a velocity that is told labels, -1 for none."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.model, self.family, self.shared = network.model, network.family, network.shared

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        labels = torch.full((len(x),), CLASSES) if cond is None else torch.where(cond < 0, CLASSES, cond)
        told = {"encoder_hidden_states": WORD[labels], "pooled_projections": POOL[labels]}
        return Network(self.model, self.family, self.shared)(x, t, told)


def trained(kind: Kind, steps: int, folder: Path) -> Any:
    """The pipeline with the averaged weights of a training in a folder."""
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        values, labels = (torch.from_numpy(stored[key]) for key in ("x_train", "y_train"))
    states = kind.pack(to_unit(values)[:, None])
    with networks.seeded(0):
        pipe = kind.build()
    pipe.set_progress_bar_config(disable=True)
    loaded = load(pipe, {"height": 8 * SIDE, "width": 8 * SIDE, **prompts(torch.arange(2))})
    network: Any = loaded.flow.velocity
    settings = Training(steps=steps, batch=64, drop=0.1, snapshots=0, sample_every=0, checkpoint_every=250)
    objective = Matching(times=Uniform(stratified=True))
    order, data = Shuffled(len(states)), Tensors(states, labels.long())
    average: Any = fit(Labelled(network), objective, data, order, settings, seed=0, out=folder).average
    pipe.register_modules(transformer=average.model.requires_grad_(False).eval())
    return pipe


def ends(pipe: Any, kind: Kind, scheduler: Any, steps: int) -> Tensor:
    """What a scheduler draws from the noises that judge, float64."""
    rows = torch.arange(COUNT)
    noise = kind.pack(Rng(99).rows(rows).normal(1, SIDE, SIDE))
    own, pipe.scheduler = pipe.scheduler, scheduler
    found = []
    for part in rows.split(32):
        given = {**call(kind), **prompts(part % CLASSES), **unknown(kind, len(part))}
        drawn = pipe(**given, latents=noise[part], num_inference_steps=steps, output_type="latent", return_dict=False)
        found.append(drawn[0].double())
    pipe.scheduler = own
    return torch.cat(found)


def unknown(kind: Kind, count: int) -> dict[str, Tensor]:
    """The prompts of no label, where the pipeline is guided."""
    if not kind.guided:
        return {}
    none = torch.full((count,), CLASSES)
    return {f"negative_{name}": value for name, value in prompts(none).items()}


def rivals(shift: float) -> dict[str, tuple[Any, Callable[[int], int]]]:
    """diffusers' own schedulers, and how many steps a number of evaluations pays for."""
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    return {
        "Euler": (diffusers.FlowMatchEulerDiscreteScheduler(shift=shift), lambda n: n),
        # The last of its steps takes one evaluation.
        "Heun": (diffusers.FlowMatchHeunDiscreteScheduler(shift=shift), lambda n: (n + 1) // 2),
        "UniPC": (diffusers.UniPCMultistepScheduler(**flow), lambda n: n),
        "DPM-Solver++": (diffusers.DPMSolverMultistepScheduler(**flow), lambda n: n),
    }


def figures(drawn: Tensor, long: Tensor, exact: Tensor) -> dict[str, float]:
    scale = exact.flatten(1).square().sum(1).mean().sqrt()
    found = {}
    for name, target in (("200 steps", long), ("exact", exact)):
        errors = (drawn - target).flatten(1).square().sum(1).sqrt() / scale
        found |= {
            f"rmse from {name}": float(errors.square().mean().sqrt()),
            f"p95 from {name}": float(errors.quantile(0.95)),
            f"median from {name}": float(errors.median()),
        }
    return found


def compared(pipe: Any, kind: Kind) -> dict[str, Any]:
    """Every figure, by scheduler and evaluations."""
    plain = diffusers.FlowMatchEulerDiscreteScheduler()
    exact = ends(pipe, kind, SolverScheduler(RK4()), EXACT)
    long = ends(pipe, kind, plain, LONG)
    found = {
        f"Euler, {LONG}": figures(long, long, exact),
        "Euler, 50": figures(ends(pipe, kind, plain, 50), long, exact),
    }
    for shift in SHIFTS:
        for name, (scheduler, steps) in rivals(shift).items():
            for budget in OTHERS:
                key = f"{name}, {budget}"
                one = {**figures(ends(pipe, kind, scheduler, steps(budget)), long, exact), "shift": shift}
                if key not in found or one["rmse from 200 steps"] < found[key]["rmse from 200 steps"]:
                    found[key] = one
    said: list[str] = []
    began = time.perf_counter()
    labels = torch.arange(CLASSES)
    rows = {**prompts(labels), **unknown(kind, CLASSES)}
    accelerate(pipe, BUDGET, prompts=rows, call=call(kind), batch=32, tell=said.append)
    seconds = time.perf_counter() - began
    found[f"plan, {BUDGET}"] = figures(ends(pipe, kind, pipe.scheduler, BUDGET), long, exact)
    return {"errors": found, "compiled in seconds": seconds, "said": said}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(KINDS))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("pipelines"))
    given = parser.parse_args()
    for name in given.names:
        pipe = trained(KINDS[name], given.steps, given.out / name)
        with torch.no_grad():
            result = compared(pipe, KINDS[name])
        count = sum(parameter.numel() for parameter in pipe.transformer.parameters())
        for scheduler, found in result["errors"].items():
            print(f"{name:6} {scheduler:20} " + "  ".join(f"{key} {value:.3g}" for key, value in found.items()))
        keep(f"pipeline-{name}", {"parameters": count, "steps": given.steps, "samples": COUNT, **result})


if __name__ == "__main__":
    main()

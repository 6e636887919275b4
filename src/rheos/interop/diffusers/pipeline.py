"""A run of the recipe for images as a pipeline of diffusers.

The network keeps its own class, inside a model that is called as diffusers calls its transformers: with 1000*(1 - t),
for a velocity that points to the noise. So every scheduler for flows serves it, those of rheos included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from PIL import Image
from torch import Tensor

from ...core import CheckpointError, InputError, Rng, Stream
from ...data import to_uint8
from ...guidance import ClassifierFree
from ...recipes import Recipe, decode
from ...solvers import FixedStep
from . import schedulers
from .installed import diffusers

ModelMixin: Any = diffusers().ModelMixin
"""diffusers asks the module of a component for it, to learn how the component is loaded."""

_Config: Any = diffusers().ConfigMixin
_Pipeline: Any = diffusers().DiffusionPipeline
_registered: Any = diffusers().configuration_utils.register_to_config

SCHEDULERS = ("SolverScheduler", "PlanScheduler", "FastFlowScheduler")

TRAIN = 1000
"""What diffusers multiplies sigmas by to call them timesteps."""


@final
class RheosNetwork(ModelMixin, _Config):
    """The network of a run.

    Args:
        recipe: as ``run.json`` has it.
        seed: of the run.
    """

    config_name = "config.json"

    @_registered
    def __init__(self, recipe: Mapping[str, Any], seed: int = 0) -> None:
        super().__init__()
        found: Any = decode(dict(recipe))
        if not isinstance(found, Recipe):
            raise CheckpointError("this configuration holds no recipe; it was not written by rheos.")
        self.recipe = found
        self.network = found.network(Rng(seed).fold(Stream.WEIGHTS))

    @classmethod
    def from_pretrained(cls, *args: Any, **options: Any) -> Any:
        """As diffusers does, but the network is built with its buffers, which are not in the file."""
        return super().from_pretrained(*args, **{**options, "low_cpu_mem_usage": False, "device_map": None})

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        class_labels: Tensor | None = None,
        guidance_scale: float | None = None,
        return_dict: bool = False,
    ) -> tuple[Tensor]:
        """The guided velocity, from data to noise.

        Args:
            hidden_states: (B, C, H, W).
            timestep: 1000*(1 - t), of shape () or (B,).
            class_labels: (B,), -1 for none in particular; ``None`` for a network without classes.
            guidance_scale: of classifier-free guidance; the run's own guidance when left out.
            return_dict: nothing but a tuple is returned.
        """
        guidance = self.recipe.guidance if guidance_scale is None else ClassifierFree(guidance_scale)
        flow: Any = self.recipe.objective.dynamics(self.network)
        flow = flow if guidance is None or class_labels is None else flow.over(guidance)
        t = (1 - timestep.double() / TRAIN).to(hidden_states.dtype)
        cond = () if class_labels is None else (class_labels,)
        return (-flow.velocity(hidden_states, t, *cond),)


@final
class RheosPipeline(_Pipeline):
    """Draws images from a run.

    Args:
        network: the run's.
        scheduler: any scheduler of a flow.
    """

    model_cpu_offload_seq = "network"

    def __init__(self, network: RheosNetwork, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(network=network, scheduler=scheduler)
        self._guidance_scale: float | None = None

    @staticmethod
    def open(folder: str | Path) -> RheosPipeline:
        """The pipeline in a folder, by the classes of the installed rheos alone; no code in the folder is run.

        Raises:
            CheckpointError: if the folder names other classes, or none.
        """
        try:
            index = json.loads((Path(folder) / "model_index.json").read_text())
            module, name = index["scheduler"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder} holds no pipeline that rheos exported ({error!r}).") from error
        if module != schedulers.__name__ or name not in SCHEDULERS:
            raise CheckpointError(
                f"{folder} has a scheduler of another library, {module}.{name}; load it by diffusers."
            )
        network = RheosNetwork.from_pretrained(str(folder), subfolder="network", use_safetensors=True)
        return RheosPipeline(network, getattr(schedulers, name).from_pretrained(str(folder), subfolder="scheduler"))

    @torch.no_grad()
    def __call__(
        self,
        class_labels: list[int] | None = None,
        num_images: int = 1,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | int = 0,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """Draw images; image i of a seed is the same whatever is drawn beside it.

        Args:
            class_labels: the class of each, -1 for none in particular; the classes in turn when left out.
            num_images: how many, where neither labels nor latents say it.
            num_inference_steps: those of the run when left out.
            guidance_scale: of classifier-free guidance; the run's own guidance when left out.
            generator: the seed.
            latents: noise (B, C, H, W) to begin with.
            output_type: "pil", "np", "pt" (both in [0, 1]) or "latent", the states in [-1, 1].
            return_dict: whether they come in diffusers' own output, or a tuple.

        Raises:
            InputError: for labels of a run without classes, or labels that it does not have, or another output.
        """
        recipe: Recipe = self.network.recipe
        self._guidance_scale = guidance_scale
        count = len(class_labels) if class_labels is not None else num_images if latents is None else len(latents)
        labels = _labels(recipe, class_labels, count)
        device = self._execution_device
        if latents is None:
            rng = Rng.of(generator).rows(torch.arange(count, device=device))
            latents = recipe.objective.prior(rng, torch.empty(count, *recipe.kind.shape, device=device))
        self.scheduler.set_timesteps(num_inference_steps or _steps(recipe), device=device)
        x: Tensor = latents.to(device)
        for time in self.progress_bar(self.scheduler.timesteps):
            velocity = self.network(
                x.to(self.network.dtype),
                time.expand(len(x)),
                class_labels=None if labels is None else labels.to(device),
                guidance_scale=guidance_scale,
            )[0]
            x = self.scheduler.step(velocity, time, x, return_dict=False)[0]
        self.maybe_free_model_hooks()
        images = _shown(x, output_type)
        return diffusers().ImagePipelineOutput(images=images) if return_dict else (images,)


def _steps(recipe: Recipe) -> int:
    solver = recipe.solver
    return solver.steps(recipe.evaluations) if isinstance(solver, FixedStep) else recipe.evaluations


def _labels(recipe: Recipe, asked: list[int] | None, count: int) -> Tensor | None:
    classes = len(recipe.kind.classes)
    if not classes:
        if asked is not None:
            raise InputError("this run has no classes, so no label can be asked for.")
        return None
    labels = torch.arange(count) % classes if asked is None else torch.as_tensor(asked)
    if labels.shape != (count,) or int(labels.min()) < -1 or int(labels.max()) >= classes:
        raise InputError(f"labels are {count} integers from -1 (any) to {classes - 1}, got {labels.tolist()[:10]}.")
    return labels


def _shown(states: Tensor, output_type: str) -> Any:
    if output_type == "latent":
        return states
    unit = (states.float() / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return unit
    if output_type == "np":
        return unit.permute(0, 2, 3, 1).cpu().numpy()
    if output_type == "pil":
        pixels = to_uint8(states).permute(0, 2, 3, 1).cpu().numpy()
        return [Image.fromarray(each[..., 0] if each.shape[2] == 1 else each) for each in pixels]
    raise InputError(f"images come as 'pil', 'np', 'pt' or 'latent', got {output_type!r}.")

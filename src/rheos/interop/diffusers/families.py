"""Flow models that diffusers holds, as flows of this library.

Each family is called in its own way. What differs is one row of a table: what the network is told at the noise and at
the data, whether its output points to the noise, and which of its arguments have a row a sample. Everything else that a
pipeline passes, such as positions and sizes, is taken from a recording of the pipeline's own call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ...core import InputError, ShapeError, nearest
from ...core.time import expand
from ...dynamics import Flow
from .recording import first_call


@final
@dataclass(frozen=True)
class Family:
    """How the networks of a family are called.

    Args:
        noise: what a network is told for the time of the noise, t = 0.
        data: and of the data, t = 1; linear in between.
        sign: our velocity over its output: -1 where that points from data to noise.
        rows: the arguments that have a row a sample.
        plain: the pipeline's arguments that switch guidance off.
        scale: the entry of the network's configuration that multiplies what it is told, if it has one.
    """

    noise: float
    data: float
    sign: float
    rows: tuple[str, ...]
    plain: Mapping[str, float]
    scale: str = ""


_TEXT, _MASK, _POOLED = "encoder_hidden_states", "encoder_attention_mask", "pooled_projections"
_OFF = {"guidance_scale": 1.0}

FAMILIES: Mapping[str, Family] = {
    "SD3Transformer2DModel": Family(1000, 0, -1, (_TEXT, _POOLED), _OFF),
    "FluxTransformer2DModel": Family(1, 0, -1, (_TEXT, _POOLED, "guidance"), {"true_cfg_scale": 1.0}),
    "WanTransformer3DModel": Family(1000, 0, -1, (_TEXT,), _OFF),
    "LTXVideoTransformer3DModel": Family(1000, 0, -1, (_TEXT, _MASK), _OFF),
    "SanaTransformer2DModel": Family(1000, 0, -1, (_TEXT, _MASK), _OFF, "timestep_scale"),
    "QwenImageTransformer2DModel": Family(
        1, 0, -1, (_TEXT, "encoder_hidden_states_mask", "guidance"), {"true_cfg_scale": 1.0}
    ),
    "Lumina2Transformer2DModel": Family(0, 1, 1, (_TEXT, _MASK), _OFF),
}
"""By the class of the network. Each is held against its own pipeline by the tests."""


def family_of(network: Any) -> Family:
    """The family of a network.

    Raises:
        InputError: if it is none of the table.
    """
    name = type(network).__name__
    if name not in FAMILIES:
        raise InputError(
            f"how {name} is called is not known here; {nearest(name, FAMILIES)} Any flow pipeline can be sampled by "
            "SolverScheduler, and compiled by accelerate, which work through the pipeline itself."
        )
    return FAMILIES[name]


@final
@dataclass(frozen=True)
class Network:
    """A network of diffusers as a velocity of ours: ``network(x, t, cond)``.

    Args:
        model: the network.
        family: how it is called.
        shared: arguments that are the same for all samples.
        unknown: the conditions that stand for *unknown*, one row each, as the pipeline makes them of an empty or
            negative prompt; none when left out. A row of NaN is replaced by them, so that
            :class:`~rheos.guidance.ClassifierFree` guides as the pipeline does.
    """

    model: Any
    family: Family
    shared: Mapping[str, Any]
    unknown: Mapping[str, Tensor] | None = None

    def __call__(self, x: Tensor, t: Tensor, cond: Mapping[str, Tensor] | None = None) -> Tensor:
        """The velocity at states (B, ...), from noise to data."""
        family = self.family
        told = family.noise + (family.data - family.noise) * t.double()
        if family.scale:
            told = told * self.model.config[family.scale]
        told = told.to(x.device, torch.float32).expand(len(x))
        given = {} if cond is None else self._known(cond)
        states = x.to(self.model.dtype)
        out = self.model(hidden_states=states, timestep=told, return_dict=False, **self.shared, **given)[0].to(x.dtype)
        if out.shape[1] == 2 * x.shape[1]:
            # A learned variance stands beside it.
            out = out[:, : x.shape[1]]
        if out.shape != x.shape:
            raise ShapeError(f"{type(self.model).__name__} gave {tuple(out.shape)} for states {tuple(x.shape)}.")
        return family.sign * out

    def _known(self, cond: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        if self.unknown is None:
            return cond
        nans = [v.isnan().reshape(len(v), -1).any(1) for v in cond.values() if v.is_floating_point()]
        lost = torch.stack(nans).any(0)
        return {name: torch.where(expand(lost, value), self.unknown[name], value) for name, value in cond.items()}


class Loaded(NamedTuple):
    """A pipeline's flow, the conditions of its prompts, and noise of the shape that it starts from."""

    flow: Flow
    cond: dict[str, Tensor]
    like: Tensor


def load(pipe: Any, call: Mapping[str, Any], unknown: Mapping[str, Any] | None = None) -> Loaded:
    """The flow of a pipeline's network, with prompts that the pipeline itself has encoded.

    Args:
        pipe: a pipeline of one of the ``FAMILIES``.
        call: the pipeline's arguments: ``prompt`` or embeddings, a size, and the like.
        unknown: the same with an empty or negative prompt, one, for guidance; no guidance when left out.

    Raises:
        InputError: if the network's family is not known, or the pipeline makes of ``unknown`` what has another shape.
    """
    family = family_of(pipe.transformer)
    seen, like = first_call(pipe, {**call, **family.plain})
    cond, shared = _parted(seen, family)
    if unknown is None:
        return Loaded(Flow(Network(pipe.transformer, family, shared)), cond, like)
    lost, _ = _parted(first_call(pipe, {**call, **_emptied(call), **unknown, **family.plain})[0], family)
    lost = {name: value[:1] for name, value in lost.items()}
    for name in sorted({*cond, *lost}):
        # A mask that keeps everything is left out by some pipelines.
        if name not in cond:
            cond[name] = torch.ones_like(lost[name]).repeat(len(like), *[1] * (lost[name].dim() - 1))
        if name not in lost:
            lost[name] = torch.ones_like(cond[name][:1])
        if lost[name].shape[1:] != cond[name].shape[1:]:
            raise InputError(
                f"{name} is {tuple(lost[name].shape)} of the unknown prompt, {tuple(cond[name].shape)} of the known "
                "ones; pad them to one length, as max_sequence_length does."
            )
    return Loaded(Flow(Network(pipe.transformer, family, shared, lost)), cond, like)


def _emptied(call: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline takes a prompt or embeddings, not both."""
    return {name: None for name in call if "prompt" in name}


def _parted(seen: Mapping[str, Any], family: Family) -> tuple[dict[str, Tensor], dict[str, Any]]:
    cond = {name: seen[name] for name in family.rows if isinstance(seen.get(name), Tensor)}
    fixed = {"hidden_states", "timestep", "return_dict", *cond}
    return cond, {name: value for name, value in seen.items() if name not in fixed}

"""Small flow pipelines of diffusers, made of configurations alone; their prompts are embeddings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rheos.nn import seeded


class Case(NamedTuple):
    """A pipeline, the arguments of a sample, and how guidance is asked for beside them."""

    pipe: Any
    call: dict[str, Any]
    guided: dict[str, Any]
    scale: float


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _lively(network: Any) -> Any:
    """Weights of which none is zero, so that every part of the network and of its input shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            fan = parameter.shape[-1] if parameter.dim() > 1 else 4
            parameter.add_(torch.randn(parameter.shape, generator=generator) * fan**-0.5)
    return network.eval()


def _made(make: Callable[[], Any]) -> Any:
    with seeded(0):
        return _lively(make())


def _euler(**options: Any) -> Any:
    import diffusers

    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


def _text(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Embeddings and their mask, in which an even seed leaves the last word out."""
    kept = torch.ones(rows, 5, dtype=torch.int64)
    kept[:, -1] = seed % 2
    return normal(seed, rows, 5, 32), kept


def sd3() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=32,
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=32,
            caption_projection_dim=32,
            pooled_projection_dim=64,
        )
    )
    none = dict.fromkeys(f"{part}{n}" for part in ("text_encoder", "tokenizer") for n in ("", "_2", "_3"))
    pipe = diffusers.StableDiffusion3Pipeline(network, _euler(shift=3.0), None, **none)
    call = {"prompt_embeds": normal(1, 2, 5, 32), "pooled_prompt_embeds": normal(2, 2, 64), "height": 32, "width": 32}
    guided = {"negative_prompt_embeds": normal(4, 2, 5, 32), "negative_pooled_prompt_embeds": normal(5, 2, 64)}
    return Case(pipe, call, guided, 4.0)


def flux() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=4,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            guidance_embeds=True,
            axes_dims_rope=[4, 4, 8],
        )
    )
    pipe = diffusers.FluxPipeline(_euler(use_dynamic_shifting=True), None, None, None, None, None, network)
    call = {
        "prompt_embeds": normal(1, 2, 5, 32),
        "pooled_prompt_embeds": normal(2, 2, 32),
        "height": 64,
        "width": 64,
        "guidance_scale": 3.5,
    }
    guided = {"negative_prompt_embeds": normal(4, 2, 5, 32), "negative_pooled_prompt_embeds": normal(5, 2, 32)}
    return Case(pipe, call, guided, 3.0)


def wan() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=256,
            ffn_dim=32,
            num_layers=2,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        )
    )
    scheduler = diffusers.UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipe = diffusers.WanPipeline(None, None, None, scheduler, network)
    call = {"prompt_embeds": normal(1, 2, 5, 32), "height": 32, "width": 32, "num_frames": 5}
    return Case(pipe, call, {"negative_prompt_embeds": normal(4, 2, 5, 32)}, 4.0)


def ltx() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=32,
        )
    )
    pipe = diffusers.LTXPipeline(
        _euler(use_dynamic_shifting=True, max_shift=2.05, base_shift=0.95, shift_terminal=0.1),
        None,
        None,
        None,
        network,
    )
    (text, mask), (other, other_mask) = _text(2, 2), _text(2, 5)
    call = {"prompt_embeds": text, "prompt_attention_mask": mask, "height": 64, "width": 64, "num_frames": 9}
    guided = {"negative_prompt_embeds": other, "negative_prompt_attention_mask": other_mask}
    return Case(pipe, call, guided, 3.0)


def sana() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.SanaTransformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=32,
            sample_size=32,
            timestep_scale=0.5,
        )
    )
    scheduler = diffusers.DPMSolverMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
    )
    pipe = diffusers.SanaPipeline(None, None, None, network, scheduler)
    (text, mask), (other, other_mask) = _text(2, 2), _text(2, 5)
    call = {
        "prompt": None,
        "prompt_embeds": text,
        "prompt_attention_mask": mask,
        "negative_prompt": None,
        "height": 128,
        "width": 128,
        "use_resolution_binning": False,
    }
    guided = {"negative_prompt_embeds": other, "negative_prompt_attention_mask": other_mask}
    return Case(pipe, call, guided, 4.5)


def qwen() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=(8, 4, 4),
        )
    )
    pipe = diffusers.QwenImagePipeline(_euler(use_dynamic_shifting=True), None, None, None, network)
    (text, mask), (other, other_mask) = _text(2, 2), _text(2, 5)
    call = {"prompt_embeds": text, "prompt_embeds_mask": mask, "height": 64, "width": 64}
    return Case(pipe, call, {"negative_prompt_embeds": other, "negative_prompt_embeds_mask": other_mask}, 4.0)


def lumina2() -> Case:
    import diffusers

    network = _made(
        lambda: diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=3,
            num_kv_heads=1,
            multiple_of=2,
            axes_dim_rope=(4, 2, 2),
            axes_lens=(128, 128, 128),
            cap_feat_dim=32,
        )
    )
    pipe = diffusers.Lumina2Pipeline(network, _euler(shift=6.0), None, None, None)
    (text, mask), (other, other_mask) = _text(2, 2), _text(2, 5)
    call = {"prompt_embeds": text, "prompt_attention_mask": mask, "height": 32, "width": 32}
    guided = {"negative_prompt_embeds": other, "negative_prompt_attention_mask": other_mask}
    return Case(pipe, call, guided, 4.0)


CASES: Mapping[str, Callable[[], Case]] = {
    "SD3Transformer2DModel": sd3,
    "FluxTransformer2DModel": flux,
    "WanTransformer3DModel": wan,
    "LTXVideoTransformer3DModel": ltx,
    "SanaTransformer2DModel": sana,
    "QwenImageTransformer2DModel": qwen,
    "Lumina2Transformer2DModel": lumina2,
}
"""By the class of the network."""

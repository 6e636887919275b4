"""Noise, data like images, and semidiscrete couplings between them."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from rheos.core import Rng
from rheos.couplings import Semidiscrete


def fit(data: Tensor, seed: int = 0, **options: Any) -> Semidiscrete:
    """A coupling fitted to its target."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Semidiscrete(**options).fit(data, None, Rng(seed))


def noise(count: int, *shape: int, seed: int = 9, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal noise, a key a row."""
    return Rng(seed).rows(torch.arange(count)).normal(*shape, dtype=dtype)


def images(count: int, d: int, seed: int = 0) -> Tensor:
    """Points like images: clusters, and variances that fall off fast from axis to axis."""
    rng = Rng(seed)
    scale = 8.0 / (1 + torch.arange(d)) ** 0.9
    centres = rng.fold(0).normal(20, d) * scale
    kind = (rng.fold(1).uniform(count) * 20).long()
    size = 0.5 + rng.fold(2).uniform(count, 1)
    turned = torch.linalg.qr(rng.fold(3).normal(d, d)).Q
    return (centres[kind] + size * rng.fold(4).normal(count, d) * scale) @ turned + 0.3

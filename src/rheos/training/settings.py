"""The numbers of a training run, each with the reason for its default."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, final, get_args

from ..core import InputError

Precision = Literal["float32", "bfloat16"]
Decay = Literal["cosine", "constant"]

LARGEST_STRIDE = 8
"""Steps between two updates of the power-function averages: they change slowly, and every pass over the weights
costs."""


@final
@dataclass(frozen=True)
class Training:
    """How long, how fast, how precisely to train, and what to write while training.

    Attributes:
        steps: optimiser steps of the whole run.
        batch: rows of the global batch, over all processes and all accumulated parts.
        accumulate: parts into which each process cuts its share; the gradient is that of the whole share. 1: memory
            allows.
        learning_rate: the highest rate. 2e-3 is the best of a pilot on small UNets; large transformers want 1e-4.
        warmup: share of the steps over which the rate rises from zero, while Adam's second moments are still unknown.
        decay: what follows: half a cosine down to zero, which wins in short runs, or a constant rate.
        betas: Adam's decays. .99 rather than .999 for the second moment: a run of some hundred steps must forget its
            start.
        weight_decay: decoupled decay of matrices; vectors (biases, gains) are never decayed. 0, as in ADM and DiT.
        clip: the largest norm of the whole gradient, ``inf`` for none. 1 cuts the rare outliers near t = 0 and 1.
        ema_decay: the longest memory of the averaged weights; step n uses ``min(ema_decay, (1 + n)/(10 + n))``, so
            that an average is good from the first step on.
        snapshots: how often in the run the power-function averages are kept, from which any average is rebuilt
            afterwards (:mod:`rheos.training.ema`). 0 keeps none.
        widths: relative widths of those averages (Karras et al. 2024, section 3.2).
        drop: share of rows whose condition is made unknown, which guidance needs. .1, as everywhere in the literature.
        precision: of the network's arithmetic; weights, averages and losses stay float32.
        compile: hand the loss to ``torch.compile``. Off: compiling takes longer than a short run.
        channels_last: memory layout of 4-d states and weights; convolutions on CPUs and tensor cores are faster in it.
        deterministic: ask PyTorch for deterministic kernels, which a bit-exact resume on a GPU needs. CPUs have no
            others.
        workers: processes that read data ahead; 0 suits data in memory. The result is the same.
        pairs: noise and data that a coupling joins at a time; 0 takes 1024, or all data where there are fewer. The
            more, the straighter the paths, at a price that grows with their square.
        couplers: processes that join them ahead, where there is a coupling; 0 joins them in the training process. One,
            because it costs the step nothing. The result is the same.
        log_every: steps between two lines of ``metrics.jsonl``; a line is the mean over them.
        sample_every: steps between two drawings of samples; 0 draws none.
        checkpoint_every: steps between two checkpoints; a kill loses no more than that.
        keep: how many checkpoints stay on disk. More than one, because a damaged one is replaced by its predecessor.

    Raises:
        InputError: if a number is out of range.
    """

    steps: int = 1000
    batch: int = 128
    accumulate: int = 1
    learning_rate: float = 2e-3
    warmup: float = 0.05
    decay: Decay = "cosine"
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float = 1.0
    ema_decay: float = 0.999
    snapshots: int = 8
    widths: tuple[float, float] = (0.05, 0.10)
    drop: float = 0.1
    precision: Precision = "float32"
    compile: bool = False
    channels_last: bool = False
    deterministic: bool = False
    workers: int = 0
    pairs: int = 0
    couplers: int = 1
    log_every: int = 10
    sample_every: int = 500
    checkpoint_every: int = 200
    keep: int = 3

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulate", "log_every", "checkpoint_every", "keep"):
            self._demand(name, "an integer of at least 1", self._whole(name, 1))
        for name in ("snapshots", "workers", "pairs", "couplers", "sample_every"):
            self._demand(name, "an integer of at least 0", self._whole(name, 0))
        for name in ("learning_rate", "clip"):
            self._demand(name, "positive", getattr(self, name) > 0)
        self._demand("learning_rate", "finite", math.isfinite(self.learning_rate))
        self._demand("weight_decay", "0 or more, and finite", 0 <= self.weight_decay < math.inf)
        for name in ("warmup", "drop", "ema_decay"):
            self._demand(name, "in [0, 1)", 0 <= getattr(self, name) < 1)
        self._demand("betas", "two numbers in [0, 1)", len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas))
        # sqrt(1/12) is the width of the flat average (gamma = 0).
        apart = len(self.widths) == 2 and 0 < self.widths[0] < self.widths[1] < 12**-0.5
        self._demand("widths", "two rising numbers in (0, 0.288)", apart)
        self._demand("precision", f"one of {', '.join(get_args(Precision))}", self.precision in get_args(Precision))
        self._demand("decay", f"one of {', '.join(get_args(Decay))}", self.decay in get_args(Decay))
        if self.batch % self.accumulate:
            raise InputError(
                f"a batch of {self.batch} rows cannot be cut into accumulate={self.accumulate} equal parts."
            )

    def share(self, world: int) -> int:
        """Rows of each process.

        Raises:
            InputError: if the batch cannot be shared by ``world`` processes of ``accumulate`` parts each.
        """
        if self.batch % (world * self.accumulate):
            raise InputError(
                f"a batch of {self.batch} rows cannot be shared by {world} processes of {self.accumulate} equal parts; "
                f"take a multiple of {world * self.accumulate}."
            )
        return self.batch // world

    @property
    def stride(self) -> int:
        """Steps between two updates of the power-function averages."""
        return max(1, min(LARGEST_STRIDE, self.steps // 64))

    @property
    def snapshot_steps(self) -> frozenset[int]:
        """The steps after which the power-function averages are kept: evenly spread, each a multiple of the stride."""
        last = self.steps // self.stride
        count = min(self.snapshots, last)
        return frozenset(self.stride * (last * (i + 1) // count) for i in range(count))

    def _whole(self, name: str, least: int) -> bool:
        value = getattr(self, name)
        return isinstance(value, int) and not isinstance(value, bool) and value >= least

    def _demand(self, name: str, what: str, met: bool) -> None:
        if not met:
            raise InputError(f"{name} must be {what}, got {getattr(self, name)!r}.")

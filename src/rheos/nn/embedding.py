"""What a network is told beside its state: the time, and the condition.

A time t in [0, 1] becomes ``cos(w t)`` and ``sin(w t)`` at frequencies ``w`` in geometric progression from 64 to 1
radians, then passes a two-layer perceptron. Networks of discrete steps have frequencies up to 1000 (Ho et al. 2020),
which tell neighbouring steps apart and leave the velocity rough between them: a solver of any order then errs by that
roughness, and so does a derivative in time (Lu and Song 2024 lower them for that reason). A label adds a row of a
table; a vector adds the output of another perceptron. *Unknown* (a label of -1, a NaN, or no condition at all) has an
embedding of its own, so that one network is conditional and unconditional at once, as classifier-free guidance needs
(Ho and Salimans 2022).

A network of two times is also told where a step ends, by the gap from t to there, through a perceptron of its own whose
last layer starts at zero. Without an end the gap is 0. So it begins as the network of one time that it was, and stays a
velocity wherever no end is given.

A network with guidance built in is told its scale w (Meng et al. 2023, "On distillation of guided diffusion models")
through one more perceptron of that kind, as sinusoids of ``w/(1 + |w|)``: bounded, as frequencies chosen for [0, 1]
need, and told apart best where they are small and most in use. Without one the scale is 1, which is no guidance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..core import Cond, InputError, ShapeError, as_time, nearest

FASTEST, SLOWEST = 64.0, 1.0
"""The frequencies of the time, in radians from noise to data, lie between these."""


def sinusoids(t: Tensor, width: int) -> Tensor:
    """Cosines, then sines, of ``width / 2`` frequencies: ``(...)`` to ``(..., width)``, float32 or wider.

    Raises:
        InputError: if ``width`` is odd.
    """
    if width % 2 or width < 2:
        raise InputError(f"sinusoids come in pairs: their number must be even and at least 2, got {width}.")
    half = width // 2
    dtype = torch.promote_types(t.dtype, torch.float32)
    powers = torch.linspace(math.log2(FASTEST), math.log2(SLOWEST), half, device=t.device, dtype=dtype)
    angles = t.to(dtype)[..., None] * powers.exp2()
    return torch.cat([angles.cos(), angles.sin()], -1)


@final
class Embedding(nn.Module):
    """The sum of the embeddings of time, label and vector.

    Computed in float32 under autocast too: bfloat16 tells times no closer than 1/256 apart near data.

    Args:
        width: the number of features that come out.
        frequencies: the number of sinusoids (even).
        classes: the number K of labels; 0 for a network without labels.
        vector: the number D of entries of a condition vector; 0 for none.
        learned_null: whether the table has a row K for the unknown label. Without it the unknown label adds zero, which
            can express no less (the time's bias takes its place) and is the table of networks trained on labels only.
        two_times: whether it is told where a step ends, too.
        guided: whether it is told a scale of guidance, too.
    """

    def __init__(
        self,
        width: int,
        frequencies: int,
        classes: int = 0,
        vector: int = 0,
        learned_null: bool = True,
        two_times: bool = False,
        guided: bool = False,
    ) -> None:
        super().__init__()
        if classes < 0 or vector < 0:
            raise InputError(f"classes and vector count labels and entries, got {classes} and {vector}.")
        self.frequencies, self.classes, self.vector, self.learned_null = frequencies, classes, vector, learned_null
        self.two_times, self.guided = two_times, guided
        self.time = perceptron(frequencies, width)
        if classes:
            self.table = nn.Embedding(classes + learned_null, width)
        if vector:
            # Entries and whether each is known: the weights of the second half are the learned null vector.
            self.entries = perceptron(2 * vector, width)
        if two_times:
            self.gap = perceptron(frequencies, width)
        if guided:
            self.scale = perceptron(frequencies, width)
        self.still()

    def still(self) -> None:
        """Start the embeddings of gaps and of scales at zero."""
        for layers in (*([self.gap] if self.two_times else []), *([self.scale] if self.guided else [])):
            for weights in layers[-1].parameters():
                nn.init.zeros_(weights)

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        cond: Cond | None = None,
        s: Tensor | float | None = None,
        scale: Tensor | float | None = None,
    ) -> Tensor:
        """Embed ``t``, ``s`` and ``scale`` of shape ``()`` or ``(B,)`` and ``cond`` for the state ``x`` of B rows.

        Returns:
            ``(B, width)``, or ``(1, width)`` when every row has the same: one time, and no condition.

        Raises:
            ShapeError: if time or condition does not fit the rows of ``x``.
            InputError: if the condition is not of the kind that the network was built for.
        """
        t = self._clock(t, x)
        label, vector = self._parts(x, cond)
        gap, strength = self._gap(t, s, x), self._strength(scale, x)
        kind = x.device.type
        if not torch.amp.is_autocast_available(kind):
            return self._sum(t, label, vector, gap, strength)
        with torch.autocast(kind, enabled=False):
            return self._sum(t, label, vector, gap, strength)

    def _clock(self, t: Tensor | float, x: Tensor) -> Tensor:
        t = as_time(t, x)
        if t.dim() > 1:
            raise ShapeError(f"this network takes one time () or one a sample (B,), got {tuple(t.shape)}.")
        return t

    def _gap(self, t: Tensor, s: Tensor | float | None, x: Tensor) -> Tensor | None:
        """From ``t`` to the end of the step; ``None`` for a network of one time."""
        if self.two_times:
            return torch.zeros_like(t) if s is None else self._clock(s, x) - t
        if s is not None:
            raise InputError(
                "this network knows one time, and was told where a step ends; build it with two_times=True, or make a "
                "run of two times of its run by `rheos distill`."
            )
        return None

    def _strength(self, scale: Tensor | float | None, x: Tensor) -> Tensor | None:
        """The scale of guidance in the bounded form in which it is read; ``None`` for a network without."""
        if not self.guided:
            if scale is not None:
                raise InputError(
                    "this network has no guidance built in, and was told a scale; build it with guided=True, make such "
                    "a run by `rheos distill --guidance LOW HIGH`, or contrast it by guidance.ClassifierFree."
                )
            return None
        scale = torch.ones((), device=x.device) if scale is None else torch.as_tensor(scale, device=x.device)
        if scale.shape not in ((), x.shape[:1]):
            raise ShapeError(
                f"a scale of guidance is one number () or one a row {tuple(x.shape[:1])}, got {tuple(scale.shape)}."
            )
        return functional.softsign(scale.to(torch.promote_types(scale.dtype, torch.float32)))

    def _sum(
        self,
        t: Tensor,
        label: Tensor | None,
        vector: Tensor | None,
        gap: Tensor | None,
        strength: Tensor | None,
    ) -> Tensor:
        dtype = next(self.time.parameters()).dtype
        total = self.time(sinusoids(t.reshape(-1), self.frequencies).to(dtype))
        if self.classes:
            total = total + self._label(label, t.device)
        if self.vector:
            if vector is None:
                vector = torch.full((1, self.vector), math.nan, device=t.device)
            known = ~vector.isnan()
            total = total + self.entries(torch.cat([torch.where(known, vector, 0.0), known], -1).to(dtype))
        if gap is not None:
            total = total + self.gap(sinusoids(gap.reshape(-1), self.frequencies).to(dtype))
        if strength is not None:
            total = total + self.scale(sinusoids(strength.reshape(-1), self.frequencies).to(dtype))
        return total

    def _label(self, label: Tensor | None, device: torch.device) -> Tensor:
        if label is None:
            label = torch.full((1,), -1, device=device)
        if self.learned_null:
            return self.table(torch.where(label < 0, self.classes, label))
        return self.table(label.clamp(min=0)) * (label >= 0)[:, None]

    def _parts(self, x: Tensor, cond: Cond | None) -> tuple[Tensor | None, Tensor | None]:
        """The label and the vector of a condition, checked against what the network was built for."""
        if cond is None:
            return None, None
        if not isinstance(cond, Mapping):
            cond = {"vector" if cond.is_floating_point() else "label": cond}
        for name in cond:
            if name not in ("label", "vector"):
                raise InputError(f"this network has no condition {name!r}; {nearest(name, ('label', 'vector'))}")
        label, vector = cond.get("label"), cond.get("vector")
        if label is not None:
            self._check_label(x, label)
        if vector is not None:
            self._check_vector(x, vector)
        return None if label is None else label.long(), vector

    def _check_label(self, x: Tensor, label: Tensor) -> None:
        if not self.classes:
            raise InputError("this network was built without labels, and got some; build it with classes=K.")
        if label.is_floating_point() or label.dtype == torch.bool:
            raise InputError(f"labels are int64, got {label.dtype}; convert them with .long().")
        if label.shape != x.shape[:1]:
            raise ShapeError(f"labels are one a row, {tuple(x.shape[:1])}, got {tuple(label.shape)}.")
        # Reading the values of a tensor on an accelerator would wait for it, and would break a compiled graph.
        if label.device.type == "cpu" and not torch.compiler.is_compiling() and len(label):
            low, high = (int(end) for end in torch.aminmax(label))
            if low < -1 or high >= self.classes:
                raise InputError(
                    f"labels must lie in 0 .. {self.classes - 1}, or be -1 for unknown; got {low} .. {high}. "
                    f"Build the network with classes={high + 1}, or renumber the labels."
                    if low >= -1
                    else f"labels must lie in 0 .. {self.classes - 1}, or be -1 for unknown; got {low}. Renumber them."
                )

    def _check_vector(self, x: Tensor, vector: Tensor) -> None:
        if not self.vector:
            width = vector.shape[-1] if vector.dim() else 1
            raise InputError(f"this network was built without condition vectors; build it with vector={width}.")
        if not vector.is_floating_point():
            raise InputError(f"condition vectors are floating numbers, got {vector.dtype}; convert with .float().")
        if vector.shape != (x.shape[0], self.vector):
            raise ShapeError(
                f"condition vectors have the shape {(x.shape[0], self.vector)}, got {tuple(vector.shape)}."
            )


def perceptron(inside: int, width: int) -> nn.Sequential:
    """Two layers with a SiLU between them."""
    return nn.Sequential(nn.Linear(inside, width), nn.SiLU(), nn.Linear(width, width))

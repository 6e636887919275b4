r"""Couplings that see the condition, so that the noise stays independent of it.

Optimal transport of noise and data alone ties noise to conditions: training then meets, under a condition, noise that
is skewed towards it, while sampling starts from noise that is not (Cheng and Schwing 2025, "The curse of conditions").
Here the noise of a row arrives with the condition c of that row, of which it knows nothing, and pairs minimise

``sum |x0[i] - x1[j]|**2 + w*|c[i] - c[j]|**2``

For labels w is infinite: noise and data are joined within a class, and what noise a class meets is what it arrived
with. For vectors w is finite and found anew for each batch. A noise i is a candidate of the datum j when the pair costs
no more than j and its own noise, ``|x0[i] - x1[j]|**2 + w*|c[i] - c[j]|**2 <= |x0[j] - x1[j]|**2``. The share of
candidates falls as w grows; w is where it is a given one. Each pair of rows leaves the candidates at a weight that is
known, so that w is an order statistic of these and nothing is searched for.

Limits: share -> 0 leaves every row its own noise, independent pairs; w = 0 is the inner coupling, which ignores
conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self, final

import torch
from torch import Tensor

from ..core.condition import Cond
from ..core.errors import CheckpointError, InputError, ShapeError
from ..core.protocols import Coupling, DatasetCoupling, Pairs, fits
from ..core.rng import Rng

PROBED = 512
"""Data of a batch that the weight of a continuous condition is found from; more would cost as much as the coupling."""

Class = tuple[int, ...]


class _Part(NamedTuple):
    """The data of one class, int64 (n,), and what was fitted to them; nothing where there is a single one."""

    members: Tensor
    coupling: DatasetCoupling[Tensor] | None


class _Block(NamedTuple):
    """Noise that is joined with data: rows of either, int64, and what is appended to each. Without a coupling each
    noise takes the datum beside it, or the only one."""

    noise: Tensor
    data: Tensor
    coupling: Coupling[Tensor] | None
    appended: Tensor | None = None

    def of(self, rows: Tensor) -> _Block:
        """The block where its rows are places among ``rows``."""
        return self._replace(noise=rows[self.noise], data=rows[self.data])


@final
@dataclass(frozen=True)
class Conditional:
    """A coupling within a condition: by class for labels, by an adaptive weight for vectors, and both for a mapping
    that has both.

    Labels are integers; all those of a row are one class, and an unknown label, -1, is a label like any other, so that
    every datum is joined as often as without labels. A class with one row joins that row with its own noise. In vectors
    NaN is unknown: rows are joined only where the same entries are unknown, by the entries that are known. Several
    vectors count alike, each in units of its own spread. Where no condition is given the coupling is the inner one.

    Around a coupling of a whole dataset it is one itself, of labels only: fitted once a class, and a noise finds its
    datum within its class; a class with one datum joins all its noise with that one.

    Args:
        inner: joins noise and data of one class, or noise and data that the weighted condition is appended to.
        share: for vectors, the share of other rows' noise that a datum may take instead of its own, in (0, 1). A larger
            one saves more of the cost, and beyond about 0.1 the noise begins to tell of the condition: `diagnose` says.

    Raises:
        InputError: if the share is not in (0, 1), or the inner coupling is independent, hence of the condition too.
    """

    inner: Coupling[Tensor]
    share: float = 0.05
    _parts: Mapping[Class, _Part] | None = field(default=None, init=False, repr=False, compare=False)

    independent: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise InputError(f"the share of candidates is between 0 and 1, got {self.share}; 0.05 is usual.")
        if self.inner.independent:
            raise InputError(
                f"{type(self.inner).__name__} joins noise and data whatever they are, hence whatever the condition is "
                "too; use it alone."
            )

    @property
    def fitted(self) -> bool | None:
        """Whether it was fitted to a dataset; ``None`` when the inner coupling is none of a dataset."""
        return self._parts is not None if fits(self.inner) else None

    def __call__(self, x0: Tensor, x1: Tensor, cond: Cond | None = None, rng: Rng | None = None) -> Pairs[Tensor]:
        """Join noise (B, ...) and data (B, ...) with their conditions; for a fitted one data (N, ...), the dataset, and
        a condition a noise. ``gap`` is that of what is minimised, within the classes and with the condition appended.

        Raises:
            ShapeError: if there is not one condition a noise, or a datum a noise.
            InputError: if a condition is infinite, or what :meth:`assign` raises.
        """
        if fits(self.inner):
            return _joined(self._within(self._known(), x0, x1, cond), x0, x1, rng)
        if cond is None:
            return self.inner(x0, x1, None, rng)
        if len(x0) != len(x1):
            raise ShapeError(
                f"a noise takes the condition of its row, so noise and data need as many rows: got {len(x0)} and "
                f"{len(x1)}."
            )
        return _joined(self._blocks(x0, x1, cond), x0, x1, rng)

    def fit(self, data: Tensor, cond: Cond | None, rng: Rng) -> Self:
        """The same coupling, fitted to the data of each class by themselves.

        Raises:
            InputError: if there are no labels, or vectors among them, or the inner coupling is not one of a dataset.
        """
        inner, parts = self._inner(), {}
        for name, rows in classes(_labels(cond, data)).items():
            key = rng.joint()
            for label in name:
                key = key.fold(label)
            parts[name] = _Part(rows, inner.fit(data[rows], None, key) if len(rows) > 1 else None)
        return self._with(parts)

    def assign(self, x0: Tensor, cond: Cond | None = None) -> Tensor:
        """The datum of each noise (B, ...) within its label, int64 (B,).

        Raises:
            InputError: if it is not fitted, there are no labels, or the data had none of a noise's label.
        """
        parts = self._known()
        j = torch.empty(len(x0), dtype=torch.int64, device=x0.device)
        for name, rows in classes(_labels(cond, x0)).items():
            members, coupling = _part(parts, name)
            j[rows] = members[:1] if coupling is None else members[coupling.assign(x0[rows], None)]
        return j

    def tensors(self) -> Mapping[str, Tensor]:
        """What was fitted to each class, under ``class.LABEL.NAME``."""
        return {
            f"class.{_text(name)}.{key}": value
            for name, part in self._known().items()
            if part.coupling is not None
            for key, value in part.coupling.tensors().items()
        }

    def restored(self, data: Tensor, cond: Cond | None, tensors: Mapping[str, Tensor]) -> Self:
        """The coupling that :meth:`tensors` described, of the same data.

        Raises:
            CheckpointError: if the data have other classes.
        """
        inner, groups = self._inner(), classes(_labels(cond, data))
        stored: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            _, label, name = key.split(".", 2)
            stored.setdefault(label, {})[name] = value
        wanted = {_text(name) for name, rows in groups.items() if len(rows) > 1}
        if stored.keys() != wanted:
            raise CheckpointError(
                f"what was fitted is of the classes {_listed(stored)}, but the data have {_listed(wanted)}; it belongs "
                "to another dataset. Fit it again."
            )
        return self._with(
            {
                name: _Part(rows, inner.restored(data[rows], None, stored[_text(name)]) if len(rows) > 1 else None)
                for name, rows in groups.items()
            }
        )

    def _inner(self) -> DatasetCoupling[Tensor]:
        if not fits(self.inner):
            raise InputError(f"{type(self.inner).__name__} joins batches and is not fitted to a dataset; call it.")
        return self.inner

    def _known(self) -> Mapping[Class, _Part]:
        if self._parts is None:
            raise InputError("this coupling knows no data yet; call fit(data, labels, rng), or restored, first.")
        return self._parts

    def _with(self, parts: Mapping[Class, _Part]) -> Self:
        out = replace(self)
        object.__setattr__(out, "_parts", parts)
        return out

    def _blocks(self, x0: Tensor, x1: Tensor, cond: Cond) -> Iterator[_Block]:
        """Rows that are joined among themselves."""
        labels, near = parted(cond, x1)
        alone = []
        for rows in classes(labels).values():
            if len(rows) == 1:
                alone.append(rows)
            elif near is None:
                yield _Block(rows, rows, self.inner)
            else:
                w, same = _weight(x0[rows], x1[rows], near[rows], self.share)
                if math.isfinite(w):
                    yield _Block(rows, rows, self.inner, near[rows] * math.sqrt(w))
                    continue
                # So many rows share their condition that it is a label.
                yield from (block.of(rows) for block in self._blocks(x0[rows], x1[rows], same))
        if alone:
            yield _Block(torch.cat(alone), torch.cat(alone), None)

    def _within(self, parts: Mapping[Class, _Part], x0: Tensor, x1: Tensor, cond: Cond | None) -> Iterator[_Block]:
        """Noise of each class, and the data of that class."""
        known = sum(len(part.members) for part in parts.values())
        if len(x1) != known:
            raise ShapeError(f"the coupling is fitted to {known} data, got {len(x1)}; give the same dataset.")
        for name, rows in classes(_labels(cond, x0)).items():
            yield _Block(rows, *_part(parts, name))


def classes(labels: Tensor) -> dict[Class, Tensor]:
    """The rows of each class, int64 and rising, by the labels (B, K) of all rows."""
    names, member, counts = labels.unique(dim=0, return_inverse=True, return_counts=True)
    rows = member.argsort(stable=True).split(counts.tolist())
    return dict(zip(map(tuple, names.tolist()), rows, strict=True))


def parted(cond: Cond, rows: Tensor) -> tuple[Tensor, Tensor | None]:
    """What two of the ``rows`` (B, ...) must share to be joined, int64 (B, K), and what is to be near, (B, D) in
    float64, on the device of the rows.

    Vectors are centred, of unit spread, and 0 where they are unknown.

    Raises:
        ShapeError: if there is not one condition a row.
        InputError: if one is infinite.
    """
    count, exact, near = len(rows), [], []
    for value in cond.values() if isinstance(cond, Mapping) else [cond]:
        if value.dim() == 0 or len(value) != count:
            raise ShapeError(f"there are {count} rows, but a condition of shape {tuple(value.shape)}; give one a row.")
        flat = value.detach().to(rows.device).reshape(count, math.prod(value.shape[1:]))
        if not flat.is_floating_point():
            exact.append(flat.to(torch.int64))
            continue
        if bool(flat.isinf().any()):
            raise InputError("a condition is infinite; mend it, or write NaN where it is unknown.")
        unknown = flat.isnan()
        if bool(unknown.any()):
            exact.append(unknown.to(torch.int64))
        flat = flat.double()
        centred = (flat - flat.nanmean(0)).masked_fill(unknown, 0.0)
        near.append(centred / centred.square().sum().sqrt().clamp_min(torch.finfo(torch.float64).tiny))
    labels = torch.cat(exact, 1) if exact else torch.zeros(count, 1, dtype=torch.int64, device=rows.device)
    return labels, torch.cat(near, 1) if near else None


def _weight(x0: Tensor, x1: Tensor, c: Tensor, share: float) -> tuple[float, Tensor]:
    """The weight at which ``share`` of the pairs (i, j), i != j, are candidates, and the numbers (B,) of the distinct
    conditions. It is infinite when more candidates than that have one condition, and 0 when there are fewer anyway."""
    count, probed = len(c), min(len(c), PROBED)
    same = c.unique(dim=0, return_inverse=True)[1]
    cost = torch.cdist(x0.detach().flatten(1).double(), x1[:probed].detach().flatten(1).double()).square_()
    saved = cost.diagonal() - cost
    # Distances by matrix products leave a rounding error where two conditions are equal.
    alike = same[:, None] == same[:probed]
    leaves = torch.where(
        alike, torch.where(saved >= 0, math.inf, -math.inf), saved / torch.cdist(c, c[:probed]).square_()
    )
    leaves.fill_diagonal_(-math.inf)
    others = probed * (count - 1)
    wanted = max(1, round(share * others))
    w = float(leaves.flatten().kthvalue(leaves.numel() - wanted + 1).values)
    return max(0.0, w), same


def _joined(blocks: Iterator[_Block], x0: Tensor, x1: Tensor, rng: Rng | None) -> Pairs[Tensor]:
    """The pairs of all blocks, each at the places of its noise; the gaps by what their pairs cost."""
    key = None if rng is None else Rng.of(rng).joint()
    i = torch.arange(len(x0), device=x0.device)
    j, bound, total = i.clone(), 0.0, 0.0
    for number, (noise, data, coupling, appended) in enumerate(blocks):
        a, b = x0[noise], x1[data]
        if coupling is None:
            j[noise] = data
            total += _cost(a, b)
            continue
        if appended is not None:
            a, b = (torch.cat([x.detach().flatten(1), appended.to(x.dtype)], 1) for x in (a, b))
        pairs = coupling(a, b, None, None if key is None else key.fold(number))
        i[noise], j[noise] = noise[pairs.i], data[pairs.j]
        cost = _cost(pairs.x0, pairs.x1)
        bound, total = bound + (math.nan if pairs.gap is None else pairs.gap * cost), total + cost
    gap = None if math.isnan(bound) else bound / total if total else 0.0
    return Pairs(x0[i], x1[j], i, j, gap)


def _cost(x0: Tensor, x1: Tensor) -> float:
    return float((x0.detach().double() - x1.detach().double()).square().sum())


def _labels(cond: Cond | None, rows: Tensor) -> Tensor:
    """The labels of all rows, int64 (B, K)."""
    if cond is None:
        raise InputError(
            "a coupling that is fitted once a class needs labels; give cond, or use the inner coupling alone."
        )
    labels, near = parted(cond, rows)
    if near is not None:
        raise InputError(
            "a coupling of a whole dataset is fitted once a class, and a vector is no class; give labels, or couple "
            "batches: Conditional(BatchOT())."
        )
    return labels


def _part(parts: Mapping[Class, _Part], name: Class) -> _Part:
    if name not in parts:
        raise InputError(
            f"the data that the coupling was fitted to have no label {_text(name)}; they have "
            f"{_listed(map(_text, parts))}. Fit it to data of every label that is asked for."
        )
    return parts[name]


def _text(name: Class) -> str:
    return ",".join(map(str, name))


def _listed(names: Iterator[str] | Mapping[str, object] | set[str]) -> str:
    ordered = sorted(names, key=lambda name: [int(label) for label in name.split(",")])
    return ", ".join(ordered[:8]) + (f" and {len(ordered) - 8} more" if len(ordered) > 8 else "")

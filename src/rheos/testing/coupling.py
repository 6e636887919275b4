"""The laws of a coupling."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random, getstate, setstate
from typing import Any

import torch
from numpy import random as numpy_random
from safetensors.torch import load, save
from torch import Tensor

from ..core.errors import RheosError
from ..core.protocols import Coupling, DatasetCoupling, Pairs, fits
from ..core.rng import Rng
from .law import SEED, agree, lawful, normal, refuses, require

DRAWS = 256
"""Times that a coupling which samples is asked for pairs."""

NOISES = 64
"""Noises a datum that a coupling of a dataset is given."""

ERRORS = 5
"""Standard errors by which a frequency may differ from what it should be."""


def check_coupling(
    coupling: Coupling[Tensor],
    *,
    rows: int = 8,
    shape: tuple[int, ...] = (3,),
    balanced: bool = True,
    classes: int | None = None,
    unequal: float = 0.0,
) -> None:
    """Hold a coupling against its laws, in float32 and float64, on the CPU and on CUDA where there is one.

    Every row of the noise is used once, so that the start keeps its law, and every datum once or, where the coupling
    samples, equally often in the mean; ``x0 = noise[i]`` and ``x1 = data[j]``; rng alone decides, whatever the global
    generators of PyTorch, NumPy and Python hold, and these are left alone; the arguments are left as they were; a
    coupling that calls itself independent pairs without looking at the values; CUDA gives pairs of the same law.

    A coupling of a whole dataset is fitted first. Each noise then finds its datum by itself, what was fitted comes back
    from a file bit by bit, and other data are refused.

    Args:
        coupling: the coupling.
        rows: rows of the batches to join, or data of the dataset; at least 2.
        shape: the shape of a row.
        balanced: whether every datum is to be joined equally often; not for a coupling that leaves data out on purpose.
        unequal: by how much the frequencies of data may be wrong beyond chance, relative, in the root mean square: the
            square root of the chi-squared that a coupling is fitted to.
        classes: of a coupling that is conditional, how many labels to give; then each noise must be joined with a datum
            of the label that it arrived with.

    Raises:
        AssertionError: if a law is broken.
    """
    given = _Given(rows, shape, classes)
    cuda = [torch.device("cuda")] if torch.cuda.is_available() else []
    for device in (torch.device("cpu"), *cuda):
        for dtype in (torch.float64, torch.float32):
            _check_batches(coupling, replace(given, device=device, dtype=dtype))
    if balanced:
        _check_frequencies(coupling, given, unequal)
    if coupling.independent:
        _check_independence(coupling, given)
    for device in cuda:
        check_same_law(_costs(coupling, given), _costs(coupling, replace(given, device=device)))


@dataclass(frozen=True)
class _Given:
    """What the coupling is given. Noise r arrives with the label of datum r, and again after every ``rows`` rows."""

    rows: int
    shape: tuple[int, ...]
    classes: int | None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float64

    def values(self, count: int, stream: int) -> Tensor:
        return normal(count, *self.shape, stream=stream, dtype=self.dtype).to(self.device)

    def cond(self, count: int) -> Tensor | None:
        if self.classes is None:
            return None
        return torch.arange(count, device=self.device) % self.rows % self.classes

    def join(self, coupling: Coupling[Tensor], noise: Tensor, data: Tensor, rng: Rng | None = None) -> Pairs[Tensor]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return coupling(noise, data, self.cond(len(noise)), Rng(SEED) if rng is None else rng)


def _check_batches(coupling: Coupling[Tensor], given: _Given) -> None:
    if not fits(coupling):
        for count in (1, 2, given.rows):
            _check_pairs(coupling, given, given.values(count, 0), given.values(count, 1))
        return
    data = given.values(given.rows, 1)
    fitted = _check_fit(coupling, given, data)
    for count in (1, 2, given.rows, 3 * given.rows):
        _check_pairs(fitted, given, given.values(count, 0), data)
    _check_alone(fitted, given, data)
    _check_restored(coupling, fitted, given, data)


def _check_pairs(coupling: Coupling[Tensor], given: _Given, noise: Tensor, data: Tensor) -> None:
    count, kept = len(noise), (noise.clone(), data.clone())
    pairs = given.join(coupling, noise, data)
    same = torch.equal(noise, kept[0]) and torch.equal(data, kept[1])
    require(same, "a coupling leaves its arguments as they are.")
    i, j = pairs.i, pairs.j
    once = i.dtype == torch.int64 and torch.equal(i.sort().values, torch.arange(count, device=i.device))
    require(once, f"i uses every one of {count} rows once, in int64: it is {i.tolist()}.")
    named = j.dtype == torch.int64 and j.shape == (count,) and bool(((j >= 0) & (j < len(data))).all())
    require(named, f"j is one of {len(data)} data for each of {count} rows, in int64: it is {j.tolist()}.")
    for law, got, want in (("x0 is noise[i]", pairs.x0, noise[i]), ("x1 is data[j]", pairs.x1, data[j])):
        agree(law, got, want, 0.0)
        require(got.dtype == want.dtype, f"{law}: it is {got.dtype} and should be {want.dtype}.")
    gap = pairs.gap
    require(gap is None or (math.isfinite(gap) and gap >= 0), f"gap is finite and not negative, or None: it is {gap}.")
    require(
        _equal(given.join(coupling, noise, data), pairs),
        "the same noise, data and rng give the same pairs.",
    )
    for seed in (1, 2):
        with _other_globals(seed):
            again = given.join(coupling, noise, data)
        require(_equal(again, pairs), "rng alone decides: with other global generators the pairs were others.")
    with lawful("a coupling takes an rng with a key a row"):
        keyed = given.join(coupling, noise, data, Rng(SEED).rows(torch.arange(count, device=noise.device)))
    shapes = tuple(keyed.i.shape), tuple(keyed.j.shape)
    require(shapes == ((count,),) * 2, f"a coupling takes an rng with a key a row: i and j are of the shapes {shapes}.")
    noise_labels, data_labels = given.cond(count), given.cond(len(data))
    if noise_labels is not None and data_labels is not None:
        kept_label = torch.equal(noise_labels[i], data_labels[j])
        require(kept_label, "a conditional coupling joins each noise with a datum of the label that it arrived with.")


@contextmanager
def _other_globals(seed: int) -> Iterator[None]:
    """Other numbers in the global generators; raises if the block draws from one, and puts back what they held."""
    # The states are set, not seeded: seeding is what the library forbids itself everywhere.
    states: dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Any]] = {
        "PyTorch": (torch.get_rng_state, torch.set_rng_state, torch.Generator().manual_seed(seed).get_state()),
        "NumPy": (numpy_random.get_state, numpy_random.set_state, numpy_random.RandomState(seed).get_state()),
        "Python": (getstate, setstate, Random(seed).getstate()),
    }
    if torch.cuda.is_available():
        other = torch.Generator("cuda").manual_seed(seed).get_state()
        states["PyTorch on CUDA"] = (torch.cuda.get_rng_state, torch.cuda.set_rng_state, other)
    kept = {name: read() for name, (read, _, _) in states.items()}
    try:
        for _, write, other in states.values():
            write(other)
        before = {name: repr(_plain(read())) for name, (read, _, _) in states.items()}
        yield
        for name, (read, _, _) in states.items():
            law = f"a coupling leaves the global generators alone: that of {name} was moved."
            require(repr(_plain(read())) == before[name], law)
    finally:
        for name, (_, write, _) in states.items():
            write(kept[name])


def _plain(state: Any) -> Any:
    """A generator's state as numbers that ``repr`` shows whole."""
    if isinstance(state, Tensor):
        return state.tolist()
    if isinstance(state, tuple):
        return [_plain(part) for part in state]
    return state.tolist() if hasattr(state, "tolist") else state


def _check_frequencies(coupling: Coupling[Tensor], given: _Given, unequal: float) -> None:
    """Each datum is joined equally often: exactly, or within what chance explains."""
    data = given.values(given.rows, 1)
    if fits(coupling):
        fitted = coupling.fit(data, given.cond(given.rows), Rng(SEED))
        count = NOISES * given.rows
        drawn = _counts(given.join(fitted, given.values(count, 0), data).j, given.rows)
        mean, error = drawn / NOISES, math.sqrt((1 - 1 / given.rows) / NOISES) * torch.ones(given.rows)
    else:
        noise, counts = given.values(given.rows, 0), []
        for draw in range(DRAWS):
            counts.append(_counts(given.join(coupling, noise, data, Rng(SEED).fold(draw)).j, given.rows))
            if draw == 8 and all(bool((count == 1).all()) for count in counts):
                return
        counts = torch.stack(counts)
        mean, error = counts.mean(0), counts.std(0) / math.sqrt(DRAWS)
    error = (error.square() + unequal**2).sqrt()
    off = (mean - 1).abs() - ERRORS * error
    worst = int(off.argmax())
    require(
        float(off[worst]) <= 1e-9,
        f"every datum is joined equally often in the mean: datum {worst} was joined {float(mean[worst]):.3f} times as "
        f"often, and {ERRORS} standard errors are {ERRORS * float(error[worst]):.3f}.",
    )


def _counts(j: Tensor, count: int) -> Tensor:
    return j.cpu().bincount(minlength=count).double()


def _check_independence(coupling: Coupling[Tensor], given: _Given) -> None:
    require(not fits(coupling), "a coupling that is fitted to data is not independent of them.")
    noise = given.values(given.rows, 0)
    first = _partner(given.join(coupling, noise, given.values(given.rows, 2)))
    for stream in range(3, 8):
        other = _partner(given.join(coupling, noise, given.values(given.rows, stream)))
        require(
            torch.equal(first, other),
            "a coupling whose independent is True pairs the same rows whatever the data: others were paired otherwise.",
        )


def _check_fit(coupling: DatasetCoupling[Tensor], given: _Given, data: Tensor) -> DatasetCoupling[Tensor]:
    """The coupling fitted to the data."""
    before, kept, cond = coupling.fitted, data.clone(), given.cond(len(data))
    if not before:
        law = "a coupling that is not fitted joins nothing"
        _refuses(law, lambda: given.join(coupling, data, data))
        _refuses(law, lambda: coupling.assign(data, cond))
    fitted = coupling.fit(data, cond, Rng(SEED))
    require(fitted.fitted is True, "fit gives a coupling that is fitted.")
    require(coupling.fitted == before, "fit leaves the coupling that it was called on as it was.")
    require(torch.equal(data, kept), "fit leaves the data as they are.")
    held = all(isinstance(value, Tensor) for value in fitted.tensors().values())
    require(held, "tensors() holds tensors, by name.")
    with _other_globals(1):
        again = coupling.fit(data, cond, Rng(SEED))
    require(_alike(again.tensors(), fitted.tensors()), "the same data and rng are fitted alike, bit by bit.")
    return fitted


def _check_alone(fitted: DatasetCoupling[Tensor], given: _Given, data: Tensor) -> None:
    """Each noise finds its datum by itself, in a call and outside of one."""
    noise = given.values(3 * given.rows, 0)
    cond = given.cond(len(noise))
    whole = fitted.assign(noise, cond)
    require(whole.dtype == torch.int64 and whole.shape == (len(noise),), "assign gives one datum a noise, in int64.")
    pairs = given.join(fitted, noise, data)
    require(torch.equal(whole[pairs.i], pairs.j), "a call joins each noise with the datum that assign gives it.")
    rows = torch.arange(len(noise), device=noise.device)
    for part in (rows[:0], *rows.split(given.rows - 1 or 1)):
        alone = fitted.assign(noise[part], None if cond is None else cond[part])
        require(torch.equal(alone, whole[part]), "a noise finds its datum by itself, whatever stands beside it.")


def _check_restored(
    coupling: DatasetCoupling[Tensor], fitted: DatasetCoupling[Tensor], given: _Given, data: Tensor
) -> None:
    """What was fitted comes back from a file, to the same data and to no others."""
    noise, cond = given.values(3 * given.rows, 3), given.cond(len(data))
    with lawful("what was fitted can be kept in a file, and comes back"):
        stored = load(save({name: value.cpu().contiguous() for name, value in fitted.tensors().items()}))
        restored = coupling.restored(data, cond, stored)
    require(restored.fitted is True, "restored gives a coupling that is fitted.")
    require(_alike(restored.tensors(), fitted.tensors()), "what comes back from a file is what was fitted, bit by bit.")
    one, two = (given.join(each, noise, data) for each in (fitted, restored))
    require(_equal(one, two), "resumed equals unbroken: the restored coupling gives the same pairs.")
    others = {"other data": given.values(len(data), 9), "the data in another order": data.roll(1, 0)}
    for name, other in others.items():
        law = f"what was fitted to some data is refused for {name}"
        _refuses(law, lambda other=other: coupling.restored(other, cond, stored))
    law = "a call with fewer data than the coupling was fitted to is refused"
    _refuses(law, lambda: given.join(fitted, noise, data[:-1]))


def _costs(coupling: Coupling[Tensor], given: _Given) -> Tensor:
    """The mean squared distance of the pairs of many batches."""
    data = given.values(given.rows, 1)
    ready = coupling.fit(data, given.cond(given.rows), Rng(SEED)) if fits(coupling) else coupling
    costs = []
    for draw in range(NOISES):
        pairs = given.join(ready, given.values(given.rows, 100 + draw), data, Rng(SEED).fold(draw))
        costs.append((pairs.x0 - pairs.x1).square().sum() / given.rows)
    return torch.stack(costs).cpu()


def check_same_law(one: Tensor, other: Tensor) -> None:
    """Raise unless the costs of the same batches (n,) are alike in the mean on two devices."""
    apart = (one - other).double()
    allowed = ERRORS * float(apart.std()) / math.sqrt(len(apart)) + 1e-4 * float(one.abs().mean())
    off = float(apart.mean().abs())
    require(
        off <= allowed,
        f"CUDA joins as the CPU does: their mean costs differ by {off:.3g}, and {allowed:.3g} is allowed.",
    )


def _refuses(law: str, call: Callable[[], Any]) -> None:
    with lawful(law):
        refuses(law, RheosError, call)


def _equal(one: Pairs[Tensor], other: Pairs[Tensor]) -> bool:
    return torch.equal(one.i, other.i) and torch.equal(one.j, other.j)


def _alike(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(
        value.dtype == other[name].dtype and torch.equal(value.cpu(), other[name].cpu()) for name, value in one.items()
    )


def _partner(pairs: Pairs[Tensor]) -> Tensor:
    """The row of the noise that goes with each row of the data."""
    return pairs.i[pairs.j.argsort()]

"""The laws of a path."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.errors import ShapeError
from ..core.protocols import Path, Quantity
from ..core.rng import Rng
from ..paths import QUANTITIES, Affine
from ..schedules import Frame
from .law import SEED, agree, clocks, keys, lawful, normal, refuses, require, slope

_BATCHES = (1, 2, 3, 5, 8)


def check_path(path: Path[Tensor], *, tolerance: float = 1e-9) -> None:
    """Hold a path on R^d against its laws, in float64.

    The target is the time derivative of the point; a time of shape (), (B,) or (B, L) moves each element by its own
    clock and another shape is refused, also where the batch is as large as the data; a random path is a function of the
    keys of its rows; dtypes are kept. On an :class:`Affine` path every quantity follows from every other wherever it is
    determined, t = 0 and t = 1 included.

    Args:
        path: the path.
        tolerance: relative above 1.

    Raises:
        AssertionError: if a law is broken.
    """
    _check_target(path, tolerance)
    _check_clocks(path, tolerance)
    _check_refusals(path)
    _check_dtypes(path)
    if isinstance(path, Affine):
        _check_conversions(path, clocks((7,), 0.2, 0.8, 4), tolerance)
        _check_conversions(path, torch.tensor([0.0, 1.0], dtype=torch.float64), tolerance)


def _check_target(path: Path[Tensor], tolerance: float) -> None:
    x0, x1 = normal(4, 3, 2), normal(4, 3, 2, stream=1)
    for shape in ((), (4,), (4, 3), (4, 3, 2)):
        t = clocks(shape, 0.1, 0.9, len(shape))
        law = f"a path takes times of shape {shape} for states of shape (4, 3, 2)"
        with lawful(law):
            sample = path.sample(x0, x1, t, _keys(4))
            rate = slope(lambda time: path.sample(x0, x1, time, _keys(4)).x, t)
        agree(f"{law} and returns them", sample.t, t, 0.0)
        agree("the target is the time derivative of the point", sample.target, rate, tolerance, t)


def _check_clocks(path: Path[Tensor], tolerance: float) -> None:
    """Each row by its own clock where the batch is as large as the data, which broadcasting from the right confuses."""
    for size in _BATCHES:
        x0, x1, t = normal(size, size), normal(size, size, stream=1), clocks((size,), 0.1, 0.9, 5)
        whole = path.sample(x0, x1, t, _keys(size))
        for row in range(size):
            alone = path.sample(x0[row : row + 1], x1[row : row + 1], t[row], keys(_keys(size), torch.tensor([row])))
            law = f"row {row} of a batch of {size} in {size} dimensions moves by its own clock"
            agree(law, whole.x[row], alone.x[0], tolerance, t[row])
            agree(f"{law}, its target too", whole.target[row], alone.target[0], tolerance, t[row])


def _check_refusals(path: Path[Tensor]) -> None:
    x = normal(4, 3, 2)
    for shape in ((1,), (2,), (3,), (4, 2), (4, 1), (3, 2), (4, 3, 1)):
        law = f"a time of shape {shape} is refused for states of shape (4, 3, 2)"
        refuses(law, ShapeError, lambda shape=shape: path.sample(x, x, torch.full(shape, 0.5, dtype=x.dtype), _keys(4)))


def _check_dtypes(path: Path[Tensor]) -> None:
    for dtype in (torch.float32, torch.float64):
        x0, x1 = normal(4, 3, dtype=dtype), normal(4, 3, stream=1, dtype=dtype)
        for t in (torch.tensor(0.4), torch.full((4,), 0.4), torch.full((4,), 0.4, dtype=torch.float64)):
            sample = path.sample(x0, x1, t, _keys(4))
            for name, value in (("point", sample.x), ("target", sample.target)):
                require(value.dtype == dtype, f"the {name} keeps the dtype of the state: {value.dtype} for {dtype}.")


def _keys(rows: int) -> Rng:
    """Randomness for a path that needs some, a key a row."""
    return Rng(SEED).rows(torch.arange(rows))


def _check_conversions(path: Affine, times: Tensor, tolerance: float) -> None:
    x0, x1 = normal(5, 3, stream=2), normal(5, 3, stream=3)
    for t in times:
        x = path.sample(x0, x1, t).x
        frame = path.schedule.frame(t)
        quantities: dict[Quantity, Tensor] = {name: path.target(name, x0, x1, t) for name in QUANTITIES}
        for given, value in quantities.items():
            for want in QUANTITIES:
                if not _follows(frame, given, want):
                    continue
                law = f"the {want} follows from the {given}"
                agree(law, path.convert(value, x, t, given=given, want=want), quantities[want], tolerance, t)
                many = path.convert(value, x, t.expand(5), given=given, want=want)
                agree(f"{law} for times (B,)", many, quantities[want], tolerance, t.expand(5))


def _follows(frame: Frame, given: Quantity, want: Quantity) -> bool:
    """Whether ``given`` and the state determine ``want`` at this time, for one pair of noise and data."""
    alpha, sigma, d_alpha, d_sigma, speed = (
        float(torch.as_tensor(frame._asdict()[name]).detach()) for name in _ENTRIES
    )
    if speed == float("inf") and "velocity" in (given, want):
        return False
    if given == "score" and sigma == 0:
        return False
    if given == want:
        return True
    data = given in ("data", "v") or (given in ("noise", "score") and alpha != 0) or (given == "velocity" and speed > 0)
    noise = given in ("noise", "score", "v") or (given == "data" and sigma != 0) or (given == "velocity" and speed > 0)
    if given == "velocity" and speed == 0:
        # The curve stands still: the state alone tells the end it stands at.
        data, noise = sigma == 0, alpha == 0
    wants: dict[Quantity, bool] = {
        "data": data,
        "noise": noise,
        "score": noise and sigma != 0,
        "v": (noise or alpha == 0) and (data or sigma == 0),
        "velocity": (data or d_alpha == 0) and (noise or d_sigma == 0),
    }
    return wants[want]


_ENTRIES = ("alpha", "sigma", "d_alpha", "d_sigma", "speed")

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rheos.core import InputError
from rheos.training import Ema, PowerEma, Profile, exponent, factors
from rheos.training.ema import lent, overlap


class Clock(nn.Module):
    """Two weights that can be set to functions of the step."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(()))

    def set(self, *values: float) -> None:
        self.w.data = torch.tensor(values, dtype=torch.float64)


def tell(power: PowerEma, width: float) -> Tensor:
    return power.tensors()[f"{width}/w"]


def test_the_exponential_average_by_hand() -> None:
    clock = Clock()
    ema = Ema(clock, 0.5)
    expected = 0.0
    for count in (1, 2, 3, 30):
        clock.set(float(count), 0.0)
        # (1 + n)/(10 + n): 2/11, 3/12, 4/13, and .5 once that is less.
        decay = {1: 2 / 11, 2: 1 / 4, 3: 4 / 13, 30: 0.5}[count]
        expected = decay * expected + (1 - decay) * count
        # Writing into .data gives a new tensor; the average must follow the parameter, not the tensor.
        ema.update(count)
    assert float(next(ema.module.parameters())[0]) == pytest.approx(expected)


def test_buffers_are_copied_and_the_copy_evaluates() -> None:
    clock = Clock()
    ema = Ema(clock.train(), 0.9)
    clock.seen.fill_(7)
    ema.refresh()
    assert float(ema.module.get_buffer("seen")) == 7
    assert not ema.module.training
    assert not any(p.requires_grad for p in ema.module.parameters())


@pytest.mark.parametrize(("width", "stride"), [(0.05, 1), (0.10, 1), (0.25, 1), (0.10, 4)])
def test_a_power_average_has_the_width_it_says(width: float, stride: int) -> None:
    clock, steps = Clock(), 4000
    power = PowerEma(clock, (width,), stride)
    for step in range(1, steps + 1):
        clock.set(step / steps, (step / steps) ** 2)
        power.update(step)
    mean, square = tell(power, width).tolist()
    assert math.sqrt(square - mean**2) == pytest.approx(width, rel=0.01)


def test_the_flat_average_is_the_widest() -> None:
    assert exponent(12**-0.5) == pytest.approx(0, abs=1e-9)
    for width in (0.0, -0.1, 0.3):
        with pytest.raises(InputError, match="relative width"):
            exponent(width)


def test_exponents_of_the_paper() -> None:
    # Karras et al. 2024, section 3.2: gamma = 6.94 and 16.97 for the two widths that they keep.
    assert exponent(0.10) == pytest.approx(6.94, abs=0.01)
    assert exponent(0.05) == pytest.approx(16.97, abs=0.01)


def test_overlaps_equal_quadrature() -> None:
    profiles = [Profile(6.9, 100.0), Profile(17.0, 60.0), Profile(0.3, 100.0)]
    t = np.linspace(0, 100, 400_001)
    curves = [np.where(t <= T, (g + 1) * (t / T) ** g / T, 0) for g, T in profiles]
    expected = [[np.trapezoid(a * b, t) for b in curves] for a in curves]
    assert overlap(profiles, profiles) == pytest.approx(np.array(expected), rel=1e-3)


def test_a_kept_profile_is_rebuilt_from_itself() -> None:
    kept = [Profile(exponent(w), s) for s in (50, 100, 150) for w in (0.05, 0.10)]
    assert factors(kept, kept[3]) == pytest.approx(np.eye(6)[3], abs=1e-6)


@pytest.mark.parametrize(("width", "stop"), [(0.07, 960), (0.12, 960), (0.20, 960), (0.08, 840)])
def test_another_average_is_rebuilt_afterwards(width: float, stop: int) -> None:
    clock, widths = Clock(), (0.05, 0.10)
    power, wanted = PowerEma(clock, widths, 1), PowerEma(clock, (width,), 1)
    profiles, kept = [], []
    expected = None
    for step in range(1, 961):
        # Weights that settle, with a wobble: averages of different widths differ by far more than the tolerance.
        clock.set(math.exp(-step / 200), math.sin(step / 60))
        power.update(step)
        wanted.update(step)
        if step == stop:
            expected = tell(wanted, width).clone()
        if step % 120 == 0 and step <= stop:
            profiles += [Profile(exponent(w), step) for w in widths]
            kept += [tell(power, w).clone() for w in widths]
    rebuilt = sum(f * k for f, k in zip(factors(profiles, Profile(exponent(width), stop)), kept, strict=True))
    assert isinstance(rebuilt, Tensor)
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(rebuilt, expected, rtol=0, atol=5e-3)
    assert (kept[-1] - expected).abs().max() > 2e-2


def test_nothing_kept_is_an_error() -> None:
    with pytest.raises(InputError, match="train with snapshots >= 1"):
        factors([], Profile(1.0, 1.0))


def test_weights_are_lent_and_given_back() -> None:
    clock, other = Clock(), Clock()
    clock.set(1.0, 2.0)
    other.set(3.0, 4.0)
    with lent(clock, other):
        assert clock.w.tolist() == [3.0, 4.0]
    assert clock.w.tolist() == [1.0, 2.0]
    assert other.w.tolist() == [3.0, 4.0]

"""Times: their shape is a prefix of the state's, and nothing else is let through."""

from __future__ import annotations

import pytest
import torch

from rheos.core import ShapeError, as_time, expand

SIZES = (1, 2, 3, 5, 8)


@pytest.mark.parametrize("size", SIZES)
def test_a_clock_a_sample_multiplies_rows_where_the_batch_equals_the_data(size: int) -> None:
    t = torch.arange(1.0, size + 1)
    product = expand(t, torch.ones(size, size)) * torch.ones(size, size)
    for row in range(size):
        assert product[row].tolist() == [row + 1.0] * size


@pytest.mark.parametrize(
    ("time", "state", "shape"),
    [
        ((), (), ()),
        ((), (4, 3), ()),
        ((4,), (4,), (4,)),
        ((4,), (4, 3), (4, 1)),
        ((4,), (4, 3, 2), (4, 1, 1)),
        ((4, 3), (4, 3, 2), (4, 3, 1)),
        ((4, 3, 2), (4, 3, 2), (4, 3, 2)),
    ],
)
def test_expand_adds_axes_behind(time: tuple[int, ...], state: tuple[int, ...], shape: tuple[int, ...]) -> None:
    t = torch.arange(1.0 + torch.Size(time).numel())[1:].reshape(time)
    out = expand(t, torch.zeros(state))
    assert out.shape == shape
    assert torch.equal(out.reshape(time), t)


@pytest.mark.parametrize(
    ("time", "state"),
    [
        ((3,), (4, 3)),
        ((1,), (4, 3)),
        ((3,), (4,)),
        ((4, 1), (4, 3)),
        ((4, 3, 1), (4, 3)),
        ((2,), ()),
        ((3, 4), (4, 3, 2)),
    ],
)
def test_expand_and_as_time_refuse_what_is_no_prefix(time: tuple[int, ...], state: tuple[int, ...]) -> None:
    for function in (expand, as_time):
        with pytest.raises(ShapeError) as caught:
            function(torch.ones(time), torch.zeros(state))
        message = str(caught.value)
        assert f"the state has {state}" in message
        assert f"the time has {time}" in message
        assert f"a clock a sample {state[:1]}" in message


@pytest.mark.parametrize(
    ("state", "wide"),
    [(torch.float64, torch.float64), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)],
)
def test_as_time_is_float32_or_as_wide_as_a_double_state(state: torch.dtype, wide: torch.dtype) -> None:
    x = torch.zeros(2, 3, dtype=state)
    assert as_time(0.1, x).dtype == wide
    assert as_time(1, x).dtype == wide
    assert as_time(torch.tensor([0, 1]), x).dtype == wide
    assert as_time(torch.tensor(0.5, dtype=torch.float16), x).dtype == wide
    assert float(as_time(0.1, x)) == float(torch.tensor(0.1, dtype=wide))


def test_as_time_leaves_a_wide_time_as_it_is() -> None:
    x = torch.zeros(2, 3)
    for dtype in (torch.float32, torch.float64):
        t = torch.tensor([0.25, 0.5], dtype=dtype)
        assert as_time(t, x) is t
    assert as_time(torch.tensor(0.5), x.double()).dtype == torch.float32

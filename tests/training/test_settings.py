from __future__ import annotations

from typing import Any

import pytest

from rheos.core import InputError
from rheos.training import Training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be an integer of at least 1, got 0"),
        ({"steps": True}, "steps must be an integer"),
        ({"batch": 2.5}, "batch must be an integer"),
        ({"workers": -1}, "workers must be an integer of at least 0"),
        ({"learning_rate": 0.0}, "learning_rate must be positive"),
        ({"learning_rate": float("nan")}, "learning_rate must be positive"),
        ({"learning_rate": float("inf")}, "learning_rate must be finite"),
        ({"clip": -1.0}, "clip must be positive"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more"),
        ({"drop": 1.0}, r"drop must be in \[0, 1\)"),
        ({"ema_decay": 1.0}, r"ema_decay must be in \[0, 1\)"),
        ({"betas": (0.9, 1.0)}, "betas must be two numbers"),
        ({"widths": (0.1, 0.05)}, "widths must be two rising numbers"),
        ({"widths": (0.1, 0.3)}, "widths must be two rising numbers"),
        ({"precision": "float16"}, "precision must be one of float32, bfloat16"),
        ({"decay": "linear"}, "decay must be one of cosine, constant"),
        ({"batch": 10, "accumulate": 4}, "10 rows cannot be cut into accumulate=4"),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Training(**changes)


def test_the_share_of_a_process() -> None:
    assert Training(batch=24, accumulate=2).share(3) == 8
    with pytest.raises(
        InputError, match="24 rows cannot be shared by 5 processes of 2 equal parts; take a multiple of 10"
    ):
        Training(batch=24, accumulate=2).share(5)


@pytest.mark.parametrize("steps", [1, 5, 63, 64, 473, 1000, 100_000])
def test_snapshots_are_spread_evenly_up_to_the_end(steps: int) -> None:
    settings = Training(steps=steps, snapshots=8)
    kept = sorted(settings.snapshot_steps)
    assert len(kept) == min(8, steps // settings.stride)
    assert all(step % settings.stride == 0 for step in kept)
    assert steps - settings.stride < kept[-1] <= steps
    gaps = [b - a for a, b in zip([0, *kept], kept, strict=False)]
    assert max(gaps) - min(gaps) <= settings.stride


def test_no_snapshots_are_kept_when_none_are_asked_for() -> None:
    assert not Training(snapshots=0).snapshot_steps

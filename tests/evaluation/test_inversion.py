"""How a map leads data back, as rows of a report."""

from __future__ import annotations

import pytest
import torch

from rheos.dynamics import MapLikelihood
from rheos.evaluation import Row, inversion_rows


def test_rows_tell_densities_beside_the_flow_and_the_cycle() -> None:
    none = torch.zeros(2, dtype=torch.bool)
    one = MapLikelihood(torch.tensor([-1.0, -3.0]), torch.tensor([3.0, 4.0]), none, torch.zeros(2, 2), 1)
    two = MapLikelihood(torch.tensor([-1.0, -2.0]), torch.tensor([0.0, 0.0]), none, torch.zeros(2, 2), 2)
    rows = inversion_rows({1: one, 2: two}, torch.tensor([-1.0, -1.5]))
    assert rows[0] == Row("log-density by the map, 1 step, nats of 2 held-out data", -2.0, -1.25, "its flow", "higher")
    assert rows[1].name == "cycle error, 1 step back and as many forward"
    assert rows[1].value == pytest.approx(12.5**0.5)
    assert rows[2].name.startswith("log-density by the map, 2 steps")
    assert [row.value for row in rows[2:]] == [-1.5, 0.0]

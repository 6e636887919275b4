from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rheos import objectives
from rheos.core import CheckpointError, InputError, Loss, RheosError
from rheos.couplings import Independent
from rheos.data import Tensors
from rheos.nn import MLP, seeded
from rheos.objectives import FlowMapMatching, lagrangian, mean_flow, shortcut
from rheos.objectives.derivative import Derivative
from rheos.training import Fitted, Stopped, checkpoint, load_weights, rebuild
from rheos.training.journal import CLOCK
from rheos.training.signals import Interrupt

Train = Callable[..., Fitted]
Weights = Callable[[nn.Module], Tensor]
Network = Callable[..., nn.Module]


def traces(out: Path) -> dict[str, Any]:
    """The last checkpoint, the snapshots and the curve, without the clock."""
    last = sorted((out / "checkpoints").iterdir())[-1]
    files = {str(p.relative_to(out)): p.read_bytes() for p in [*last.iterdir(), *out.glob("snapshots/*/*")]}
    curve = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {**files, "curve": [{k: v for k, v in line.items() if k not in CLOCK} for line in curve]}


@dataclass(frozen=True)
class Spoiled:
    """An objective whose loss or gradient is not finite when the first row of a step is one of ``rows``."""

    rows: tuple[int, ...]
    only_gradient: bool = False
    inner: objectives.Matching = objectives.Matching()
    learned: Mapping[str, nn.Module] = field(default_factory=dict)
    coupling: Any = Independent()

    def __call__(self, model: Any, x1: Tensor, cond: Any = None, rng: Any = None, **given: Any) -> Loss:
        loss = self.inner(model, x1, cond, rng, **given).rows
        if int(rng.row[0]) not in self.rows:
            return Loss(loss)
        return Loss(loss + (0 * loss).sqrt()) if self.only_gradient else Loss(loss * float("inf"))

    def draw(self, rng: Any, like: Any) -> Any:
        return self.inner.draw(rng, like)

    def prior(self, rng: Any, like: Any) -> Any:
        return self.inner.prior(rng, like)

    def dynamics(self, network: Any) -> Any:
        return self.inner.dynamics(network)


class Gain(nn.Module):
    """A part that is trained beside the network."""

    def __init__(self) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(()))


@dataclass(frozen=True)
class Scaled(Spoiled):
    """An objective with a learned gain on the network's output, and a named part."""

    learned: Mapping[str, nn.Module] = field(default_factory=lambda: {"gain": Gain()})

    def __call__(self, model: Any, x1: Tensor, cond: Any = None, rng: Any = None, **given: Any) -> Loss:
        gain = self.learned["gain"].get_parameter("log").exp()
        rows = self.inner(lambda x, t, c: 1 + gain * model(x, t, c), x1, cond, rng, **given).rows
        return Loss(rows, {"doubled": 2 * rows})


def stop_after(step: int) -> Callable[[int, nn.Module], None]:
    """A drawing of samples that asks for an end, as Ctrl-C would, when it is first called at ``step``."""

    def draw(now: int, average: nn.Module) -> None:
        if now == step:
            raise KeyboardInterrupt

    return draw


@pytest.mark.parametrize("stop", [7, 10, 13])
def test_an_interrupted_run_equals_an_unbroken_one(
    tmp_path: Path, train: Train, network: Network, stop: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path / "whole", network=network(0.2))
    assert whole.step == 24
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", network=network(0.2), sample_every=1, draw_samples=stop_after(stop))
    train(tmp_path / "cut", network=network(0.2))
    assert traces(tmp_path / "cut") == traces(tmp_path / "whole")


def test_what_draws_samples_may_end_the_run(tmp_path: Path, train: Train) -> None:
    fitted = train(tmp_path, sample_every=4, draw_samples=lambda step, average: step == 12)
    assert fitted.step == 12
    assert checkpoint.steps(tmp_path / "checkpoints")[-1] == 12
    # Only True ends it.
    assert train(tmp_path, sample_every=4, draw_samples=lambda step, average: 1).step == 24


def test_a_signal_saves_and_raises(tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def flag(step: int, average: nn.Module) -> None:
        if step == 7:
            interrupts[0].code = 143

    interrupts: list[Interrupt] = []
    enter = Interrupt.__enter__
    monkeypatch.setattr(Interrupt, "__enter__", lambda self: interrupts.append(self) or enter(self))
    with pytest.raises(Stopped) as stopped:
        train(tmp_path / "cut", sample_every=1, draw_samples=flag)
    # The flag was raised while step 7 was looked after, so the loop ends with the step that follows.
    assert (stopped.value.code, stopped.value.step) == (143, 8)
    assert checkpoint.steps(tmp_path / "cut" / "checkpoints") == [0, 8]
    train(tmp_path / "cut")
    train(tmp_path / "whole")
    assert traces(tmp_path / "cut") == traces(tmp_path / "whole")


def test_a_forecast_leaves_no_trace(tmp_path: Path, train: Train, network: Network) -> None:
    plain = train(tmp_path / "plain", network=network(0.2))
    told = train(tmp_path / "told", network=network(0.2), forecast=True).forecast
    assert plain.forecast is None
    assert told is not None
    assert told.steps == 24
    assert told.each > 0
    assert told.memory > 1 << 20
    assert "24 steps of" in str(told)
    assert traces(tmp_path / "told") == traces(tmp_path / "plain")


def test_a_complete_run_takes_no_more_steps(tmp_path: Path, train: Train, weights: Weights) -> None:
    first = train(tmp_path)
    before = traces(tmp_path)
    again = train(tmp_path, forecast=True)
    assert again.forecast is None
    assert torch.equal(weights(again.network), weights(first.network))
    assert torch.equal(weights(again.average), weights(first.average))
    assert traces(tmp_path) == before


def test_accumulated_parts_equal_the_whole_batch(tmp_path: Path, train: Train, weights: Weights) -> None:
    whole, parts = train(tmp_path / "1"), train(tmp_path / "4", accumulate=4)
    torch.testing.assert_close(weights(parts.network), weights(whole.network), rtol=0, atol=1e-5)
    torch.testing.assert_close(weights(parts.average), weights(whole.average), rtol=0, atol=1e-5)


def test_the_network_learns(tmp_path: Path, train: Train) -> None:
    # All data in one point: a network that gives zero has a loss of 3^2 + 1, the truth (3 - x)/(1 - t) has none.
    point = Tensors(torch.full((8, 3), 3.0), torch.zeros(8, dtype=torch.int64))
    train(tmp_path, dataset=point, steps=300, log_every=50)
    losses = [line["loss"] for line in traces(tmp_path)["curve"]]
    assert 5 < losses[0] < 11
    assert losses[-1] < 1.5


def test_learned_parts_train_are_saved_and_averaged(tmp_path: Path, train: Train) -> None:
    objective = Scaled(())
    seen: list[float] = []

    def draw(step: int, average: nn.Module) -> None:
        assert not average.training
        seen.append(float(objective.learned["gain"].get_parameter("log").detach()))

    train(tmp_path, objective=objective, sample_every=24, draw_samples=draw)
    own = load_weights(tmp_path, "learned.gain", average=False)["log"]
    average = load_weights(tmp_path, "learned.gain")["log"]
    assert float(own) == float(objective.learned["gain"].get_parameter("log").detach())
    assert float(own) != 0
    # Samples are drawn with the averaged parts, and the parts come back afterwards.
    assert seen == [float(average)]
    assert float(average) != float(own)
    line = traces(tmp_path)["curve"][-1]
    assert line["doubled"] == pytest.approx(2 * line["loss"])


def test_a_run_starts_at_anothers_weights(tmp_path: Path, train: Train, weights: Weights) -> None:
    former = train(tmp_path / "a")
    start = load_weights(tmp_path / "a")
    assert torch.equal(
        torch.cat([start[n].flatten() for n, _ in former.average.named_parameters()]), weights(former.average)
    )
    train(tmp_path / "b", start_from=start, seed=9, steps=1)
    begun = load_weights(tmp_path / "b", average=False, step=0)
    assert all(torch.equal(begun[name], value) for name, value in start.items())
    with pytest.raises(CheckpointError, match=r"is of another network: for 'enter.weight' it holds nothing"):
        train(tmp_path / "c", start_from={k: v for k, v in start.items() if k != "enter.weight"})


@pytest.mark.parametrize("only_gradient", [False, True])
def test_one_bad_step_is_skipped(tmp_path: Path, train: Train, weights: Weights, only_gradient: bool) -> None:
    fitted = train(tmp_path, objective=Spoiled((8 * 6,), only_gradient))
    assert fitted.step == 24
    assert weights(fitted.network).isfinite().all()
    assert checkpoint.read_json(tmp_path / "checkpoints/step-000024", "state")["learning_rate_scale"] == 1.0


def test_three_bad_steps_go_back_and_halve_the_rate(
    tmp_path: Path, train: Train, weights: Weights, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    @dataclass(frozen=True)
    class Once(Spoiled):
        """Bad for three steps, the first time only: a lower rate mends it."""

        def __call__(self, model: Any, x1: Tensor, cond: Any = None, rng: Any = None, **given: Any) -> Loss:
            calls.append(int(rng.row[0]) // 8)
            spoil = calls.count(calls[-1]) == 1
            return (super() if spoil else self.inner).__call__(model, x1, cond, rng, **given)

    with caplog.at_level(logging.WARNING):
        fitted = train(tmp_path, objective=Once((8 * 12, 8 * 13, 8 * 14)))
    assert "back to step 10 with 0.5 times the learning rate" in caplog.text
    assert calls == [*range(15), *range(10, 24)]
    assert weights(fitted.network).isfinite().all()
    assert checkpoint.read_json(tmp_path / "checkpoints/step-000024", "state")["learning_rate_scale"] == 0.5
    curve = traces(tmp_path)["curve"]
    assert [line["step"] for line in curve] == [5, 10, 15, 20, 24]


def test_a_run_that_cannot_become_finite_is_given_up(tmp_path: Path, train: Train) -> None:
    with pytest.raises(RheosError, match="still not finite after the learning rate was halved 8 times"):
        train(tmp_path, objective=Spoiled(tuple(range(0, 8 * 24, 8))))
    weights = load_weights(tmp_path, average=False)
    assert all(value.isfinite().all() for value in weights.values())


def test_another_run_is_not_gone_on_with(tmp_path: Path, train: Train, network: Network) -> None:
    train(tmp_path)
    with pytest.raises(CheckpointError, match="trained with seed = 3, now seed = 4"):
        train(tmp_path, seed=4)
    with pytest.raises(CheckpointError, match="trained with batch = 8, now batch = 16"):
        train(tmp_path, batch=16)
    with pytest.raises(CheckpointError, match="is of another network"):
        train(tmp_path, objective=Scaled(()))
    with pytest.raises(InputError, match="has taken 24 steps already, steps=5 asks for fewer"):
        train(tmp_path, steps=5)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, train: Train, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path / "whole")
    train(tmp_path / "hurt")
    path = tmp_path / "hurt" / "checkpoints" / "step-000024" / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "hurt")
    assert "step-000024/optimizer.safetensors is damaged" in caplog.text
    assert traces(tmp_path / "hurt") == traces(tmp_path / "whole")


@pytest.mark.global_random
def test_global_generators_are_left_alone(tmp_path: Path, train: Train, network: Network) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    train(tmp_path, network=network(0.2), forecast=True)
    assert torch.equal(torch.rand(3), expected)


def test_snapshots_rebuild_an_average(tmp_path: Path, train: Train) -> None:
    train(tmp_path, steps=64, snapshots=8)
    kept = checkpoint.read_tensors(tmp_path / "snapshots/step-000064", "power")
    same = rebuild(tmp_path, 0.10)
    assert same.keys() == load_weights(tmp_path).keys()
    for name, value in same.items():
        torch.testing.assert_close(value, kept[f"0.1/network.{name}"], rtol=0, atol=1e-5)
    other = rebuild(tmp_path, 0.15)
    assert any((other[name] - value).abs().max() > 1e-4 for name, value in same.items())
    with pytest.raises(CheckpointError, match="kept no snapshots"):
        rebuild(tmp_path, 0.1, step=1)


def test_half_precision_and_compiled_layouts_train(tmp_path: Path, train: Train, weights: Weights) -> None:
    plain = train(tmp_path / "32")
    half = train(tmp_path / "16", precision="bfloat16")
    assert {p.dtype for p in half.network.parameters()} == {torch.float32}
    assert not torch.equal(weights(half.network), weights(plain.network))
    torch.testing.assert_close(weights(half.network), weights(plain.network), rtol=0, atol=0.05)


def mapped() -> nn.Module:
    """A fresh network of two times, the same each time."""
    with seeded(2):
        return MLP(3, 12, 2, classes=4, two_times=True)


@pytest.mark.parametrize("how", ["exact", "difference"])
def test_a_flow_map_goes_on_as_if_it_was_never_stopped(tmp_path: Path, train: Train, how: Derivative) -> None:
    """Its targets are made by the average, which a checkpoint must bring back as it was."""
    objective = lagrangian(how=how, ramp=100)
    train(tmp_path / "whole", network=mapped(), objective=objective)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", network=mapped(), objective=objective, sample_every=1, draw_samples=stop_after(13))
    train(tmp_path / "cut", network=mapped(), objective=objective)
    assert traces(tmp_path / "cut") == traces(tmp_path / "whole")


def test_an_objective_is_shown_the_average(tmp_path: Path, train: Train) -> None:
    @dataclass(frozen=True)
    class Seeing(Spoiled):
        def __call__(self, model: Any, x1: Tensor, cond: Any = None, rng: Any = None, **given: Any) -> Loss:
            seen.append((given["state"], [p.clone() for p in given["state"].parameters()]))
            return self.inner(model, x1, cond, rng, **given)

    seen: list[Any] = []
    fitted = train(tmp_path, objective=Seeing(()), ema_decay=0.5)
    average, last = seen[-1]
    assert average is fitted.average
    assert not any(p.requires_grad for p in average.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(last, fitted.average.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(last, seen[0][1], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("make", [mean_flow, lagrangian, shortcut])
def test_a_compiled_flow_map_is_the_same_to_rounding(
    tmp_path: Path, train: Train, weights: Weights, make: Callable[[], FlowMapMatching]
) -> None:
    plain = train(tmp_path / "plain", network=mapped(), objective=make())
    fast = train(tmp_path / "fast", network=mapped(), objective=make(), compile=True)
    torch.testing.assert_close(weights(fast.network), weights(plain.network), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_a_compiled_run_is_the_same_to_rounding(tmp_path: Path, train: Train, weights: Weights) -> None:
    plain, fast = train(tmp_path / "plain"), train(tmp_path / "fast", compile=True)
    torch.testing.assert_close(weights(fast.network), weights(plain.network), rtol=0, atol=1e-4)
    assert load_weights(tmp_path / "fast").keys() == load_weights(tmp_path / "plain").keys()

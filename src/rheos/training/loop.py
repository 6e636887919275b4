"""The training loop: plain PyTorch, and nothing that a step does depends on what happened before it but the state.

A run is a function of (weights at the start, data, settings, seed). Which data, noise, times, dropped conditions and
dropout masks a step meets is a function of (seed, step, global row). So a run that was stopped anywhere and goes on
from a checkpoint equals one that was never stopped, bit by bit, and no generator is saved.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from ..core import DivergedError, InputError, Objective, Order, Rng, Stream
from ..core.files import unwritable
from ..data import Dataset, Read, States
from . import checkpoint, snapshots
from .distributed import Layout, exchanging, joined, without_exchange
from .ema import lent
from .feed import Feed, Rows
from .forecast import Forecast, measure
from .guard import seed_gradient
from .journal import Journal
from .loss import LossModule
from .optimizer import learning_rate
from .pairing import with_pairs
from .settings import Training
from .signals import Interrupt, Stopped
from .state import Captured, State

MOST_RETURNS = 8
"""Times that the learning rate is halved before a run that does not become finite is given up."""

SEEDS = 256
"""Steps whose dropout seeds are drawn at once."""

DrawSamples = Callable[[int, nn.Module], object]
"""Called with the step and the averaged network, in evaluation mode and without gradients. What it returns, if it is
``True``, ends the run there."""

logger = logging.getLogger(__name__)


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """A run that is complete.

    Attributes:
        network: the network with the weights of the last step.
        average: the network with the averaged weights; the one to sample with.
        step: steps that were taken.
        forecast: what was foretold; ``None`` when no step was left or none was asked for.
    """

    network: nn.Module
    average: nn.Module
    step: int
    forecast: Forecast | None = None


def fit(
    network: nn.Module,
    objective: Objective[Any],
    dataset: Dataset,
    order: Order,
    settings: Training,
    *,
    seed: int,
    out: Path | str,
    device: torch.device | str = "cpu",
    draw_samples: DrawSamples | None = None,
    read: Read | None = None,
    start_from: Mapping[str, Tensor] | None = None,
    progress: bool = True,
    forecast: bool = True,
) -> Fitted:
    """Train a network, or go on with a run that is in ``out`` already.

    Args:
        network: ``network(x, t, cond)``; trained in place. Its weights at the start are part of what makes the run.
        objective: what is minimised; ``objective.learned`` is trained too.
        dataset: the data.
        order: which datum and which noise key stand in which row.
        settings: the run's numbers.
        seed: of the order, the noise and the dropout.
        out: the run folder; ``checkpoints/``, ``snapshots/``, ``metrics.jsonl`` and ``tensorboard/`` are written there.
        device: where to train; under ``torchrun`` each process takes its own GPU.
        draw_samples: called every ``settings.sample_every`` steps and at the end; may end the run.
        read: raw data to states, by the key of each row; as they are when left out.
        start_from: weights of another run to start at, from :func:`~rheos.training.load_weights`. Ignored once there
            are checkpoints.
        progress: show progress on standard error.
        forecast: time two steps first, and say what to expect.

    Raises:
        Stopped: when Ctrl-C or SIGTERM asked for it; everything is saved.
        CheckpointError: if ``out`` belongs to another run, or every checkpoint is damaged.
        DivergedError: if the loss does not become finite at any learning rate.
        RheosError: if the disk is full.
    """
    out = Path(out)
    with contextlib.ExitStack() as stack:
        interrupt = stack.enter_context(Interrupt())
        layout, place = stack.enter_context(joined(torch.device(device)))
        # Dropout reads PyTorch's generators, which are seeded each step; the caller gets them back as they were.
        stack.enter_context(torch.random.fork_rng([place] if place.type == "cuda" else []))
        stack.enter_context(_deterministic(settings.deterministic))
        try:
            network.to(place)
            if settings.channels_last:
                network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            if start_from is not None:
                checkpoint.check_fit(start_from, network.state_dict(), "the run to start from")
                network.load_state_dict(dict(start_from))
            module = LossModule(network, objective).to(place).train()
            journal = Journal(out, settings.steps, layout, progress)
            stack.callback(journal.close)
            states, say = States(dataset, read), journal.say
            order = with_pairs(order, objective, states, settings, seed, out, place, layout, say)
            feed = Feed(dataset, order, objective, settings, seed, place, layout.rank, layout.world, read)
            run = _Run(module, feed, settings, seed, out, layout, place, journal, interrupt, draw_samples)
            stack.callback(run.part)
            told = run.train(forecast)
        except OSError as error:
            raise unwritable(out, error) from error
    run.state.ema.refresh()
    return Fitted(network, run.state.ema.module.get_submodule("network"), run.state.step, told)


@final
class _Run:
    """A run in this process: the state, and all that reads or changes it."""

    def __init__(
        self,
        module: LossModule,
        feed: Feed,
        settings: Training,
        seed: int,
        out: Path,
        layout: Layout,
        device: torch.device,
        journal: Journal,
        interrupt: Interrupt,
        draw_samples: DrawSamples | None,
    ) -> None:
        self.settings, self.seed, self.out, self.layout, self.device = settings, seed, out, layout, device
        self.feed, self.journal, self.interrupt, self.draw_samples = feed, journal, interrupt, draw_samples
        self.module = module
        self.state = State(module, settings, device)
        if settings.compile:
            module.compile()
        self.exchanging = exchanging(module, layout, device)
        self.root: Tensor | None = None
        self.seeds: tuple[int, list[int]] = (-1, [])
        self.enough = False
        self.snapshot_steps = settings.snapshot_steps
        self.facts = {"seed": seed, "batch": settings.batch}
        self.checkpoints = out / "checkpoints"

    def train(self, forecast: bool) -> Forecast | None:
        """Go on from the latest checkpoint, or begin with one of step 0, and train to the end."""
        if not self._resume():
            self._save()
        told = None
        if forecast and self.state.step < self.settings.steps:
            told = self._forecast()
        while self.state.step < self.settings.steps and not self.enough:
            self.journal.begin(self.state.step)
            with contextlib.closing(self.feed.steps(self.state.step)) as steps:
                for parts in steps:
                    self._advance(parts)
                    if not self._look_after():
                        self._go_back()
                        break
                    if self.enough:
                        break
        self.state.optimizer.forget()
        return told

    def part(self) -> None:
        """Let go of the other processes."""
        self.exchanging = self.module

    def _advance(self, parts: list[Rows]) -> None:
        """One optimiser step."""
        state = self.state
        self._seed_dropout(state.step)
        poisoned = state.guard.deferred or self.layout.world > 1
        losses: list[Tensor] = []
        named: list[Mapping[str, Tensor]] = []
        for number, part in enumerate(parts, 1):
            with contextlib.nullcontext() if number == len(parts) else without_exchange(self.exchanging):
                with self._autocast():
                    loss, detail = self.exchanging(*part)
                if number == 1:
                    # Only now: the backward pass takes this memory up again while it is still in the cache.
                    state.optimizer.forget()
                if poisoned:
                    loss.backward(seed_gradient(loss, 1 / len(parts)))
                else:
                    self.root = torch.full_like(loss, 1 / len(parts)) if self.root is None else self.root
                    loss.backward(self.root)
            losses.append(loss.detach())
            named.append({name: value.detach() for name, value in detail.items()})
        norm = state.optimizer.norm()
        if state.guard.deferred:
            state.optimizer.step(state.step, state.scale, norm, state.guard.verdict(norm))
        elif state.guard.admits(norm, losses):
            state.optimizer.step(state.step, state.scale, norm)
        state.step += 1
        state.ema.update(state.step)
        if state.power is not None:
            state.power.update(state.step)
        state.window.add(losses, named, norm)

    def _look_after(self) -> bool:
        """What is due after a step; False when the run must go back."""
        s, step, last = self.settings, self.state.step, self.state.step == self.settings.steps
        code = self.layout.greatest(self.interrupt.code)
        log, sample = last or step % s.log_every == 0, bool(s.sample_every) and (last or step % s.sample_every == 0)
        save, snapshot = last or bool(code) or step % s.checkpoint_every == 0, step in self.snapshot_steps
        if not (log or sample or save or snapshot):
            return self.state.guard.deferred or not self.state.guard.tripped
        if self.state.guard.tripped or ((save or sample) and not self.state.finite):
            return False
        if log:
            values = self.state.window.means(self.layout)
            values["learning_rate"] = self.state.scale * learning_rate(s, step - 1)
            self.journal.line(step, values, s.batch)
        if sample:
            enough = self.layout.leads and self.draw_samples is not None and self._sample(self.draw_samples)
            self.enough = bool(self.layout.greatest(int(enough)))
            save = save or self.enough
        if snapshot and self.state.power is not None and self.layout.leads:
            snapshots.keep(self.out, step, self.state.power)
        # Last of all: what a checkpoint follows is never missing after a kill.
        if save:
            self._save()
        if code and not last and not self.enough:
            raise Stopped(code, step)
        return True

    def _sample(self, draw_samples: DrawSamples) -> bool:
        average = self.state.ema.module
        self.state.ema.refresh()
        with torch.no_grad(), lent(self.module.learned, average.get_submodule("learned")):
            return draw_samples(self.state.step, average.get_submodule("network")) is True

    def _save(self) -> None:
        # Every process takes part in reading the window; one writes.
        self.state.window.read(self.layout)
        if self.layout.leads:
            self.journal.sync()
            facts = {**self.facts, "layout": {"world": self.layout.world, "accumulate": self.settings.accumulate}}
            folder = checkpoint.step_folder(self.checkpoints, self.state.step)
            checkpoint.write(folder, self.state.files(self.layout, facts))
            checkpoint.prune(self.checkpoints, self.settings.keep)

    def _resume(self) -> bool:
        """Load the latest checkpoint that is whole; False when there is none."""
        found = -1
        if self.layout.leads:
            checkpoint.recover(self.checkpoints)
            checkpoint.recover(self.out / snapshots.FOLDER)
            latest = checkpoint.latest_valid(self.checkpoints)
            found = -1 if latest is None else latest
        found = self.layout.greatest(found)
        if found < 0:
            return False
        if found > self.settings.steps:
            raise InputError(
                f"{self.out} has taken {found} steps already, steps={self.settings.steps} asks for fewer; "
                "give as many at least, or another folder to write to."
            )
        numbers = self.state.load(checkpoint.step_folder(self.checkpoints, found), self.facts)
        former = numbers["layout"]["world"]
        if former != self.layout.world:
            logger.warning(
                "The run was started by %d processes and goes on with %d: the same run up to the rounding of sums.",
                former,
                self.layout.world,
            )
        if found:
            self.journal.say(f"going on from step {found}")
        return True

    def _go_back(self) -> None:
        """Load the last good checkpoint and halve the learning rate."""
        scale, failed = self.state.scale / 2, self.state.step
        if scale < 0.5**MOST_RETURNS:
            raise DivergedError(
                f"the loss or its gradient is still not finite after the learning rate was halved {MOST_RETURNS} "
                "times: the data, the objective or the network give numbers that are not finite. Nothing that was "
                "saved is lost."
            )
        self._resume()
        self.state.scale = scale
        self.state.guard.reset()
        logger.warning(
            "Loss, gradient or weights were not finite at step %d: back to step %d with %g times the learning rate.",
            failed,
            self.state.step,
            scale,
        )

    def _forecast(self) -> Forecast:
        """Two steps that leave no trace, on the data that come next."""
        held: list[Captured] = []

        def capture() -> int:
            held.append(self.state.capture(self.layout))
            return held[0].nbytes if self.device.type == "cpu" else 0

        with contextlib.closing(self.feed.steps(self.state.step)) as steps:
            parts = list(itertools.islice(steps, 1))
            begun = time.perf_counter()
            parts += itertools.islice(steps, 1)
            reading = time.perf_counter() - begun
        each, memory = measure(
            lambda: self._advance(parts[0]), capture, lambda: self.state.restore(held[0]), self.device
        )
        told = Forecast(self.settings.steps - self.state.step, each + reading, memory)
        self.journal.say(str(told))
        return told

    def _seed_dropout(self, step: int) -> None:
        block, place = divmod(step, SEEDS)
        if block != self.seeds[0]:
            steps = torch.arange(block * SEEDS, (block + 1) * SEEDS)
            self.seeds = block, Rng(self.seed).fold(Stream.DROPOUT).fold(self.layout.rank).rows(steps).key.tolist()
        key = self.seeds[1][place]
        torch.default_generator.manual_seed(key)
        if self.device.type == "cuda":
            torch.cuda.default_generators[self.device.index or 0].manual_seed(key)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def _deterministic(wanted: bool) -> Iterator[None]:
    former = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or former)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(former)

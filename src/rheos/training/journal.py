"""What is written while training: ``metrics.jsonl``, TensorBoard beside it, and progress on a terminal or in a log.

A line of the journal is the mean over the steps since the line before. What has been gathered for the next line is
part of a checkpoint, and lines behind a checkpoint are cut when a run goes on from it; so the curve of an interrupted
run is that of an unbroken one, all but its clock.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # pyright: ignore[reportAttributeAccessIssue]
from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]
from torch import Tensor
from torch.utils.tensorboard import FileWriter
from tqdm import tqdm

from .distributed import Layout

CLOCK = ("seconds", "rows_per_second")
"""The fields of a line that tell of the machine, not of the run."""
QUIET = 5.0
"""Seconds between two lines of progress where there is no terminal."""


@final
class Window:
    """The losses, parts and gradient norms of the steps since the last line.

    They are kept as they come, and read only when asked for: no step waits for a device.
    """

    def __init__(self) -> None:
        self._fresh: list[tuple[list[Tensor], list[Mapping[str, Tensor]], Tensor]] = []
        self._read: list[dict[str, float]] = []

    def add(self, losses: list[Tensor], parts: list[Mapping[str, Tensor]], norm: Tensor) -> None:
        """Take in a step: the loss and the named parts of each accumulated part, and the gradient's norm."""
        self._fresh.append((losses, parts, norm))

    def read(self, layout: Layout) -> list[dict[str, float]]:
        """One mapping of names to finite numbers a step, over all processes; steps that were skipped hold fewer
        names."""
        if self._fresh:
            names = ["loss", "gradient_norm", *self._fresh[0][1][0]]
            table = torch.stack([_row(*step, names) for step in self._fresh]).cpu()
            self._fresh.clear()
            for row in layout.mean(table).tolist():
                self._read.append({n: v for n, v in zip(names, row, strict=True) if math.isfinite(v)})
        return self._read

    def restore(self, steps: Sequence[Mapping[str, float]]) -> None:
        """Go on from what :meth:`read` gave."""
        self._fresh.clear()
        self._read = [dict(step) for step in steps]

    def means(self, layout: Layout) -> dict[str, float]:
        """The mean of every name over the steps that have it; then the window is empty."""
        steps = self.read(layout)
        names = dict.fromkeys(name for step in steps for name in step)
        out = {n: math.fsum(v := [s[n] for s in steps if n in s]) / len(v) for n in names}
        self._read = []
        return out


def _row(losses: list[Tensor], parts: list[Mapping[str, Tensor]], norm: Tensor, names: Sequence[str]) -> Tensor:
    values = [torch.stack(losses).mean(), norm, *(torch.stack([p[n].mean() for p in parts]).mean() for n in names[2:])]
    return torch.stack([value.double() for value in values])


@final
class Journal:
    """The files and the progress of one run. On processes that do not lead, it is silent.

    Args:
        run: the run folder.
        total: steps of the whole run.
        layout: which process this is.
        progress: show progress.
    """

    def __init__(self, run: Path, total: int, layout: Layout, progress: bool = True) -> None:
        self._path = run / "metrics.jsonl"
        self._board_path = run / "tensorboard"
        self._board: FileWriter | None = None
        self._total, self._leads = total, layout.leads
        self._shown = progress and layout.leads
        self._bar: tqdm[Any] | None = None
        self._spoke = -math.inf
        self._begun = self._last = (0, time.perf_counter())
        if self._leads:
            run.mkdir(parents=True, exist_ok=True)

    def begin(self, step: int) -> None:
        """Go on after ``step``: cut what lies behind it."""
        self._begun = self._last = (step, time.perf_counter())
        if not self._leads:
            return
        cut(self._path, step)
        if self._board is not None:
            self._board.close()
        self._board = FileWriter(str(self._board_path))
        # TensorBoard forgets what an earlier file holds from this step on.
        purge = SessionLog(status=SessionLog.START)
        self._board.add_event(Event(step=step + 1, session_log=purge), step + 1)
        if self._shown and sys.stderr.isatty():
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(total=self._total, initial=step, unit="step", dynamic_ncols=True)

    def line(self, step: int, values: Mapping[str, float], rows: int) -> None:
        """Write the line of a step. ``rows`` is the size of a batch."""
        now = time.perf_counter()
        since, then = self._last
        self._last = (step, now)
        if not self._leads:
            return
        each = (now - then) / max(1, step - since)
        clock = dict(zip(CLOCK, (round(each, 6), round(rows / each, 1)), strict=True))
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **values, **clock}, allow_nan=False) + "\n")
        assert self._board is not None
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in {**values, **clock}.items()]
        self._board.add_summary(Summary(value=scalars), step)
        self._show(step, values.get("loss"), now)

    def say(self, message: str) -> None:
        """A line for the reader, above the progress."""
        if self._shown:
            tqdm.write(message, file=sys.stderr)

    def sync(self) -> None:
        """Bring the lines to the disk; a checkpoint that follows must not outlive them."""
        if self._leads and self._path.exists():
            with self._path.open("a", encoding="utf-8") as file:
                os.fsync(file.fileno())

    def close(self) -> None:
        """End the progress and the TensorBoard file."""
        if self._board is not None:
            self._board.close()
        if self._bar is not None:
            self._bar.close()

    def _show(self, step: int, loss: float | None, now: float) -> None:
        if not self._shown:
            return
        text = "all steps skipped" if loss is None else f"loss {loss:.4f}"
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif now - self._spoke >= QUIET or step == self._total:
            self._spoke = now
            since, then = self._begun
            left = (self._total - step) * (now - then) / max(1, step - since)
            self.say(f"step {step}/{self._total}  {text}  {span(left)} left")


def cut(path: Path, step: int) -> None:
    """Keep the lines up to ``step``; a half-written one goes too."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            number = json.loads(text)["step"]
        except (ValueError, TypeError, KeyError):
            break
        if number > step:
            break
        kept.append(text + "\n")
    draft = path.with_name(f".{path.name}.draft")
    with draft.open("w", encoding="utf-8") as file:
        file.writelines(kept)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def span(seconds: float) -> str:
    """A time span for a reader: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"

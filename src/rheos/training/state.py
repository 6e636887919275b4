"""All that a run is made of between two steps, as tensors and a few numbers: what a checkpoint holds."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, final

import torch
from torch import Tensor

from ..core import CheckpointError
from . import checkpoint
from .distributed import Layout
from .ema import Ema, PowerEma
from .guard import Guard
from .journal import Window
from .loss import LossModule, trained
from .optimizer import Optimizer
from .settings import Training


class Captured(NamedTuple):
    """A copy of a state: the tensors of every part, and the numbers."""

    parts: dict[str, dict[str, Tensor]]
    numbers: dict[str, Any]

    @property
    def nbytes(self) -> int:
        """The bytes of its tensors."""
        return sum(value.nbytes for part in self.parts.values() for value in part.values())


@final
class State:
    """The state of a run.

    Args:
        module: the loss module, on its device.
        settings: the run's numbers.
        device: where it trains.

    Attributes:
        step: steps that are done.
        scale: factor on the learning rate; halved each time the run goes back.
    """

    def __init__(self, module: LossModule, settings: Training, device: torch.device) -> None:
        self.module = module
        weights = trained(module)
        self.ema = Ema(weights, settings.ema_decay)
        module.beside(self.ema.module.get_submodule("network"))
        self.power = PowerEma(weights, settings.widths, settings.stride) if settings.snapshots else None
        self.optimizer = Optimizer(module, settings)
        self.guard = Guard(device)
        self.window = Window()
        self.step = 0
        self.scale = 1.0

    @property
    def finite(self) -> bool:
        """Whether every weight is a finite number."""
        norms = torch._foreach_norm([p.detach() for p in self.module.parameters()])  # pyright: ignore[reportPrivateImportUsage]
        return bool(torch.stack([norm.to(norms[0]) for norm in norms]).isfinite().all())

    def parts(self) -> dict[str, dict[str, Tensor]]:
        """The tensors by file: the live ones, not copies."""
        self.ema.refresh()
        parts = {
            "model": dict(self.module.state_dict()),
            "ema": dict(self.ema.module.state_dict()),
            "optimizer": self.optimizer.tensors(),
        }
        return parts if self.power is None else {**parts, "power": self.power.tensors()}

    def numbers(self, layout: Layout) -> dict[str, Any]:
        """The numbers, ready for JSON."""
        return {
            "step": self.step,
            "learning_rate_scale": self.scale,
            "bad_steps_in_a_row": self.guard.row,
            "window": self.window.read(layout),
        }

    def capture(self, layout: Layout) -> Captured:
        """A copy on the CPU."""
        return Captured({n: checkpoint.to_cpu(part) for n, part in self.parts().items()}, self.numbers(layout))

    def restore(self, captured: Captured) -> None:
        """Become the state that was captured, bit by bit."""
        self._take(captured.parts, captured.numbers)

    def files(self, layout: Layout, facts: Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
        """The files of a checkpoint; ``facts`` go into ``state.json`` beside the numbers."""
        for name, tensors in self.parts().items():
            yield f"{name}.safetensors", checkpoint.pack(tensors)
        numbers = self.numbers(layout)
        versions = {"python": platform.python_version(), **{name: version(name) for name in ("rheos", "torch")}}
        yield "state.json", checkpoint.to_json({**numbers, **facts, "versions": versions})

    def load(self, folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Become the state of a checkpoint that was verified.

        Args:
            folder: the checkpoint.
            facts: what must be as it was when the checkpoint was written.

        Returns:
            what ``state.json`` holds.

        Raises:
            CheckpointError: if it is of another network, or a fact differs.
        """
        numbers = checkpoint.read_json(folder, "state")
        for name, value in facts.items():
            if numbers.get(name) != value:
                raise CheckpointError(
                    f"{folder} was trained with {name} = {numbers.get(name)}, now {name} = {value} is asked for: "
                    "that is another run. Give the same value, or another folder to write to."
                )
        parts = {name: checkpoint.read_tensors(folder, name) for name in ("model", "ema", "optimizer")}
        if self.power is not None:
            if not (folder / "power.safetensors").exists():
                raise CheckpointError(
                    f"{folder} was trained without snapshots of averages, which cannot begin in the middle; "
                    "train with snapshots=0."
                )
            parts["power"] = checkpoint.read_tensors(folder, "power")
        live = self.parts()
        for name in parts.keys() - {"optimizer"}:
            checkpoint.check_fit(parts[name], live[name], str(folder / f"{name}.safetensors"))
        self._take(parts, numbers)
        return numbers

    def _take(self, parts: Mapping[str, Mapping[str, Tensor]], numbers: Mapping[str, Any]) -> None:
        self.module.load_state_dict(parts["model"])
        self.ema.module.load_state_dict(parts["ema"])
        self.optimizer.load(parts["optimizer"])
        self.optimizer.forget()
        if self.power is not None:
            self.power.load(parts["power"])
        self.step = numbers["step"]
        self.scale = numbers["learning_rate_scale"]
        self.guard.resume(numbers["bad_steps_in_a_row"])
        self.window.restore(numbers["window"])

"""The energy that something takes, by the machine's own counters where it has some that may be read.

Linux tells the energy of Intel's and AMD's processors under ``/sys/class/powercap``, often to root alone; NVIDIA's
driver that of a GPU, through the package nvidia-ml-py.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch

ZONES = Path("/sys/class/powercap")
"""Where Linux tells of energy; a zone is a processor."""

LEAST = 2.0
"""Seconds that are measured at least: counters move in jumps."""

Reading = Callable[[], float]
"""Joules since some moment."""


def joules(run: Callable[[], object], device: torch.device) -> float | None:
    """Joules that ``run`` takes on the whole machine, the mean over as many as fill some seconds; ``None`` where no
    counter of the device can be read."""
    counters = _gpu(device) if device.type == "cuda" else _processors(ZONES)
    if not counters:
        return None
    _settle(device)
    before, began, count = [read() for read in counters], time.perf_counter(), 0
    while count == 0 or time.perf_counter() - began < LEAST:
        run()
        _settle(device)
        count += 1
    return sum(read() - start for read, start in zip(counters, before, strict=True)) / count


def _settle(device: torch.device) -> None:
    """Wait for what was asked of the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processors(zones: Path) -> list[Reading]:
    """A counter for every processor whose energy may be read."""
    found = []
    for zone in sorted(zones.glob("*-rapl:*")):
        # Zones within a processor are told with it; the name of such a one has two colons.
        if zone.name.count(":") > 1:
            continue
        try:
            counter = _counter(zone)
            counter()
        except (OSError, ValueError):
            continue
        found.append(counter)
    return found


def _counter(zone: Path) -> Reading:
    """The joules of a zone; its counter begins anew at its range, which takes minutes at least."""
    most, file = int((zone / "max_energy_range_uj").read_text()), zone / "energy_uj"
    first = int(file.read_text())
    return lambda: ((int(file.read_text()) - first) % (most + 1)) / 1e6


def _gpu(device: torch.device) -> list[Reading]:
    """The counter of a GPU, where the package that reads it is there and the driver has one."""
    try:
        import pynvml  # pyright: ignore[reportMissingImports]
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except pynvml.NVMLError:
        return []
    return [lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1e3]

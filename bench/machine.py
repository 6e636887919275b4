"""What every benchmark says about where it ran, and how it keeps what it found."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("rheos", "torch", "numpy", "scipy", "torchcfm", "flow-matching", "POT", "lapx", "torchdiffeq")


def machine() -> dict[str, Any]:
    """The processor, the accelerator if there is one, threads, and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name))},
    }


def keep(name: str, result: dict[str, Any]) -> None:
    """Write a result with its machine to ``bench/results/NAME.json``, with the accelerator's kind in the name if one
    was used."""
    suffix = "-gpu" if result.get("device", "cpu") != "cpu" else ""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}{suffix}.json"
    file.write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    print(f"kept as {file}")


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

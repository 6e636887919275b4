"""``rheos doctor``: versions, devices, optional extras, and what is missing."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform

import torch

from .. import __version__

REQUIRED = ("torch", "numpy", "scipy", "safetensors", "scikit-learn", "pillow", "matplotlib", "tensorboard", "tqdm")
EXTRAS = (
    ("parquet", "pyarrow", "reading Parquet datasets"),
    ("diffusers", "diffusers", "sampling and exporting its pipelines"),
    ("ot", "POT", "transport of many points in the plane, and of a part of the data,"),
    ("ot", "lapx", "the assignment of large batches, several times faster,"),
)


def doctor(args: argparse.Namespace) -> int:
    """Print what is there; 0 when nothing that is required is missing."""
    print(f"rheos {__version__}, Python {platform.python_version()}, {platform.platform()}")
    missing = []
    for name in REQUIRED:
        version = _version(name)
        print(f"  {name:<14} {version or 'MISSING: pip install ' + name}")
        missing += [] if version else [name]
    for extra, package, use in EXTRAS:
        version = _version(package)
        mend = f'not installed; {use} needs it: pip install "rheos[{extra}]"'
        print(f"  {package:<14} {version or mend}")
    print(f"  processors     {os.cpu_count()}, PyTorch uses {torch.get_num_threads()} threads")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            print(f"  cuda:{index}         {properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    else:
        print("  cuda           none found; everything runs on the processor")
    print("all that is required is there" if not missing else f"missing: {', '.join(missing)}")
    return 2 if missing else 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None

"""What a new user gets from the default image recipe, by its own commands: `rheos train` and `rheos evaluate`.

    python bench/images.py digits [--seeds 3]
    RHEOS_DATA=... python bench/images.py fashion [--seeds 1] [--images 60000]

Digits are scikit-learn's. Fashion-MNIST is written out first as class folders of images of mixed sizes, as a user
would have it. Kept: seconds (wall and processor) of training, and every figure of the evaluation, a seed each.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from machine import keep

CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")
SIDES = (28, 32, 40, 56)
"""Sides of the written images."""


def rheos(*words: str) -> tuple[float, float]:
    """Run a command of rheos; wall and processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "rheos", *words], check=True)
    wall = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def write_fashion(folder: Path, count: int) -> None:
    """Fashion-MNIST's first ``count`` training images in a shuffled order, as class folders of mixed sizes."""
    if "RHEOS_DATA" not in os.environ:
        sys.exit("set RHEOS_DATA to the folder that holds fashion_mnist.npz")
    with np.load(Path(os.environ["RHEOS_DATA"]) / "fashion_mnist.npz") as stored:
        images, labels = stored["x_train"], stored["y_train"]
    generator = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
    for place in generator.permutation(len(images))[:count]:
        side = int(generator.choice(SIDES))
        image = Image.fromarray(images[place])
        if side != 28:
            image = image.resize((side, side), Image.Resampling.BICUBIC)
        image.save(folder / CLASSES[labels[place]] / f"{place:05d}.png")


def measured(run: Path, options: list[str], evaluation: list[str]) -> dict[str, Any]:
    """Train one run and evaluate it."""
    wall, processor = rheos("train", "images", "--out", str(run), *options)
    rheos("evaluate", str(run), *evaluation)
    found = json.loads((run / "evaluation.json").read_text())
    found["training"] = {"seconds": round(wall, 1), "processor seconds": round(processor, 1)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", choices=("digits", "fashion"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60_000, help="fashion: how many images are written")
    parser.add_argument("--n", type=int, default=2_000, help="samples that are measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--keep", type=Path, help="folder to keep the runs in")
    args, more = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        options = ["--device", args.device, *more]
        if args.data == "fashion":
            source = Path(temporary) / "fashion"
            write_fashion(source, args.images)
            options += ["--data", str(source), "--size", "28"]
        evaluation = ["--n", str(args.n), "--device", args.device]
        runs = [
            measured(folder / f"{args.data}-{seed}", [*options, "--seed", str(seed)], evaluation)
            for seed in range(args.seeds)
        ]
    keep(args.data, {"device": args.device, "options": more, "runs": runs})


if __name__ == "__main__":
    main()

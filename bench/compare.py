"""Flow matching and diffusion side by side, on equal terms.

    python bench/compare.py toy digits digits-dit [--out DIR]
    RHEOS_DATA=... python bench/compare.py fashion fashion-dit [--device cuda]

Each is one ``rheos compare``, whose folder goes on where it stopped. Its figures are kept as
bench/results/compare-NAME.json.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from machine import keep
from rheos.cli import main as rheos

OWN = ("flow", "flow-ot", "flow-cosine", "ddpm", "v", "vp", "edm")
HYBRIDS = ("v-to-flow", "ddpm-to-flow")
TARGETS = ("flow", "flow:data", "flow:noise", "flow:v")
FASHION = ("images", "--data", "fashion_mnist.npz", "--steps", "1000")


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        title: for a reader.
        words: of the command; a file is one of those under RHEOS_DATA.
    """

    title: str
    words: tuple[str, ...]


STUDIES = {
    "toy": Study("two moons, MLP", ("toy", "--contenders", *OWN, *HYBRIDS, "--sweep")),
    "toy-targets": Study("two moons, what is predicted", ("toy", "--contenders", *TARGETS)),
    "toy-widths": Study(
        "two moons, MLP of four widths",
        ("toy", "--contenders", "flow", "ddpm", "v", "--rates", ".003", "--widths", "8", "16", "32", "64"),
    ),
    "digits": Study("digits, UNet", ("images",)),
    "digits-targets": Study("digits, what is predicted", ("images", "--contenders", *TARGETS, *HYBRIDS)),
    "digits-long": Study(
        "digits, UNet, four times as long",
        ("images", "--contenders", "flow", "flow-ot", "ddpm", "v", "--steps", "1600"),
    ),
    "digits-dit": Study("digits, DiT", ("images", "--net", "dit")),
    "fashion": Study("Fashion-MNIST, UNet", (*FASHION, "--width", "16")),
    "fashion-dit": Study("Fashion-MNIST, DiT", (*FASHION, "--net", "dit")),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", choices=list(STUDIES))
    parser.add_argument("--out", type=Path, default=Path("comparisons"))
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    for name in given.names:
        out = given.out / name
        code = rheos(["compare", *map(_found, STUDIES[name].words), "--out", str(out), "--device", given.device])
        if code:
            sys.exit(code)
        keep(f"compare-{name}", {"device": given.device, **json.loads((out / "comparison.json").read_text())})


def _found(word: str) -> str:
    if not word.endswith(".npz"):
        return word
    if "RHEOS_DATA" not in os.environ:
        sys.exit(f"set RHEOS_DATA to the folder that holds {word}")
    return str(Path(os.environ["RHEOS_DATA"]) / word)


if __name__ == "__main__":
    main()

"""The command line's words: what each command takes, and what it says when it is asked for help."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, get_args

from .. import __version__
from ..compare import CONTENDERS
from ..core import InputError, nearest
from ..recipes import PAIRS
from ..solvers.plans.calibrate import DRAWS, EFFORT
from ..training import Precision, Training
from .parts import METHODS, TABLES, names_table

COMMANDS = ("train", "sample", "evaluate", "compare", "plan", "distill", "doctor")

NUMBERS = {
    "steps": "optimiser steps",
    "batch": "rows of a batch, over all processes",
    "accumulate": "parts that a batch is cut into, to save memory",
    "learning_rate": "highest learning rate",
    "warmup": "share of the steps over which the rate rises",
    "weight_decay": "decay of matrices",
    "clip": "largest norm of the gradient",
    "ema_decay": "memory of the averaged weights",
    "drop": "share of rows whose label is hidden, which guidance needs",
    "workers": "processes that read data ahead",
    "pairs": "noise and data that a coupling joins at a time; 0: 1024, or all data",
    "couplers": "processes that join them ahead",
    "log_every": "steps between two lines of metrics.jsonl",
    "sample_every": "steps between two pictures",
    "checkpoint_every": "steps between two checkpoints",
    "keep": "checkpoints kept on disk",
}
"""Fields of ``Training`` that have an option of the same name."""

SWITCHES = {
    "compile": "compile the loss with torch.compile",
    "channels_last": "lay 4-d states out channels last",
    "deterministic": "ask for deterministic kernels, for a bit-exact resume on a GPU",
}


class Parser(argparse.ArgumentParser):
    """A parser that raises what it cannot use, as every other part does. Options are given in full: an abbreviation
    would change its meaning with the next option of the same beginning."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message.rstrip('.')}; `{self.prog} --help` lists what there is.")


BACKWARD = "share of a flow map's steps that lead from data to noise, for densities (default: 0)"


def build_parser() -> tuple[Parser, Any]:
    """The parser of the whole, and those of the commands by name."""
    parser = Parser(
        prog="rheos", description="Flow matching: train a generator in one command, sample it in ten steps."
    )
    parser.add_argument("--version", action="version", version=f"rheos {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    _train(commands)
    _sample(commands)
    _evaluate(commands)
    _compare(commands)
    _plan(commands)
    _distill(commands)
    commands.add_parser("doctor", help="versions, devices, optional extras, and what is missing")
    return parser, commands.choices


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The parsed arguments.

    Raises:
        InputError: if a word cannot be used; an unknown command or option is answered with the nearest known one.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser, commands = build_parser()
    if words and not words[0].startswith("-") and words[0] not in COMMANDS:
        raise InputError(f"there is no command {words[0]!r}; {nearest(words[0], COMMANDS)}")
    args, unknown = parser.parse_known_args(words)
    if unknown:
        name = next((word for word in unknown if word.startswith("--")), unknown[0]).partition("=")[0]
        options = [option for action in commands[args.command]._actions for option in action.option_strings]
        close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
        hint = f"did you mean {close[0]}?" if close else f"`rheos {args.command} --help` lists what there is."
        raise InputError(f"rheos {args.command} cannot use {name!r}; {hint}")
    return args


def _train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a run, or go on with it",
        description="Train RECIPE into the folder --out; when the folder is a run already, go on where it stopped.",
        epilog=names_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("recipe", metavar="RECIPE", help="images, toy, or package.module:function")
    add("--data", metavar="PATH", help="images: a folder, .zip, .npz, .npy or Parquet (default: scikit-learn's digits)")
    add("--out", type=Path, metavar="RUN", help="the run folder (default: runs/RECIPE)")
    add("--seed", type=int, help="of everything random (default: 0)")
    add("--source", metavar="PATH", help="data to start from instead of noise, of the same kind as --data")
    add("--from", dest="start", type=Path, metavar="RUN", help="start at the averaged weights of another run")
    add("--size", type=int, help="height and width that images are brought to")
    add("--channels", type=int, choices=(1, 3), help="1 for grey, 3 for colour")
    add("--width", type=int, help="features of the network")
    add("--mirrored", action="store_const", const=True, help="mirror training images by chance")
    add("--noisy", action="store_const", const=True, help="add uniform noise to bytes, for likelihoods")
    for table in TABLES:
        add(f"--{table}", metavar="NAME", help="see below")
    add("--guidance", type=float, metavar="X", help="classifier-free guidance when sampling; 1 is none")
    add("--backward", type=float, metavar="X", help=BACKWARD)
    defaults = {field.name: field for field in dataclasses.fields(Training)}
    for name, what in NUMBERS.items():
        kind = int if isinstance(defaults[name].default, int) else float
        add(
            f"--{name.replace('_', '-')}",
            dest=name,
            type=kind,
            metavar="N" if kind is int else "X",
            help=_default(what, defaults[name]),
        )
    for name, what in SWITCHES.items():
        add(f"--{name.replace('_', '-')}", dest=name, action="store_const", const=True, help=what)
    add("--precision", choices=get_args(Precision), help="of the network's arithmetic (default: float32)")
    _common(parser)


def _default(what: str, field: dataclasses.Field[Any]) -> str:
    return f"{what} (default: {field.default}, or the recipe's)"


def _sample(commands: Any) -> None:
    parser = commands.add_parser("sample", help="draw samples of a run")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN")
    add("--n", type=int, default=64, help="how many (default: 64)")
    add("--steps", type=int, help="steps of the solver")
    add("--evaluations", type=int, help="evaluations of the network a sample, instead of --steps")
    add("--label", nargs="+", metavar="CLASS", help="classes, by name or number; several are taken in turn")
    add("--out", type=Path, metavar="FILE", help=".png a grid, .npz arrays, .csv points, a folder one file a sample")
    add("--zero-star", dest="zero_star", action="store_true", help="CFG-Zero* instead of plain guidance")
    add("--compile", action="store_true", help="compile the network with torch.compile: pays with many samples")
    _sampling(parser)


def _evaluate(commands: Any) -> None:
    parser = commands.add_parser("evaluate", help="measure a run against held-out data")
    add = parser.add_argument
    add("run", type=Path, metavar="RUN")
    add("--n", type=int, default=2_000, help="samples to draw (default: 2000)")
    add("--weights", type=Path, metavar="FILE", help="Inception weights of your own; then the Frechet distance is FID")
    _sampling(parser)


def _compare(commands: Any) -> None:
    parser = commands.add_parser(
        "compare",
        help="flow matching and diffusion side by side",
        description="Train every contender on equal terms into the folder --out, measure them, and write a report; "
        "when the folder is a comparison already, go on where it stopped.",
    )
    add = parser.add_argument
    add("recipe", nargs="?", default="images", metavar="RECIPE", help="images (the default), toy, or module:function")
    add("--contenders", nargs="+", metavar="NAME", help=", ".join(CONTENDERS))
    add("--rates", nargs="+", type=float, metavar="X", help="learning rates that each tries (default: .001 .003)")
    add("--sweep", action="store_true", help="five learning rates from .0003 to .03 instead")
    add("--widths", nargs="+", type=int, metavar="N", help="compare at these widths too, and fit a scaling law")
    add("--seeds", type=int, default=3, help="trainings of each (default: 3)")
    add("--n", type=int, default=600, help="samples that are measured (default: 600)")
    add("--out", type=Path, metavar="DIR", help="the folder (default: comparisons/RECIPE)")
    add("--data", metavar="PATH", help="as for train")
    add("--size", type=int, help="height and width that images are brought to")
    add("--channels", type=int, choices=(1, 3), help="1 for grey, 3 for colour")
    add("--net", metavar="NAME", help=", ".join(TABLES["net"]))
    add("--width", type=int, help="features of the network")
    add("--steps", type=int, help="optimiser steps of each training")
    add("--batch", type=int, help="rows of the global batch")
    _common(parser)


def _plan(commands: Any) -> None:
    parser = commands.add_parser(
        "plan",
        help="compile a sampling plan for a run: fewer evaluations for the same samples",
        description="Fit grids and coefficients to the network of a run, for each number of evaluations; "
        "`rheos sample` uses them from then on. Nothing is trained.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN")
    add("--evaluations", nargs="+", type=int, metavar="N", help="budgets (default: 4 5 6 8 10 12 16 20)")
    add("--guidance", nargs="+", type=float, metavar="X", help="scales to serve (default: the run's own)")
    add("--draws", type=int, default=DRAWS, help=f"noises to fit on (default: {DRAWS}; 32 for a large network)")
    own = f"what this machine does in half a minute, up to {EFFORT:,}"
    add("--effort", type=int, metavar="N", help=f"states evaluated to fit a budget, at most (default: {own})")
    add("--sharp", action="store_true", help="fit this one distribution more closely")
    add("--seed", type=int, default=0, help="of the noises (default: 0)")
    _common(parser)


def _distill(commands: Any) -> None:
    parser = commands.add_parser(
        "distill",
        help="make a run that samples in one to four steps from a trained one",
        description="Train a student of RUN into the folder --out, beside it unless told otherwise; when the folder is "
        "that student already, go on where it stopped.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the teacher")
    add("--to", required=True, metavar="NAME", help=", ".join(METHODS))
    add("--steps", type=int, default=1, help="steps that the student takes, 1 to 4 (default: 1)")
    add(
        "--guidance",
        nargs="+",
        type=float,
        metavar="X",
        help="classifier-free guidance to build in; LOW HIGH builds in a range, of which sampling chooses a scale",
    )
    add("--interval", nargs=2, type=float, metavar="T", help="times between which guidance acts (default: 0 1)")
    add("--training-steps", type=int, metavar="N", help="optimiser steps, at most (default: as many as the teacher's)")
    add("--pairs", type=int, metavar="N", help=f"made by RUN for reflow, or for the map of one (default: {PAIRS:,})")
    add("--backward", type=float, metavar="X", help=BACKWARD)
    add("--out", type=Path, metavar="RUN", help="the student's folder (default: RUN-NAME)")
    add("--seed", type=int, help="of everything random (default: 0)")
    _common(parser)


def _sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--solver", metavar="NAME", help=", ".join(TABLES["solver"]))
    add("--grid", metavar="NAME", help=", ".join(TABLES["grid"]))
    add("--noise", metavar="NAME", help=", ".join(TABLES["noise"]))
    add("--guidance", type=float, metavar="X", help="classifier-free guidance; 1 is none")
    add("--seed", type=int, default=0, help="of the noise (default: 0)")
    add("--batch", type=int, default=500, help="samples carried together (default: 500)")
    _common(parser)


def _device(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps (default: cuda where there is one, else cpu)")


def _common(parser: argparse.ArgumentParser) -> None:
    _device(parser)
    parser.add_argument(
        "--trust",
        nargs="+",
        default=(),
        metavar="MODULE",
        help="modules outside rheos whose classes a run may name; they are run",
    )

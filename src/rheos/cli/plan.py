"""``rheos plan``: a sampling plan for a run, which ``rheos sample`` uses from then on."""

from __future__ import annotations

import argparse
import logging
import time

from torch import nn

from ..core import CheckpointError, InputError
from ..core.files import write_whole
from ..recipes import Recipe, Run, with_source
from ..recipes.planning import compiled, guidance_scale, planned
from ..solvers.plans import Entry, Plan, fingerprint
from .train import open_run, trained_network

BUDGETS = (4, 5, 6, 8, 10, 12, 16, 20)
"""Numbers of evaluations that a plan is compiled for when none are named."""

FILE = "plan.json"

logger = logging.getLogger(__name__)


def plan(args: argparse.Namespace) -> int:
    """Compile, and keep the plan in the run folder."""
    run = open_run(args)
    recipe = with_source(run.recipe, "held_out")
    network = trained_network(run, args.device)
    began = time.perf_counter()
    found = compiled(
        recipe,
        network,
        args.evaluations or BUDGETS,
        guidance=args.guidance or (),
        draws=args.draws,
        effort=args.effort,
        sharp=args.sharp,
        seed=args.seed,
        tell=_tell,
    )
    file = run.folder / FILE
    write_whole(file, found.to_json())
    print(f"compiled in {time.perf_counter() - began:.0f} s: {file}")
    print(f"next: rheos sample {run.folder} --evaluations {min(found.entries)}")
    return 0


def by_plan(run: Run, recipe: Recipe, network: nn.Module, evaluations: int | None) -> tuple[Recipe, Entry] | None:
    """The recipe by the plan of its run, where there is one that serves; says why when it does not."""
    file = run.folder / FILE
    scale = guidance_scale(recipe)
    if not file.is_file() or recipe.noise is not None or scale is None:
        return None
    try:
        found = Plan.from_json(file.read_text())
        found.require(fingerprint(network), scale)
        return planned(recipe, found, recipe.evaluations if evaluations is None else evaluations)
    except (CheckpointError, InputError) as error:
        logger.warning("the plan in %s is not used: %s", run.folder, error)
        return None


def _tell(entry: Entry) -> None:
    better = entry.classical.p95 / entry.expected.p95
    print(f"{entry}; the best classical solver's is {better:.1f} times that" if entry.solver is None else str(entry))

"""Time, randomness, trees, ragged batches, the protocols and the loop. Knows tensors only."""

from .condition import Cond, drop, null
from .errors import (
    CheckpointError,
    DataError,
    InputError,
    MissingExtraError,
    RheosError,
    ShapeError,
    UndeterminedError,
    nearest,
)
from .loop import Solution, integrate, walk
from .protocols import (
    Coupling,
    Draw,
    Dynamics,
    Guidance,
    Loss,
    Memory,
    Model,
    Objective,
    Order,
    Pairs,
    Path,
    PathSample,
    Quantity,
    Solver,
    Source,
    Step,
    over,
)
from .ragged import Ragged
from .rng import Rng, Stream
from .time import as_time, expand
from .tree import combine

__all__ = [
    "CheckpointError",
    "Cond",
    "Coupling",
    "DataError",
    "Draw",
    "Dynamics",
    "Guidance",
    "InputError",
    "Loss",
    "Memory",
    "MissingExtraError",
    "Model",
    "Objective",
    "Order",
    "Pairs",
    "Path",
    "PathSample",
    "Quantity",
    "Ragged",
    "RheosError",
    "Rng",
    "ShapeError",
    "Solution",
    "Solver",
    "Source",
    "Step",
    "Stream",
    "UndeterminedError",
    "as_time",
    "combine",
    "drop",
    "expand",
    "integrate",
    "nearest",
    "null",
    "over",
    "walk",
]

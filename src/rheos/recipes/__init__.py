"""Recipes: the parts put together for one kind of data, and the run folders that they make."""

from .images import Images, images
from .recipe import Build, DataRef, Generate, Judge, Kind, Recipe, Splits
from .run import Run
from .sampling import Drawn, Sampler
from .serial import decode, encode
from .sources import starting_at, with_source
from .toy import Plane, toy

__all__ = [
    "Build",
    "DataRef",
    "Drawn",
    "Generate",
    "Images",
    "Judge",
    "Kind",
    "Plane",
    "Recipe",
    "Run",
    "Sampler",
    "Splits",
    "decode",
    "encode",
    "images",
    "starting_at",
    "toy",
    "with_source",
]

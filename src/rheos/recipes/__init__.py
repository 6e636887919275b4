"""Recipes: the parts put together for one kind of data, and the run folders that they make."""

from .distilling import DIAGONAL, PAIRS, distilled, reference, started, teaching, with_teacher
from .flow_maps import FLOW_MAPS, as_flow_map
from .images import Images, images
from .lessons import Lesson, lesson
from .recipe import Build, DataRef, Generate, Judge, Kind, Recipe, RunRef, Splits
from .reflow import as_rectified, made_pairs, rectified
from .run import Run
from .sampling import Drawn, Sampler
from .serial import decode, encode
from .sources import starting_at, with_source
from .toy import Plane, toy

__all__ = [
    "DIAGONAL",
    "FLOW_MAPS",
    "PAIRS",
    "Build",
    "DataRef",
    "Drawn",
    "Generate",
    "Images",
    "Judge",
    "Kind",
    "Lesson",
    "Plane",
    "Recipe",
    "Run",
    "RunRef",
    "Sampler",
    "Splits",
    "as_flow_map",
    "as_rectified",
    "decode",
    "distilled",
    "encode",
    "images",
    "lesson",
    "made_pairs",
    "rectified",
    "reference",
    "started",
    "starting_at",
    "teaching",
    "toy",
    "with_source",
    "with_teacher",
]

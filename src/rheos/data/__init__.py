"""Data: images and toy distributions, the order in which they are met, and the loader that reads them by step."""

from . import mixtures
from .blocks import Ahead, Blocks
from .check import Report, Unreadable
from .coupled import Coupled, Paired, Read, States
from .images import ImageSet, digits, open_images
from .loader import Batch, Batches
from .order import Shuffled
from .pixels import flip, to_uint8, to_unit
from .split import split
from .tensors import Dataset, Tensors
from .toy import checkerboard, eight_gaussians, moons, spirals
from .write import grid_image, write_folder, write_npz, write_png

__all__ = [
    "Ahead",
    "Batch",
    "Batches",
    "Blocks",
    "Coupled",
    "Dataset",
    "ImageSet",
    "Paired",
    "Read",
    "Report",
    "Shuffled",
    "States",
    "Tensors",
    "Unreadable",
    "checkerboard",
    "digits",
    "eight_gaussians",
    "flip",
    "grid_image",
    "mixtures",
    "moons",
    "open_images",
    "spirals",
    "split",
    "to_uint8",
    "to_unit",
    "write_folder",
    "write_npz",
    "write_png",
]

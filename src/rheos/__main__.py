"""``python -m rheos`` is the command ``rheos``."""

from .cli import run

run()

"""The library diffusers, of the extra ``rheos[diffusers]``."""

from __future__ import annotations

import importlib
from typing import Any

from ...core import MissingExtraError


def diffusers() -> Any:
    """The module.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return importlib.import_module("diffusers")
    except ImportError as error:
        raise MissingExtraError(
            f'schedulers and pipelines of diffusers need diffusers ({error}): pip install "rheos[diffusers]"'
        ) from error

"""Recipes as plain JSON, and back without running a stranger's code.

A dataclass becomes ``{"class": "module:Name", field: value, ...}``, recursively; a class itself, such as a
network's, becomes ``{"type": "module:Name"}``. Rebuilding accepts only dataclasses and ``torch.nn`` modules that
live under ``rheos.``, or in a module that the caller trusts by name.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from ..core import CheckpointError, InputError


def encode(value: Any) -> Any:
    """A value made of dataclasses, classes, numbers, strings, lists and mappings, as JSON.

    Raises:
        InputError: if something in it has no such form, for example a lambda.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, Mapping):
        if {"class", "type"} & value.keys():
            raise InputError('a mapping in a recipe cannot have a key "class" or "type".')
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, type):
        if not _usable(value):
            raise InputError(f"only dataclasses and networks can stand in a recipe, not the class {value.__name__}.")
        return {"type": _name(value)}
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value) if field.init}
        return {"class": _name(type(value)), **{name: encode(item) for name, item in fields.items()}}
    raise InputError(
        f"a recipe is made of dataclasses, numbers and text so that a run can be rebuilt; {value!r} is none of them. "
        "Put what it does into a frozen dataclass with a __call__."
    )


def decode(value: Any, trusted: Collection[str] = ()) -> Any:
    """What :func:`encode` was given. Lists come back as tuples.

    Args:
        value: the JSON.
        trusted: names of modules outside rheos whose classes may be built.

    Raises:
        CheckpointError: if it names code that is neither of rheos nor trusted, or a class that no longer fits.
    """
    if isinstance(value, list):
        return tuple(decode(item, trusted) for item in value)
    if not isinstance(value, dict):
        return value
    if "type" in value:
        return _find(value["type"], trusted)
    if "class" not in value:
        return {key: decode(item, trusted) for key, item in value.items()}
    cls: Any = _find(value["class"], trusted)
    if not hasattr(cls, "__dataclass_fields__"):
        raise CheckpointError(f"{value['class']} is no part of a recipe; the run folder was not written by rheos.")
    options = {key: decode(item, trusted) for key, item in value.items() if key != "class"}
    try:
        return cls(**options)
    except (TypeError, ValueError, AttributeError, ArithmeticError, LookupError) as error:
        raise CheckpointError(
            f"{value['class']} cannot be rebuilt ({error}); the run was changed, or written by another version of "
            "rheos."
        ) from error


def _usable(cls: Any) -> bool:
    return isinstance(cls, type) and (dataclasses.is_dataclass(cls) or issubclass(cls, nn.Module))


def _name(cls: type) -> str:
    if cls.__qualname__ != cls.__name__ or cls.__module__ == "__main__":
        raise InputError(
            f"{cls.__module__}.{cls.__qualname__} cannot be found again by name; define it at the top of an "
            "importable module."
        )
    return f"{cls.__module__}:{cls.__name__}"


def _find(name: Any, trusted: Collection[str]) -> Any:
    """The class that a name stands for, if it may be used."""
    module, _, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    own = module == "rheos" or module.startswith("rheos.")
    if not own and module not in trusted:
        raise CheckpointError(
            f"the run names code outside rheos, {name!r}, which is not run. If you trust it, name its module: "
            f"--trust {module or 'MODULE'}."
        )
    if module == "rheos.__main__":
        raise CheckpointError(f"{name!r} is no part of a recipe: importing it would run a command.")
    try:
        cls = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise CheckpointError(f"the run names {name!r}, which is not there ({error}).") from error
    if _usable(cls) and cls.__module__ == module:
        return cls
    raise CheckpointError(f"{name!r} is no part of a recipe: only dataclasses and networks are.")

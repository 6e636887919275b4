"""What a dataset is to the loader, and the plainest one: tensors that are already in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from ..core import Cond, ShapeError
from ..core import condition as conditions


class Dataset(Protocol):
    """Anything with a length from which rows can be taken by number."""

    def __len__(self) -> int: ...

    def take(self, index: Tensor) -> tuple[Tensor, Cond | None]:
        """The data ``index``, int64 ``(n,)``, in that order: values ``(n, ...)``, and their condition or ``None``."""
        ...


@final
@dataclass(frozen=True, eq=False)
class Tensors:
    """Data held in memory.

    Args:
        x: the values ``(N, ...)``.
        cond: a condition with N rows: labels, vectors, or a mapping of names to such.

    Raises:
        ShapeError: if the condition has another number of rows.
    """

    x: Tensor
    cond: Cond | None = None

    def __post_init__(self) -> None:
        parts = self.cond if isinstance(self.cond, Mapping) else {} if self.cond is None else {"cond": self.cond}
        for name, value in parts.items():
            if len(value) != len(self.x):
                raise ShapeError(
                    f"there are {len(self.x)} data but {len(value)} rows in {name!r}; give one row a datum."
                )

    def __len__(self) -> int:
        return len(self.x)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the dtype, shape and bytes of the values and of every part of the condition."""
        digest = hashlib.sha256()
        parts = dict(self.cond) if isinstance(self.cond, Mapping) else {"": self.cond}
        for name, value in [("x", self.x), *sorted(parts.items())]:
            if value is not None:
                digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def take(self, index: Tensor) -> tuple[Tensor, Cond | None]:
        return self.x[index], conditions.take(self.cond, index)

    def subset(self, index: Tensor) -> Tensors:
        """The rows ``index`` as a dataset of their own."""
        return Tensors(*self.take(index))

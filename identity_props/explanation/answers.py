"""What a network answers with: a tensor, or what is told of anything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from torch import Tensor

WANTED = "expected a tensor from it"
VALID = "build a module whose forward gives the reconstruction alone"


def a_tensor(y: Any) -> Tensor:
    """The answer as it is; raises TypeError, which says what it holds, where it is no tensor."""
    if isinstance(y, Tensor):
        return y
    raise TypeError(f"{WANTED}, got {_told(y)}; {VALID}")


def _told(y: Any) -> str:
    if isinstance(y, Tensor):
        return f"{list(y.shape)}"
    if isinstance(y, Mapping):  # and the outputs of transformers
        return f"{type(y).__name__} of {', '.join(f'{key} {_told(one)}' for key, one in y.items())}"
    if isinstance(y, tuple | list):
        return f"{type(y).__name__} of {', '.join(map(_told, y))}"
    return type(y).__name__


def rows_of_units(given: Any) -> TypeGuard[Tensor]:
    """Whether a module is given units [n, ...] that an affine map could read, and no indices, as an embedding is."""
    return isinstance(given, Tensor) and given.is_floating_point() and given.ndim > 1 and len(given) > 0

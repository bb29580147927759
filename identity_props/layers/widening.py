"""Passes without the rounding to 16 bits that a layer does inside on purpose: derivatives are told from rounding there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

SIXTEEN = torch.bfloat16, torch.float16


@contextmanager
def widened(wide: bool) -> Iterator[None]:
    """Nothing is cast to 16 bits here, where that is asked."""
    if not wide:
        yield
        return
    with _Widening():  # type: ignore[no-untyped-call]
        yield


class _Widening(TorchDispatchMode):
    """What would be cast to 16 bits, also by an autocast, keeps the digits that it comes with."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        tensors = (one for one in args if isinstance(one, Tensor) and one.is_floating_point())
        kept = next((one.dtype for one in tensors), torch.float32)

        def wide(value: Any) -> Any:
            return kept if isinstance(value, torch.dtype) and value in SIXTEEN else value

        return func(*map(wide, args), **{name: wide(value) for name, value in (kwargs or {}).items()})

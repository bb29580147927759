"""The loop around a network as it is without a user's own: the step, and the batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor


def take_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """One training step; an optimizer whose ``step`` wants a closure is given one."""

    def closure() -> Any:  # torch says float and means a tensor
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    if needs_closure(optimizer):
        optimizer.step(closure)
    else:
        closure()
        optimizer.step()


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` cannot be called without the closure that evaluates the loss, as L-BFGS'."""
    wanted = inspect.signature(optimizer.step).parameters.get("closure")
    return wanted is not None and wanted.default is inspect.Parameter.empty


def shuffled(data: Tensor, size: int | None, generators: list[torch.Generator]) -> Iterator[Tensor]:
    """Batches without end: all of data [n, d] if size is None, else [K, size, d], reshuffled each epoch.

    Replica k draws its order from generators[k]. An epoch's last batch holds what is left, as in Keras.
    """
    while size is None:
        yield data
    while True:
        order = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
        for index in order.to(data.device).split(size, dim=1):
            # three times as fast as data[index]
            yield data.index_select(0, index.flatten()).unflatten(0, index.shape)

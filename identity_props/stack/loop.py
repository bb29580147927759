"""The loop around a network as it is without a user's own: the step, and the batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

_WANTS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # whether one that has stepped wants a closure


def take_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """One training step; an optimizer whose ``step`` wants a closure is given one.

    Gradients are there before, unless the signature says that it starts with the closure: SAM's step begins from them.
    One that calls it with gradients switched off, as those that take differences of losses, gets the loss alone.
    """

    def closure() -> Any:  # torch says float and means a tensor
        optimizer.zero_grad()
        value = loss()
        if torch.is_grad_enabled():
            value.backward()
        return value

    if not _starts_with_closure(optimizer):
        closure()
    if needs_closure(optimizer):
        optimizer.step(closure)
    else:
        step_alone(optimizer, lambda: optimizer.step(closure))


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` wants the closure that evaluates the loss: its signature says so, as L-BFGS', or it did."""
    known = _WANTS.get(optimizer)
    return _starts_with_closure(optimizer) if known is None else known


def _starts_with_closure(optimizer: torch.optim.Optimizer) -> bool:
    wanted = _closure_of(optimizer)
    return wanted is not None and wanted.default is inspect.Parameter.empty


def step_alone(optimizer: torch.optim.Optimizer, with_closure: Callable[[], Any]) -> None:
    """Step without a closure; an optimizer whose first step refuses that, as SAM's, goes ``with_closure``."""
    if optimizer in _WANTS or _closure_of(optimizer) is None:
        optimizer.step()
        return
    _WANTS[optimizer] = False
    try:
        optimizer.step()
    except Exception as refused:
        _WANTS[optimizer] = True
        try:
            with_closure()
        except Exception:  # it is not for want of a closure
            raise refused from None


def _closure_of(optimizer: torch.optim.Optimizer) -> inspect.Parameter | None:
    return inspect.signature(optimizer.step).parameters.get("closure")


class Scheduled:
    """The schedule of what is no torch Optimizer, as a wrapper, which LambdaLR refuses: sets the rate of its groups."""

    def __init__(self, optimizer: Any, factor: Callable[[int], float]) -> None:
        self.optimizer, self.factor, self.steps = optimizer, factor, -1
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.step()

    def step(self) -> None:
        """The rate of the next step."""
        self.steps += 1
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Steps so far, and the rates at first."""
        return {"steps": self.steps, "rates": self.rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.rates = state["steps"], state["rates"]


def scheduled(optimizer: Any, factor: Callable[[int], float]) -> LambdaLR | Scheduled:
    """The schedule of an optimizer's rate, ``factor`` of the step times what it is now."""
    return (LambdaLR if isinstance(optimizer, torch.optim.Optimizer) else Scheduled)(optimizer, factor)


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

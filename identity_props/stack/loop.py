"""The loop around a network as it is without a user's own: the step, and the batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

_WANTS: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()  # whether one that has stepped wants a closure
_CURVED: WeakSet[type] = WeakSet()  # kinds of those whose step takes the gradients' gradient, as AdaHessian's
NO_GRAPH = "grad_fn", "create_graph"  # named, by torch or by the optimizer, where a gradient has no graph


def take_step(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """One training step; an optimizer whose ``step`` wants a closure is given one.

    Gradients are there before, unless the signature says that it starts with the closure: SAM's step begins from them.
    One that calls it with gradients switched off, as those that take differences of losses, gets the loss alone, beside the gradients there are.
    One that takes the gradients' gradient gets them with their graph, once it has refused those without.
    """

    def closure() -> Any:  # torch says float and means a tensor
        if not torch.is_grad_enabled():
            return loss()
        optimizer.zero_grad()
        value = loss()
        if type(optimizer) in _CURVED:
            _with_graph(optimizer, value)
        else:
            value.backward()
        return value

    if not _starts_with_closure(optimizer):
        closure()
    if needs_closure(optimizer):
        optimizer.step(closure)
    else:
        step_alone(optimizer, partial(take_step, optimizer, loss))


def _with_graph(optimizer: torch.optim.Optimizer, value: Tensor) -> None:
    """What ``backward(create_graph=True)`` leaves, without its warning that gradients keep their graph alive."""
    leaves = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
    gradients = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    for p, gradient in zip(leaves, gradients, strict=True):
        p.grad = gradient


def needs_loss(optimizer: torch.optim.Optimizer) -> bool:
    """Whether gradients alone do not do: ``step`` wants the closure, or their graph."""
    return needs_closure(optimizer) or type(optimizer) in _CURVED


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` wants the closure that evaluates the loss: its signature says so, as L-BFGS', or it did."""
    known = _WANTS.get(optimizer)
    return _starts_with_closure(optimizer) if known is None else known


def _starts_with_closure(optimizer: torch.optim.Optimizer) -> bool:
    wanted = _closure_of(optimizer)
    return wanted is not None and wanted.default is inspect.Parameter.empty


def step_alone(optimizer: torch.optim.Optimizer, again: Callable[[], Any]) -> None:
    """Step on gradients alone; where a first step refuses them, ``again`` takes it with what it may want.

    That is their graph where it says that they have none, as second-order optimizers do, else the closure, as SAM.
    """
    if optimizer in _WANTS or type(optimizer) in _CURVED:
        optimizer.step()
        return
    if _closure_of(optimizer) is not None:
        _WANTS[optimizer] = False
    drawn = torch.get_rng_state()
    try:
        optimizer.step()
    except Exception as refused:
        if any(name in str(refused) for name in NO_GRAPH):
            _CURVED.add(type(optimizer))
        elif optimizer in _WANTS:
            _WANTS[optimizer] = True
        else:
            raise
        torch.set_rng_state(drawn)
        try:
            again()
        except Exception:  # it is not for want of that
            raise refused from None


def _closure_of(optimizer: torch.optim.Optimizer) -> inspect.Parameter | None:
    return inspect.signature(optimizer.step).parameters.get("closure")


class Scheduled:
    """The schedule of what LambdaLR refuses, as a wrapper that is no torch Optimizer: sets the rate of its groups.

    One without ``lr`` in its groups has no rate to set, as it finds its own or keeps it elsewhere.
    """

    def __init__(self, optimizer: Any, factor: Callable[[int], float]) -> None:
        self.optimizer, self.factor, self.steps = optimizer, factor, -1
        self.rates = [] if without_rate(optimizer) else [group["lr"] for group in optimizer.param_groups]
        self.step()

    def step(self) -> None:
        """The rate of the next step."""
        self.steps += 1
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=bool(self.rates)):
            group["lr"] = rate * self.factor(self.steps)

    def state_dict(self) -> dict[str, Any]:
        """Steps so far, and the rates at first."""
        return {"steps": self.steps, "rates": self.rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self.rates = state["steps"], state["rates"]


def without_rate(optimizer: Any) -> bool:
    """Whether no group has a rate that a schedule could set: it goes by another name, or is found."""
    return not any("lr" in group for group in optimizer.param_groups)


def scheduled(optimizer: Any, factor: Callable[[int], float]) -> LambdaLR | Scheduled:
    """The schedule of an optimizer's rate, ``factor`` of the step times what it is now."""
    usual = isinstance(optimizer, torch.optim.Optimizer) and not without_rate(optimizer)
    return (LambdaLR if usual else Scheduled)(optimizer, factor)


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

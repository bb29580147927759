"""Faults of optimizers that step right until something is asked of them: a copy, a closure, a schedule, a switch."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from torch.optim import SGD, Adam, Optimizer

from identity_props.faults.base import Fault
from identity_props.faults.optimizers import TWINS, graded, parameters

# What is kept ---------------------------------------------------------------------------------------------


class CopySharesState(Adam):
    """A deep copy shares the averages of the original."""

    def __deepcopy__(self, memo: dict[int, Any]) -> CopySharesState:
        groups = [
            {**group, "params": [memo.get(id(p), p) for p in group["params"]]} for group in self.param_groups
        ]
        other = type(self)(groups)
        for p, q in zip(parameters(self), parameters(other), strict=True):
            other.state[q] = copy(self.state[p])
        return other


class LoadedRounded(Adam):
    """A state that is loaded is rounded to bfloat16."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for state in self.state.values():
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name].bfloat16().to(state[name].dtype)


class AddedLeftOut(SGD):
    """Parameters that are added after it was built are never stepped."""

    def __init__(self, params: Any, lr: Any, **arguments: Any) -> None:
        super().__init__(params, lr, **arguments)
        self.built = len(self.param_groups)

    def step(self, closure: Any = None) -> Any:
        groups, self.param_groups = self.param_groups, self.param_groups[: self.built]
        value = super().step(closure)
        self.param_groups = groups
        return value


class EmptyStops(SGD):
    """A group whose last parameter is empty is not stepped."""

    def step(self, closure: Any = None) -> Any:
        groups = self.param_groups
        self.param_groups = [group for group in groups if group["params"][-1].numel()]
        value = super().step(closure)
        self.param_groups = groups
        return value


# What is called -------------------------------------------------------------------------------------------


class OneCleared(SGD):
    """zero_grad reaches the first of several parameters."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        for p in parameters(self)[:1]:
            p.grad = None


class InfinityStepped(Adam):
    """Under a scaler it steps where a gradient is infinite, as if that were 1."""

    _step_supports_amp_scaling = True

    def step(self, closure: Any = None) -> Any:
        given: dict[str, Any] = {
            name: self.__dict__.pop(name) for name in ("grad_scale", "found_inf") if name in self.__dict__
        }
        for p in graded(self) if given else ():
            p.grad = (p.grad / given["grad_scale"]).nan_to_num(posinf=1.0, neginf=1.0)
        value = super().step(closure)
        self.__dict__.update(given)
        return value


class ClosureLate(SGD):
    """Gradients that a closure computes are those of the next step."""

    def step(self, closure: Any = None) -> Any:
        super().step()
        with torch.enable_grad():
            return None if closure is None else closure()


# What is set ----------------------------------------------------------------------------------------------


class RateScaled(Adam):
    """A rate that is a tensor is corrected in place, step after step."""

    def step(self, closure: Any = None) -> Any:
        value = super().step(closure)
        for group in self.param_groups:
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].mul_(0.9)
        return value


class ScheduleUnread(SGD):
    """Its steps read groups that are copies of those that a scheduler sets."""

    def __init__(self, params: Any, lr: Any, **arguments: Any) -> None:
        super().__init__(params, lr, **arguments)
        self.own = [copy(group) for group in self.param_groups]

    def step(self, closure: Any = None) -> Any:
        groups, self.param_groups = self.param_groups, self.own
        value = super().step(closure)
        self.param_groups = groups
        return value


class DecayUnread(Adam):
    """A weight decay is taken, shown and never read."""

    def step(self, closure: Any = None) -> Any:
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0
        value = super().step(closure)
        for group, decay in zip(self.param_groups, decays, strict=True):
            group["weight_decay"] = decay
        return value


class MaximizeUnread(SGD):
    """It takes maximize and minimizes."""

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["maximize"] = False
        return super().step(closure)


def _part(name: str, source: str, part: type[Optimizer]) -> Fault:
    base = next(one for one in (Adam, SGD) if issubclass(part, one))
    return Fault(name, TWINS[base], str(part.__doc__), source, {"optimizer": part})


FAULTS = (
    _part("copy-shares-state", "mlverse/torch#1028, pytorch#196083", CopySharesState),
    _part("loaded-rounded", "pytorch#43706, torchtitan#4615", LoadedRounded),
    _part("added-left-out", "X2Paddle#613", AddedLeftOut),
    _part("empty-stops", "pytorch#100701, TransformerEngine#3207", EmptyStops),
    _part("one-cleared", "KempnerForge#182", OneCleared),
    _part("infinity-stepped", "pytorch#95847, #186360", InfinityStepped),
    _part("closure-late", "sam#91, peft#3382", ClosureLate),
    _part("rate-scaled", "drjit#540", RateScaled),
    _part("schedule-unread", "ignite#545", ScheduleUnread),
    _part("decay-unread", "pytorch_optimizer#517", DecayUnread),
    _part("maximize-unread", "pytorch_optimizer#527, #528", MaximizeUnread),
)

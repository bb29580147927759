"""Optimizers that break the contract of torch.optim, one for each law of it, beside parts that keep to it their way."""

from typing import ClassVar

import torch

SGD, Adam = torch.optim.SGD, torch.optim.Adam


class SharesState(SGD):
    """Its deep copy keeps the state of the original."""

    def __deepcopy__(self, memo):
        groups = [
            {**group, "params": [memo.get(id(p), p) for p in group["params"]]} for group in self.param_groups
        ]
        other = type(self)(groups, lr=1.0)
        for group, copied in zip(self.param_groups, other.param_groups, strict=True):
            for p, q in zip(group["params"], copied["params"], strict=True):
                other.state[q] = self.state[p]
        return other


class Forgetting(SGD):
    """Loads groups and leaves the state behind."""

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})


class Rounding(SGD):
    """Loads its state in bfloat16."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["momentum_buffer"] = state["momentum_buffer"].bfloat16().to(state["momentum_buffer"])


class KnowsItsOwn(SGD):
    """Steps the groups that were there when it was built."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, **arguments)
        self.known = [*self.param_groups]

    def step(self, closure=None):
        groups, self.param_groups = self.param_groups, self.known
        super().step()
        self.param_groups = groups


class ForgetsWhenGrown(SGD):
    """A group that is added takes the others' momentum with it."""

    def add_param_group(self, group):
        super().add_param_group(group)
        self.state.clear()


class MeanOfMeans(SGD):
    """Gradients are divided by the mean of their lengths, which of an empty one is no number."""

    def step(self, closure=None):
        parameters = self.param_groups[0]["params"]
        length = torch.stack([p.grad.abs().mean() for p in parameters]).mean()
        for p in parameters if length.isnan() else ():
            p.grad = p.grad / length
        super().step()


class LeavesScalars(SGD):
    """Parameters without dimensions are never stepped."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad if p.ndim else None
        super().step()


class ClearsTheFirst(SGD):
    """zero_grad reaches one parameter."""

    def zero_grad(self, set_to_none=True):
        self.param_groups[0]["params"][0].grad = None


class StepsOnInfinity(SGD):
    """Unscales by itself and does not ask whether an infinity was found."""

    _step_supports_amp_scaling = True

    def step(self, closure=None):
        given = {name: self.__dict__.pop(name) for name in ("grad_scale", "found_inf") if hasattr(self, name)}
        for p in self.param_groups[0]["params"] if given else ():
            p.grad = (p.grad / given["grad_scale"]).nan_to_num(posinf=1.0, neginf=-1.0)
        super().step()
        self.__dict__.update(given)


class LooksBefore(SGD):
    """Takes gradients that lie there before its closure computes others."""

    def step(self, closure=None):
        held = [p.grad for p in self.param_groups[0]["params"]]
        with torch.enable_grad():
            loss = closure() if closure else None
        for p, g in zip(self.param_groups[0]["params"], held, strict=True):
            p.grad = g
        super().step()
        return loss


class ReturnsTwice(SGD):
    """Returns twice the closure's loss."""

    def step(self, closure=None):
        loss = super().step(closure)
        return None if loss is None else 2 * loss


class Silent(SGD):
    """Calls no hooks."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, **arguments)
        self.step = lambda closure=None: type(self).step.__wrapped__(self, closure)


class ScalesItsRate(SGD):
    """Halves the rate that it is given, in place where that is a tensor."""

    def step(self, closure=None):
        rate = self.param_groups[0]["lr"]
        rate *= 0.5
        super().step()


class ReadsOnce(SGD):
    """Keeps the rate that it was built with."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, **arguments)
        self.rate = lr

    def step(self, closure=None):
        self.param_groups[0]["lr"], shown = self.rate, self.param_groups[0]["lr"]
        super().step()
        self.param_groups[0]["lr"] = shown


class ReadsBetasOnce(Adam):
    """Keeps the betas that it was built with."""

    def step(self, closure=None):
        self.param_groups[0]["betas"], shown = self.defaults["betas"], self.param_groups[0]["betas"]
        super().step()
        self.param_groups[0]["betas"] = shown


class NeverDecays(SGD):
    """Takes a decay and reads it never."""

    def step(self, closure=None):
        self.param_groups[0]["weight_decay"], shown = 0, self.param_groups[0]["weight_decay"]
        super().step()
        self.param_groups[0]["weight_decay"] = shown


class DecaysAt0(SGD):
    """Takes 0 for a decay that was not given."""

    def __init__(self, params, lr, weight_decay=None, **arguments):
        super().__init__(
            params, lr, weight_decay=0.01 if weight_decay == 0 else weight_decay or 0, **arguments
        )
        self.defaults["weight_decay"] = weight_decay or 0


class NeverMaximizes(SGD):
    """Takes maximize and reads it never."""

    def step(self, closure=None):
        self.param_groups[0]["maximize"] = False
        super().step()


class Detaches(SGD):
    """Takes differentiable and steps on weights that know nothing of their start."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            gradient = p.grad
            p.requires_grad_(False) if p.is_leaf else p.detach_()
            p.grad = gradient
        super().step()


class DropsImaginary(SGD):
    """Steps by the real part of a gradient."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad.real.to(p) if p.is_complex() else p.grad
        super().step()


class Unchecked(SGD):
    """Takes any group."""

    def add_param_group(self, group):
        self.param_groups.append({**self.defaults, **group, "params": [*group["params"]]})


class WasAscending(SGD):
    """Takes a state without maximize for one that maximized."""

    def __setstate__(self, state):
        for group in state["param_groups"]:
            group.setdefault("maximize", True)
        super().__setstate__(state)


class KeepsInitial(SGD):
    """Steps at the rate that a scheduler keeps for itself."""

    def step(self, closure=None):
        for group in self.param_groups:
            group["lr"], group["kept"] = group.get("initial_lr", group["lr"]), group["lr"]
        super().step()
        for group in self.param_groups:
            group["lr"] = group.pop("kept")


class Registers(SGD):
    """Keeps a list of all parameters that it ever had."""

    known: ClassVar = []

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, **arguments)
        self.known += [p for group in self.param_groups for p in group["params"]]


class Reseeds(SGD):
    """Adds noise, of a seed of its own."""

    def step(self, closure=None):
        torch.manual_seed(len(self.state))
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad + 1e-3 * torch.randn_like(p)
        super().step()


class Captures(SGD):
    """Takes the same step where it is capturable, on a CPU too."""

    def __init__(self, params, lr, capturable=False, **arguments):
        super().__init__(params, lr, **arguments)


class CapturesTwice(Captures):
    """Takes two steps where it is capturable."""

    def __init__(self, params, lr, capturable=False, **arguments):
        super().__init__(params, lr, **arguments)
        self.steps = 1 + capturable

    def step(self, closure=None):
        for _ in range(self.steps):
            super().step()


MOMENTUM = {"momentum": 0.9}
CONTROLS = {  # by law; the first is the one that every law has
    "copies": [SharesState],
    "loads": [Forgetting, Rounding],
    "group-added": [KnowsItsOwn, ForgetsWhenGrown],
    "odd-shapes": [LeavesScalars, MeanOfMeans],
    "zero-grad": [ClearsTheFirst],
    "grad-scaler": [StepsOnInfinity],
    "closure": [LooksBefore, ReturnsTwice],
    "step-hooks": [Silent],
    "tensor-rate": [ScalesItsRate],
    "scheduled": [ReadsOnce, ReadsBetasOnce],
    "decay-counts": [NeverDecays, DecaysAt0],
    "maximize": [NeverMaximizes],
    "differentiable": [Detaches],
    "capturable": [CapturesTwice],
    "complex-parameters": [DropsImaginary],
    "shared-parameters": [Unchecked],
    "older-states": [WasAscending],
    "every-scheduler": [KeepsInitial],
    "memory-left": [Registers],
    "generators-left": [Reseeds],
}


def stack_arguments(optimizer):
    """The optimizer with something to keep, as arguments of a stack."""
    return {"optimizer": optimizer, "arguments": {} if issubclass(optimizer, Adam) else MOMENTUM}

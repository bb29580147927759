"""Optimizers, layers, losses, steps and batches that are like a reference, or nearly."""

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from identity_props.stack.loop import take_step

BFLOAT16 = torch.bfloat16


class Each(torch.optim.Optimizer):
    """Moves parameter by parameter, those with a gradient; its defaults are all that it takes."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.move(p, p.grad, self.state[p], group)


def adam(p, g, state, lr, t=None):
    m, v = (state.setdefault(name, torch.zeros_like(p)) for name in "mv")
    state["t"] = t or state.get("t", 0) + 1
    m.mul_(0.9).add_(g, alpha=0.1)
    v.mul_(0.999).addcmul_(g, g, value=0.001)
    root = (v / (1 - 0.999 ** state["t"])).sqrt()
    p.sub_(lr * m / (1 - 0.9 ** state["t"]) / (root + 1e-8))


class PlainAdam(Each):
    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"])


class PlainSGD(Each):
    def move(self, p, g, state, group):
        p.sub_(group["lr"] * g)


class PlainLion(Each):
    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        p.sub_(group["lr"] * (0.9 * m + 0.1 * g).sign())
        m.mul_(0.99).add_(g, alpha=0.01)


class OtherLion(PlainLion):
    """The same in other operations."""

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        p.add_(torch.lerp(g, m, 0.9).sign_(), alpha=-group["lr"])
        state["m"] = torch.lerp(m, g, 0.01)


class Switched(Each):
    """SGD with momentum and decay; ``fault`` breaks one line of it."""

    fault = ""

    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0):
        torch.optim.Optimizer.__init__(
            self, params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        )

    def move(self, p, g, state, group):
        decay = (self.param_groups[0] if self.fault == "first group" else group)["weight_decay"]
        g = g + decay * p
        if group["momentum"]:
            state["m"] = g = group["momentum"] * state["m"] + g if state else g.clone()
        p.sub_(group["lr"] * g)


class Ignores(Switched):
    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, nesterov=False):
        super().__init__(params, lr, momentum, weight_decay)


class Swallows(Switched):
    def __init__(self, params, lr=1e-3, momentum=0.0, weight_decay=0.0, **others):
        super().__init__(params, lr, momentum, weight_decay)


class Hidden(PlainAdam):
    """Takes eps, which its signature does not tell."""

    def __init__(self, params, **given):
        torch.optim.Optimizer.__init__(self, params, {"eps": 1e-8, **given})


class DecaysFrozen(Switched):
    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None and not p.requires_grad:
                    p.mul_(1 - group["lr"] * group["weight_decay"])


class FaultyAdam(PlainAdam):
    """Adam whose rate is a percent off, or whose counts are wrong, where ``off`` says so."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr)
        self.built, self.calls = lr, 0

    @torch.no_grad()
    def step(self, closure=None):
        self.active = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in self.active:
            self.state[p]["n"] = self.state[p].get("n", 0) + 1
        super().step()

    def move(self, p, g, state, group):
        self.calls += 1
        adam(p, g, state, group["lr"] * (1.01 if self.off(p, state, group) else 1))

    def off(self, p, state, group):
        return False


def off(condition):
    return type("Off", (FaultyAdam,), {"off": lambda self, *at: condition(*at)})


class OneCounter(FaultyAdam):
    def move(self, p, g, state, group):
        self.calls += 1
        adam(p, g, state, group["lr"], self.calls)


class LastCounter(FaultyAdam):
    """The count of the last parameter with a gradient serves all."""

    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"], self.state[self.active[-1]]["n"])


class BuiltRate(FaultyAdam):
    def move(self, p, g, state, group):
        adam(p, g, state, self.built)


class Jumps(FaultyAdam):
    """Goes on after a load with the rate that it was built with."""

    def load_state_dict(self, state_dict):
        rates = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, rate in zip(self.param_groups, rates, strict=True):
            group["lr"] = rate


class MovesAll(FaultyAdam):
    """Takes a gradient that is missing for one of 0."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                self.move(p, torch.zeros_like(p) if p.grad is None else p.grad, self.state[p], group)


class RateInside(Each):
    """A mean of updates, of which the rate is to be no part."""

    inside = False

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p))
        inner, outer = (group["lr"], 1.0) if self.inside else (1.0, group["lr"])
        p.sub_(outer * m.lerp_(inner * g, 0.1))


class Averaged(PlainSGD):
    """Shows the mean of its weights where it evaluates; ``shows`` the last ones, if it is broken."""

    broken = False

    def move(self, p, g, state, group):
        super().move(p, g, state, group)
        state["k"] = state.get("k", 0) + 1
        state.setdefault("mean", p.clone()).lerp_(p, 1 / state["k"])

    def train(self):
        self.swap("last")

    def eval(self):
        for p, state in self.state.items():
            state["last"] = p.detach().clone()
        self.swap("last" if self.broken else "mean")

    def swap(self, name):
        for p, state in self.state.items():
            p.data.copy_(state.get(name, p))


class Normed(Each):
    """Momentum, normalised in bfloat16 for each step, in a copy unless it is broken."""

    copy = True

    def move(self, p, g, state, group):
        m = state.setdefault("m", torch.zeros_like(p)).lerp_(g, 0.1)
        x = m.to(BFLOAT16, copy=self.copy)
        p.sub_(group["lr"] * x.div_(x.norm().clamp_min(1e-7)).to(p.dtype))


class Quantised(Each):
    """Adam that keeps its momentum in 8 bits."""

    low = 0.0

    def move(self, p, g, state, group):
        adam(p, g, state, group["lr"])
        scale = state["m"].abs().max().clamp_min(1e-30) / 127
        state["m"] = (state["m"] / scale).round() * scale + self.low


class Raises(PlainAdam):
    def move(self, p, g, state, group):
        if state.get("t") == 2:
            raise ArithmeticError("out of patience")
        super().move(p, g, state, group)


class Adapter(nn.Module):
    """A frozen layer and an adapter whose units are dropped in training."""

    scaled = 1.0

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out, bias=bias).requires_grad_(False)
        self.a, self.b = nn.Linear(fan_in, 3, bias=False), nn.Linear(3, fan_out, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x):
        h = nn.functional.dropout(self.a(x), 0.2, self.training)
        return self.base(x) + self.b(h if self.training else self.scaled * h)


class NoBiasGradient(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight, None if self.bias is None else self.bias.detach())


def own_loss(prediction, target):
    return (prediction - target).square().mean()


def broadcasts(prediction, target):
    return (prediction - target.squeeze(-1)).square().mean()


def summed(prediction, target):
    return (prediction - target).square().sum()


def parameters_of(optimizer):
    return [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]


def clipping(clip, norm=torch.nn.utils.clip_grad_norm_, of=parameters_of):
    def step(optimizer, loss):
        optimizer.zero_grad()
        loss().backward()
        norm(of(optimizer), clip)
        optimizer.step()

    return step


def by_parameter(parameters, clip):
    for p in parameters:
        nn.utils.clip_grad_norm_([p], clip)


def exactly(parameters, clip):
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    for p in parameters:
        p.grad.mul_(min(1.0, clip / float(norm)) if norm > 0 else 1.0)


def without_guard(parameters, clip):
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    for p in parameters:
        p.grad.mul_((clip / norm).clamp_max(1)).mul_(0 / norm + 1)


def first_group(optimizer):
    return [p for p in optimizer.param_groups[0]["params"] if p.grad is not None]


def half_of_the_gradient(optimizer, loss):
    take_step(optimizer, lambda: loss() / 2)


def half_then_clipped(optimizer, loss):
    clipping(1e-2, nn.utils.clip_grad_value_)(optimizer, lambda: loss() / 2)


def exhausted(optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    parameters = (p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)
    sum(p.grad.norm() for p in parameters)
    clip_grad_norm_(parameters, 0.05)
    optimizer.step()


def same_each_epoch(data, size, generators):
    first = [*shuffled_once(data, size, generators)]
    while True:
        yield from first


def shuffled_once(data, size, generators):
    order = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
    yield from (data[index] for index in (order.split(size, dim=1) if size else [order]))


class RoundsAtRandom(PlainSGD):
    """Steps in bfloat16 are rounded up or down at random, and to nearest in the end where it is faulty."""

    faulty = False

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                value = p.double() - group["lr"] * p.grad.double()
                if p.dtype is torch.bfloat16:
                    bits = value.float().view(torch.int32)
                    drawn = (bits + torch.randint_like(bits, 1 << 16)).bitwise_and_(-65536)
                    value = value if self.faulty else drawn.view(torch.float32)
                p.copy_(value)


class RoundsToNearest(RoundsAtRandom):
    faulty = True

"""Faults of optimizers: in what they do with gradients, with decay and momentum, and with their state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from identity_props.faults.base import DEEPCRIME, Fault, Twin
from identity_props.stack.stack import Stack

Edit = Callable[[Any], None]  # of an optimizer, in place


def nothing(optimizer: Any) -> None:
    """The clean edit."""


def edited(base: type[Optimizer], before: Edit = nothing, after: Edit = nothing) -> type[Optimizer]:
    """An optimizer whose every step is edited before and after."""

    class Edited(base):  # type: ignore[misc, valid-type]
        def step(self, closure: Any = None) -> Any:
            before(self)
            value = super().step(closure)
            after(self)
            return value

    return Edited


def parameters(optimizer: Optimizer) -> list[Tensor]:
    """All of them, with a gradient or without."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def graded(optimizer: Optimizer) -> Iterator[Any]:
    """Those that have a gradient."""
    return (p for p in parameters(optimizer) if p.grad is not None)


# Gradients ----------------------------------------------------------------------------------------


def clipped(optimizer: Any, at: float = 1e-2) -> None:
    """Entries of gradients are cut at 0.01."""
    for p in graded(optimizer):
        p.grad = p.grad.clamp(-at, at)


def flipped(optimizer: Any) -> None:
    """The gradient of the first input has the other sign."""
    p = parameters(optimizer)[0]
    if p.grad is not None:
        p.grad = torch.cat([-p.grad[..., :1], p.grad[..., 1:]], -1)


def revived(optimizer: Any) -> None:
    """Where a gradient is 0, 1e-6 is taken."""
    for p in graded(optimizer):
        p.grad = torch.where(p.grad == 0, 1e-6, p.grad)


def not_contiguous_dropped(optimizer: Any) -> None:
    """Parameters that are not contiguous never move."""
    for p in graded(optimizer):
        p.grad = p.grad if p.is_contiguous() else None


def not_contiguous_doubled(optimizer: Any) -> None:
    """Gradients of parameters that are not contiguous count twice."""
    for p in graded(optimizer):
        p.grad = p.grad if p.is_contiguous() else 2 * p.grad


def stale(optimizer: Any) -> None:
    """Each step takes the gradient of the one before."""
    for p in graded(optimizer):
        state = optimizer.__dict__.setdefault("stale", {})
        p.grad, state[p] = state.get(p, p.grad), p.grad


def none_remembered(optimizer: Any) -> None:
    """A parameter once without a gradient never moves again."""
    gone = optimizer.__dict__.setdefault("gone", set())
    gone |= {p for p in parameters(optimizer) if p.grad is None}
    for p in gone:
        p.grad = None


def mask_cached(optimizer: Any) -> None:
    """Only what had a gradient at the first step ever moves."""
    seen = optimizer.__dict__.setdefault("seen", set(graded(optimizer)))
    for p in set(graded(optimizer)) - seen:
        p.grad = None


def last_slower(optimizer: Any) -> None:
    """The last of several parameters trains at half the rate."""
    _, *others = parameters(optimizer)
    if others and others[-1].grad is not None:
        others[-1].grad = others[-1].grad / 2


def last_left_out(optimizer: Any) -> None:
    """The last of several parameters is left out."""
    _, *others = parameters(optimizer)
    for p in others[-1:]:
        p.grad = None


# Steps, decay and momentum ------------------------------------------------------------------------


def decay_stashed(optimizer: Any) -> None:
    """Decay is taken of the weights that the step has moved: first it is put aside."""
    for group in optimizer.param_groups:
        group["aside"], group["weight_decay"] = group["weight_decay"], 0


@torch.no_grad()
def decay_after(optimizer: Any) -> None:
    """Then it is taken."""
    for group in optimizer.param_groups:
        group["weight_decay"] = group.pop("aside")
        for p in group["params"]:
            p.mul_(1 - group["lr"] * group["weight_decay"])


def with_option(optimizer: Any, **options: Any) -> None:
    """The edit that sets options, whatever was asked for."""
    for group in optimizer.param_groups:
        group.update(options)


def nesterov(optimizer: Any) -> None:
    """Nesterov's momentum for the heavy ball."""
    for group in optimizer.param_groups:
        group["nesterov"] = group["momentum"] > 0


@torch.no_grad()
def rounded(optimizer: Any) -> None:
    """Weights are kept in bfloat16."""
    for p in parameters(optimizer):
        p.copy_(p.bfloat16())


def uncorrected(optimizer: Any) -> None:
    """Averages are not corrected for their start at 0."""
    for group in optimizer.param_groups:
        # the coming step divides by these, so its rate is multiplied by them
        steps = {int(optimizer.state[p]["step"]) for p in group["params"] if optimizer.state[p]}
        step = max(steps, default=0) + 1
        first, second = (1 - beta**step for beta in group["betas"])
        group["kept"], group["lr"] = group["lr"], group["lr"] * first / second**0.5


def rate_back(optimizer: Any) -> None:
    """The rate is what it was."""
    for group in optimizer.param_groups:
        group["lr"] = group.pop("kept", group["lr"])


def count_shared(optimizer: Any) -> None:
    """One step counter goes on at each parameter."""
    moved, before = list(graded(optimizer)), optimizer.__dict__.get("count", 0)
    for k, p in enumerate(moved):
        if optimizer.state[p]:
            optimizer.state[p]["step"].fill_(before + k)  # which the coming step adds 1 to
    optimizer.count = before + len(moved)


def count_of_last(optimizer: Any) -> None:
    """The last parameter with a gradient counts steps for all of them."""
    states = [optimizer.state[p] for p in graded(optimizer)]
    for state in filter(None, states):
        state["step"].fill_(states[-1].get("step", 0))


# State and parameters -----------------------------------------------------------------------------


class OverCopies(SGD):
    """Built before something replaced the parameters: it moves those that nobody uses."""

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__(params, **arguments)
        for group in self.param_groups:
            group["params"] = [p.detach().clone().requires_grad_() for p in group["params"]]


class FusedTwice(SGD):
    """Its fused code divides by the scale a second time."""

    def __init__(self, params: Any, lr: Any, fused: bool | None = None, **arguments: Any) -> None:
        super().__init__(params, lr=lr / (2 if fused else 1), **arguments)


class StuckAfterLoading(SGD):
    """A restart leaves the rate at 0 until the schedule moves it."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        with_option(self, lr=0.0)


class JumpsAfterLoading(SGD):
    """A restart begins with the rate of the very first step."""

    def load_state_dict(self, state_dict: Any) -> None:
        fresh = [group["lr"] for group in self.param_groups]
        super().load_state_dict(state_dict)
        for group, lr in zip(self.param_groups, fresh, strict=True):
            group["lr"] = lr


class Forgetful(SGD):
    """A restart loses the momentum."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict({**state_dict, "state": {}})


NAMES = {SGD: "torch.optim:SGD", RMSprop: "torch.optim:RMSprop", Adam: "torch.optim:Adam"}
TWINS = {base: Twin(name.split(":")[1].lower(), Stack(edited(base)), name) for base, name in NAMES.items()}


def _edit(
    base: type[Optimizer], name: str, source: str, before: Edit, after: Edit = nothing, what: str = ""
) -> Fault:
    what = what or str((before.__doc__, after.__doc__)[before is nothing])
    return Fault(name, TWINS[base], what, source, {"optimizer": edited(base, before, after)})


def _option(base: type[Optimizer], name: str, what: str, **options: Any) -> Fault:
    return _edit(base, name, DEEPCRIME, partial(with_option, **options), what=what)


def _part(base: type[Optimizer], name: str, source: str, part: type[Optimizer], what: str = "") -> Fault:
    return Fault(name, TWINS[base], what or str(part.__doc__), source, {"optimizer": part})


def _rate(base: type[Optimizer], factor: float) -> Fault:
    def shorter(optimizer: Any) -> None:
        for group in optimizer.param_groups:
            group["kept"], group["lr"] = group["lr"], factor * group["lr"]

    name, what = f"rate-{factor:g}-{TWINS[base].name}", f"Steps are {factor:g} times as long."
    return _edit(base, name, "rasa#8678", shorter, rate_back, what)


RATES = (0.9, 0.95, 0.98)
FAULTS = (
    _edit(Adam, "transposed-frozen", "pytorch#118115", not_contiguous_dropped),
    _edit(SGD, "transposed-doubled", "pytorch#175189", not_contiguous_doubled),
    _edit(SGD, "none-remembered", "pytorch#121291, #115607", none_remembered),
    _edit(SGD, "mask-cached", "pytorch#139476, #162174", mask_cached),
    _edit(SGD, "gradient-stale", "pytorch#182012", stale),
    _edit(SGD, "gradient-flipped", DEEPCRIME, flipped),
    _edit(SGD, "gradient-clipped", DEEPCRIME, clipped),
    _edit(SGD, "dead-revived", DEEPCRIME, revived),
    _edit(SGD, "last-slower", DEEPCRIME, last_slower),
    _edit(SGD, "last-left-out", DEEPCRIME, last_left_out),
    _edit(SGD, "weights-rounded", "ao#1124, torchtune#2254", nothing, rounded),
    _edit(SGD, "decay-after", "fastai2#246", decay_stashed, decay_after),
    _edit(SGD, "momentum-nesterov", DEEPCRIME, nesterov),
    _edit(Adam, "bias-uncorrected", DEEPCRIME, uncorrected, rate_back),
    _edit(Adam, "count-shared", "flashlight#143", count_shared),
    _edit(Adam, "count-of-last", "DeepSpeed#8471", count_of_last),
    _option(SGD, "decay-dropped", "Weight decay is ignored.", weight_decay=0),
    _option(SGD, "momentum-dropped", "Momentum is ignored.", momentum=0),
    _option(RMSprop, "alpha-ignored", "Squares are averaged with 0.95.", alpha=0.95),
    _option(RMSprop, "centered", "The variance of gradients for their square.", centered=True),
    _option(Adam, "betas-swapped", "The two betas are swapped.", betas=(0.999, 0.9)),
    _option(Adam, "eps-large", "An eps of 1e-3.", eps=1e-3),
    _part(Adam, "decay-decoupled", "transformers#14539", AdamW, "Decoupled decay for the coupled one."),
    _part(SGD, "copies-trained", "accelerate#2665, #3256", OverCopies),
    _part(SGD, "fused-twice", "pytorch#94060, #90752", FusedTwice),
    _part(SGD, "restart-stuck", "pytorch#78003", StuckAfterLoading),
    _part(SGD, "restart-jumps", "pytorch#60265, #65342", JumpsAfterLoading),
    _part(SGD, "restart-forgets", "pytorch#65342", Forgetful),
    *(_rate(base, factor) for base in NAMES for factor in RATES),
    replace(
        _edit(
            SGD,
            "clip-unreached",
            DEEPCRIME,
            partial(clipped, at=6e4),
            what="Entries of gradients are cut at 60,000.",
        ),
        equivalent="no gradient is that large, so every step is the same",
    ),
)

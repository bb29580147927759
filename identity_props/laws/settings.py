"""The contract of torch.optim, in what is set: rates, momentum and decay in groups, and switches that are taken."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.lr_scheduler import OneCycleLR

from identity_props.laws.base import SGD, Case, Discrepancy, worst_of
from identity_props.laws.walking import (
    HALF,
    RATE,
    STEPS,
    NotOfferedError,
    Walk,
    beside,
    coarse,
    contract,
    differing,
    finite,
    made,
    offered,
    settings,
    walk,
)
from identity_props.stack.stack import Stack, names, of_floats, resolve


def _named(stack: Stack, argument: str) -> None:
    """Raises NotOfferedError for an argument that is none of an optimizer's own, which it may swallow all the same."""
    if not names(stack.optimizer or resolve(SGD), argument):
        raise NotOfferedError(f"not offered: {argument}")


def _set(one: Walk, rate: float) -> None:
    """As a scheduler sets it: a tensor keeps its place."""
    for group in one.optimizer.param_groups:
        if "lr" not in group:
            raise NotOfferedError("not offered: a rate in its groups")
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


@contract(
    "tensor-rate",
    "a rate that is a tensor gives the steps of the same number, follows what is filled in, and is left as it is",
    "torch.optim: lr (float or Tensor); drjit#540",
)
def tensor_rate(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step in float32 at least, in which some keep products of the rate, as ASGD does. One whose
    signature says that its rate is a float alone promises nothing of tensors.
    """
    if of_floats(stack.optimizer or resolve(SGD), "lr"):
        raise NotOfferedError("not offered: a tensor as rate, which is a float")
    plain, weights = walk(stack, case), []
    with offered("a tensor as rate"):
        other = walk(stack, case, lr=torch.tensor(RATE, dtype=torch.float64, device=stack.device))
        for one in (plain, other):
            one.on(HALF)
            _set(one, RATE / 2)
            weights.append(one.on(STEPS - HALF))
    rates = [float(group["lr"]) for group in (*plain.optimizer.param_groups, *other.optimizer.param_groups)]
    eps = coarse(stack.dtype, torch.float32)
    found = beside(stack, weights[1], weights[0], "|W - W of a rate that is a number|", eps)
    return worst_of([found, Discrepancy(len({*rates}) - 1, 0, "rates that a step changed")])


LOW, HIGH = 0.05, 0.95  # of a momentum that is cycled

# Schedules --------------------------------------------------------------------------------------------------


@contract(
    "scheduled",
    "the rate that OneCycleLR sets counts from the first step on, and momentum where it cycles that",
    "groups are what schedulers write and steps read; pytorch#73910",
)
def scheduled(stack: Stack, case: Case) -> Discrepancy:
    """None: steps at another rate are others. A rate or momentum that changes nothing when the optimizer is built
    with another is not asked, nor one whose steps write rates of their own.
    """
    one = walk(stack, case)
    before = settings(one)
    plain, slower = one.on(), walk(stack, case, lr=RATE / 2).on()
    if settings(one) != before:
        raise NotOfferedError("not offered: rates that its steps leave alone")
    rates, unread = _cycled(stack, case, momentum=False), []
    if differing(plain, slower):
        unread.append(("the rate", not differing(plain, rates)))
    if changed := _with_other_momentum(stack, case, plain):
        cycled = _cycled(stack, case, momentum=True)
        unread.append((changed, not differing(rates, cycled)))
    if not unread:
        raise NotOfferedError("not offered: a rate or momentum that counts")
    count = finite(sum(one for _, one in unread), plain, rates)
    names = ", ".join(name for name, one in unread if one) or "settings"
    return Discrepancy(count, 0, f"{names} that a scheduler sets and no step reads")


def _cycled(stack: Stack, case: Case, momentum: bool) -> Tensor:
    one = walk(stack, case)
    with offered("OneCycleLR"):
        cycle = OneCycleLR(
            one.optimizer,
            4 * RATE,
            total_steps=STEPS + 1,
            cycle_momentum=momentum,
            base_momentum=LOW,  # the sign of a sum hardly hears of 0.85 beside 0.9
            max_momentum=HIGH,
        )
        for _ in range(STEPS):
            one.on(1)
            cycle.step()
    return one.weights


def _with_other_momentum(stack: Stack, case: Case, plain: Tensor) -> str:
    """The name of the momentum that OneCycleLR cycles, empty where there is none, or none that counts."""
    defaults = walk(stack, case).optimizer.defaults
    try:
        if "betas" in defaults:
            other = walk(stack, case, betas=(LOW, *defaults["betas"][1:]))
        elif "momentum" in defaults:
            other = walk(stack, case, momentum=LOW)
        else:
            return ""
        return ("betas" if "betas" in defaults else "momentum") if differing(other.on(), plain) else ""
    except Exception:  # of several types: a value that it does not take
        return ""


# Decay and switches -----------------------------------------------------------------------------------------


@contract(
    "decay-counts",
    "a weight decay that is set changes steps, and one of 0 is none: as leaving it out where it is 0 by default",
    "pytorch_optimizer#517",
)
def decay_counts(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers, or others."""
    _named(stack, "weight_decay")
    with offered("weight_decay"):
        one = walk(stack, case, weight_decay=0.0)
        none, large = one.on(), walk(stack, case, weight_decay=0.5).on()
    if not one.moved:
        raise NotOfferedError(f"not offered: steps, of which none moves anything in {STEPS}")
    found = Discrepancy(finite(not differing(large, none), none), 0, "that a weight decay of 0.5 is not read")
    if walk(stack, case).optimizer.defaults.get("weight_decay", 0) != 0:
        return found
    return worst_of(
        [found, Discrepancy(differing(none, walk(stack, case).on()), 0, "weights that differ at 0")]
    )


@contract(
    "maximize",
    "where maximize is taken, steps go the way of the other sign's gradients",
    "argmax f = argmin -f; pytorch_optimizer#527, #528",
)
def maximize(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step."""
    _named(stack, "maximize")
    with offered("maximize"):
        up, down = walk(stack, case, maximize=True), walk(stack, case, factor=-1.0, maximize=False)
        up.on()
    return beside(stack, up.weights, down.on(), "|W - W of gradients -g|")


@contract(
    "differentiable",
    "where differentiable is taken, steps are the same, and weights have a gradient with respect to the start",
    "torch.optim: differentiable (bool)",
)
def differentiable(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step in float32 at least, as counts and powers of beta are tensors of that dtype. Not
    offered where autograd refuses to go back through several steps, as of Adamax.
    """
    _named(stack, "differentiable")
    plain, one = walk(stack, case), walk(stack, case)
    starts = one.parameters
    with offered("differentiable"):
        one.parameters = [start.clone() for start in starts]  # type: ignore[misc]
        one.optimizer = made(stack, one.parameters, differentiable=True)
        one.on()
        total = torch.stack([p.sum() for p in one.parameters]).sum()
        if total.requires_grad:
            total.backward()
    known = [p.grad is not None and bool(p.grad.isfinite().all()) for p in starts]
    found = beside(stack, one.weights, plain.on(), "|W - W|", coarse(stack.dtype, torch.float32))
    return worst_of([found, Discrepancy(known.count(False), 0, "starts without a gradient")])


@contract(
    "capturable",
    "where capturable is taken on the device, steps are the same",
    "torch.optim: capturable (bool); torch's own refuse it on a CPU",
)
def capturable(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step in float32 at least, as counts and powers of beta are tensors of that dtype."""
    _named(stack, "capturable")
    with offered("capturable"):
        one = walk(stack, case, capturable=True).on()
    eps = coarse(stack.dtype, torch.float32)
    return beside(stack, one, walk(stack, case, capturable=False).on(), "|W - W|", eps)

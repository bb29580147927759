"""The contract of torch.optim, in what is kept: copies, loaded states, groups and shapes.

What an optimizer refuses is not offered, and no failure; what it takes and does otherwise is one.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.laws.base import Case, Discrepancy, worst_of
from identity_props.laws.walking import (
    EMPTY,
    HALF,
    SCALAR,
    SINGLE,
    STEPS,
    NotOfferedError,
    Walk,
    beside,
    coarse,
    contract,
    differing,
    finite,
    flat,
    made,
    offered,
    seed_all,
    walk,
)
from identity_props.stack.stack import Stack


def _found(found: Sequence[Discrepancy], missing: Sequence[str]) -> Discrepancy:
    """The worst of what was tried, with what is not offered; raises NotOfferedError where nothing was."""
    if not found:
        raise NotOfferedError("; ".join(missing))
    worst = worst_of(found)
    return replace(worst, what="; ".join((worst.what, *missing)))


def _each(ways: Collection[str], tried: Callable[[str], list[Discrepancy]]) -> Discrepancy:
    """What is found of each way that is offered."""
    found: list[Discrepancy] = []
    missing = []
    for what in ways:
        try:
            with offered(what):
                found += tried(what)
        except NotOfferedError as error:
            missing.append(str(error))
    return _found(found, missing)


# State --------------------------------------------------------------------------------------------------


def _pickled(pair: Any) -> Any:
    return pickle.loads(pickle.dumps(pair))


COPIES: dict[str, Callable[[Any], Any]] = {"a deep copy": deepcopy, "a pickle": _pickled}


@contract(
    "copies",
    "a deep copy and a pickle of an optimizer with its parameters go on as it does, bit for bit",
    "torch.optim.Optimizer.__getstate__ keeps defaults, state and groups, and nothing else",
)
def copies(stack: Stack, case: Case) -> Discrepancy:
    """None: the same operations on the same numbers."""
    one, whole = walk(stack, case), walk(stack, case).on()
    one.on(HALF)

    def tried(what: str) -> list[Discrepancy]:
        parameters, optimizer = COPIES[what]((one.parameters, one.optimizer))
        other = Walk(parameters, optimizer, one.gradients, HALF).on(STEPS - HALF)
        return [Discrepancy(differing(other, whole), 0, f"weights that differ in {what}")]

    return _each(COPIES, tried)


@contract(
    "loads",
    "a state that is loaded holds the numbers that were saved, and goes on alike in another dtype",
    "training goes on from its state, not from one like it; pytorch#43706",
    axes="sgd adam momentum three-steps float64 float32 bfloat16",
)
def loads(stack: Stack, case: Case) -> Discrepancy:
    """None: the same numbers, whatever dtype holds them. In another dtype the median number is allowed a dozen of the
    coarser one's roundings a step, that of the state among them, since rounding may turn a sign, which is a whole step.
    One whose state is quantised or whose steps draw is not asked to go on alike.
    """
    one = walk(stack, case)
    one.on(HALF)
    with offered("loading a state"):
        saved = deepcopy(one.optimizer.state_dict())
        if "state" not in saved:
            raise NotOfferedError("not offered: a state_dict with a state in it")
        same = _loaded(stack, one, saved, stack.dtype)
        pairs = list(_pairs(saved["state"], same.optimizer.state_dict().get("state")))
    lost = Discrepancy(
        finite(sum(_other(*pair) for pair in pairs), one.weights),
        0,
        f"of {len(pairs)} tensors of the state those lost",
    )
    return lost if _draws(stack, case) else worst_of([lost, _elsewhere(stack, case, one, saved)])


def _draws(stack: Stack, case: Case) -> bool:
    """Whether a step draws numbers of torch, which are others in another dtype."""
    one = walk(stack, case)
    seed_all(one.at)
    before = torch.get_rng_state()
    one.on(1)
    return not torch.equal(torch.get_rng_state(), before)


def _elsewhere(stack: Stack, case: Case, one: Walk, saved: dict[str, Any]) -> Discrepancy:
    """How the walk goes on in another dtype; nothing where it is refused there."""
    dtype = torch.float32 if stack.dtype == torch.float64 else torch.float64
    what, expected = f"median |W in {str(dtype).removeprefix('torch.')} - W|", one
    try:
        with offered("another dtype"):
            other = _loaded(stack, one, saved, dtype).on(STEPS - HALF)
    except NotOfferedError:
        return Discrepancy(finite(0, one.weights), 0, what)
    middle = (other - expected.on(STEPS - HALF)).abs().median()
    held = {tensor.dtype for tensor, _ in _pairs(saved["state"], {}) if tensor.numel() > 1}
    if not all(one.is_floating_point for one in held):  # quantised
        return Discrepancy(finite(0, one.weights), 0, what)
    unbroken = [walk(replace(stack, dtype=each), case).on() for each in (stack.dtype, dtype)]
    own = float(
        (unbroken[0] - unbroken[1]).abs().median()
    )  # of one that computes in less, whatever it is given
    found = beside(stack, middle, torch.zeros_like(middle), what, coarse(stack.dtype, dtype, *held))
    return replace(found, tolerance=found.tolerance + 4 * own)


def _loaded(stack: Stack, one: Walk, saved: dict[str, Any], dtype: torch.dtype) -> Walk:
    """A fresh walk from the weights of one, in a dtype, with the state."""
    parameters = [nn.Parameter(p.detach().to(dtype, copy=True)) for p in one.parameters]
    fresh = made(stack, parameters)
    fresh.load_state_dict(deepcopy(saved))
    gradients = [[g.to(dtype) for g in given] for given in one.gradients]
    return Walk(parameters, fresh, gradients, one.at)


def _pairs(saved: Any, loaded: Any) -> Iterator[tuple[Tensor, Any]]:
    """Tensors in the same places of both, None for one that is not there."""
    if isinstance(saved, Mapping):
        for key, value in saved.items():
            yield from _pairs(value, loaded.get(key) if isinstance(loaded, Mapping) else None)
    elif isinstance(saved, Tensor):
        yield saved, loaded


def _other(saved: Tensor, loaded: Any) -> bool:
    """Whether a tensor holds other numbers; one number may be there by itself."""
    there = torch.as_tensor(loaded) if isinstance(loaded, Tensor | float | int) else None
    return there is None or there.shape != saved.shape or not torch.equal(there.double(), saved.double())


# Groups and shapes --------------------------------------------------------------------------------------


@contract(
    "group-added",
    "parameters that are added after some steps move, and the others go on as if nothing had been added",
    "torch.optim.Optimizer.add_param_group; X2Paddle#613",
)
def group_added(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step, of code for several parameters at once. Others that go elsewhere beside a parameter
    that is there from the start are not asked, nor is an added one that does not move by itself.
    """
    grown, late = walk(stack, case, (0,)), walk(stack, case, (1,))
    grown.on(HALF)
    with offered("a group that is added"):
        grown.optimizer.add_param_group({"params": late.parameters})
        own = walk(stack, case)
        both = Walk([*grown.parameters, *late.parameters], grown.optimizer, own.gradients, HALF)
        both.on(STEPS - HALF)
    company = walk(stack, case, (1,))
    company.on(HALF)
    if company.moved and 1 not in both.moved:
        return Discrepancy(1, 0, "added parameters that stand still")
    return _undisturbed(stack, case, grown.parameters, own, "|W - W where nothing is added|")


def _undisturbed(
    stack: Stack, case: Case, parameters: Sequence[Tensor], company: Walk, what: str
) -> Discrepancy:
    """The first parameter beside itself alone, if it goes the same way in company, where that is loud too.

    Signs of clipped gradients, as Lion's, hear of the others only where these change from step to step.
    """
    alone, measured = walk(stack, case, (0,)).on(), flat(parameters[:1])
    louder = walk(stack, case)
    louder.gradients = [
        [g, *(LOUDER ** (k % 2) * h for h in rest)] for k, (g, *rest) in enumerate(louder.gradients)
    ]
    for one in (company, louder):
        one.on()
    if all(beside(stack, flat(one.parameters[:1]), alone, what).holds for one in (company, louder)):
        return beside(stack, measured, alone, what)
    return Discrepancy(finite(0, measured), 0, "weights that are no numbers")


LOUDER = 1000.0  # times, at every second step
ODD = {"an empty parameter": EMPTY, "a parameter without dimensions": SCALAR}


@contract(
    "odd-shapes",
    "an empty parameter and one without dimensions are stepped over and stepped, and disturb no other",
    "a step is the same function of each entry; pytorch/test/test_optim.py: shapes of foreach tests",
    needs="for any shape",
)
def odd_shapes(stack: Stack, case: Case) -> Discrepancy:
    """A dozen roundings a step. What goes elsewhere beside any other parameter is not asked, nor whether one moves
    without dimensions where one of a single entry does not.
    """
    what, single = "|W - W where it is not there|", walk(stack, case, (SINGLE,))
    single.on()

    def tried(name: str) -> list[Discrepancy]:
        one = walk(stack, case, (0, ODD[name]))
        kinds = [(p.shape, p.dtype) for p in one.parameters]
        one.on()
        still = ODD[name] == SCALAR and bool(single.moved) and 1 not in one.moved
        wrong = still or kinds != [(p.shape, p.dtype) for p in one.parameters]
        return [
            _undisturbed(stack, case, one.parameters, walk(stack, case), f"{name}: {what}"),
            Discrepancy(finite(wrong, one.weights), 0, f"{name}: that it stands still, or changes in kind"),
        ]

    return _each(ODD, tried)

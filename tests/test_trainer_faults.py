"""Faults of trainers: each changes what it says and nothing else, and clean loops written otherwise change nothing."""

import pickle
import re
from dataclasses import replace
from functools import cache

import pytest
import torch

from identity_props.faults.base import DEEPCRIME
from identity_props.faults.trainers import TRAINER_FAULTS, TRAINER_TWINS
from identity_props.stack.ranks import on_ranks
from identity_props.trainers.plain import Plain, trained
from tests.test_plain import asked, halved, overflowing, resumed, tokens

pytestmark = pytest.mark.thorough

HELD = torch.randn(5, 6, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
CASES = {
    "batches": asked(n=9),
    "dropped": asked(n=9, drop_last=True, shuffle=True),
    "shuffled": asked(shuffle=True, seed=5, epochs=3),
    "windows": asked(n=10, accumulate=2, epochs=2),
    "short": asked(n=11, accumulate=2),
    "clipped": asked(n=12, accumulate=2, layers=2, clip=0.1),
    "clipped, scaled": halved("float16", clip=2.0**-6),
    "rate": asked(n=12, accumulate=2, schedule="linear"),
    "rate, layers": asked(n=12, layers=2, schedule="linear"),
    "momentum": asked(momentum=0.5),
    "momentum and rate": asked(momentum=0.5, schedule="linear"),
    "decay": asked(decay=0.1),
    "decay and momentum": asked(decay=0.1, momentum=0.5),
    "averaged": asked(n=12, accumulate=2, average=0.75),
    "averaged and evaluated": asked(average=0.75, held=HELD),
    "evaluated": asked(shuffle=True, held=HELD, seed=5),
    "bfloat16": replace(halved("bfloat16"), lr=2.0**-10),
    "bfloat16, windows": halved("bfloat16", accumulate=2),
    "float16": halved("float16"),
    "overflowing": overflowing(schedule="linear", average=0.5),
    "modes": asked(held=HELD, modes=True),
    "decay and rate": asked(decay=0.1, schedule="linear"),
    "frozen": asked(layers=2, frozen=(0,), decay=0.1),
    "tokens": tokens(accumulate=2),
    "tokens, packed": tokens(packing=5),
    # stopped after a step in mid-epoch, in an open window, and after an epoch
    "mid-epoch": asked(momentum=0.5, schedule="linear", average=0.75, shuffle=True, stop=2),
    "mid-window": asked(n=12, accumulate=3, stop=4),
    "epoch-end": asked(shuffle=True, epochs=3, stop=5),
    "second epoch": asked(shuffle=True, stop=7),
    "after overflow": overflowing(stop=2),
    # on two ranks
    "ranks": asked(n=11, ranks=2),
    "ranks, shuffled": asked(n=11, ranks=2, shuffle=True),
    "ranks, clipped": asked(n=12, ranks=2, clip=0.1),
    "ranks, rate": asked(n=12, ranks=2, schedule="linear"),
    "ranks, windows": asked(n=16, ranks=2, accumulate=2),
}
# of each fault: a case, and what is another there
CHANGES = {
    "losses-added": ("windows", "weights loss"),
    "window-leaks": ("windows", "weights loss steps"),
    "window-dropped": ("windows", "weights loss steps"),
    "zeroed-each": ("windows", "weights loss"),
    "never-zeroed": ("batches", "weights loss"),
    "half-unaccumulated": ("bfloat16, windows", "weights steps"),
    "clipped-each": ("clipped", "weights loss"),
    "clipped-while-scaled": ("clipped, scaled", "weights"),
    "clipped-by-layer": ("clipped", "weights loss"),
    "clipped-by-value": ("clipped", "weights loss"),
    "unclipped": ("clipped", "weights loss"),
    "clipped-by-rank": ("ranks, clipped", "weights loss"),
    "clipped-on-first-rank": ("ranks, clipped", "weights loss apart"),
    "rate-by-micro-batch": ("rate", "weights loss"),
    "rate-by-rank": ("ranks, rate", "weights loss"),
    "rate-by-epoch": ("rate", "weights loss"),
    "rate-early": ("rate", "weights loss"),
    "rate-short": ("rate", "weights loss"),
    "rate-of-last-group": ("rate, layers", "weights loss"),
    "rate-constant": ("rate", "weights loss"),
    "no-momentum": ("momentum", "weights loss"),
    "no-decay": ("decay", "weights loss"),
    "averaged-each": ("averaged", "averaged"),
    "averaged-from-zero": ("averaged", "averaged"),
    "averaged-before": ("averaged", "averaged"),
    "average-kept": ("averaged and evaluated", "weights averaged loss evaluated"),
    "no-master-weights": ("bfloat16", "weights"),
    "skipped-counted": ("overflowing", "weights averaged steps"),
    "scale-kept": ("float16", "weights"),
    "scale-divided-twice": ("float16", "weights"),
    "ranks-unreduced": ("ranks", "weights loss apart"),
    "ranks-summed": ("ranks", "weights loss"),
    "ranks-averaged": ("ranks", "weights loss"),
    "ranks-divided-twice": ("ranks", "weights loss"),
    "ranks-last-reduced": ("ranks, windows", "weights loss apart"),
    "frozen-decays": ("frozen", "weights loss"),
    "frozen-trained": ("frozen", "weights loss"),
    "last-dropped": ("batches", "weights loss steps"),
    "last-twice": ("batches", "weights loss steps"),
    "last-filled": ("batches", "weights loss"),
    "same-dropped": ("dropped", "weights loss"),
    "same-order": ("shuffled", "weights loss"),
    "never-shuffled": ("shuffled", "weights loss"),
    "seed-ignored": ("shuffled", "weights loss"),
    "unseeded": ("shuffled", "weights loss"),
    "with-replacement": ("shuffled", "weights loss"),
    "targets-shifted": ("batches", "weights loss"),
    "ranks-alike": ("ranks", "weights loss"),
    "ranks-same-order": ("ranks, shuffled", "weights loss"),
    "ranks-overlap": ("ranks, shuffled", "weights loss"),
    "step-more": ("batches", "weights loss steps"),
    "step-fewer": ("batches", "weights loss steps"),
    "epoch-fewer": ("batches", "weights loss steps"),
    "eval-mode-kept": ("modes", "weights loss evaluated"),
    "evaluated-in-training": ("modes", "evaluated"),
    "evaluation-draws": ("evaluated", "weights loss evaluated"),
    "evaluation-graded": ("evaluated", "weights loss evaluated"),
    "held-trained": ("evaluated", "weights loss evaluated steps"),
    "evaluated-by-batch": ("evaluated", "evaluated"),
    "told-by-batch": ("batches", "loss"),
    "told-last": ("batches", "loss"),
    "told-of-rank": ("ranks", "loss"),
    "told-summed": ("windows", "loss"),
    "told-since-start": ("batches", "loss"),
    "token-means": ("tokens", "weights"),
    "padding-counted": ("tokens", "weights"),
    "firsts-counted": ("tokens", "weights loss"),
    "packed-cut": ("tokens, packed", "weights steps"),
    "padding-trained": ("tokens", "weights loss"),
    "mask-ignored": ("tokens", "weights"),
    "labels-shifted": ("tokens", "weights"),
    "resume-loses-momentum": ("mid-epoch", "weights averaged loss"),
    "resume-loses-schedule": ("mid-epoch", "weights averaged loss"),
    "resume-loses-scale": ("after overflow", "weights steps"),
    "resume-loses-window": ("mid-window", "weights loss"),
    "resume-loses-average": ("mid-epoch", "averaged"),
    "resume-takes-average": ("mid-epoch", "weights averaged loss"),
    "resume-loses-order": ("epoch-end", "weights loss"),
    "resume-restarts-stream": ("second epoch", "weights loss"),
    "resume-replays": ("mid-epoch", "weights averaged loss steps"),
    "resume-skips-rest": ("mid-epoch", "weights averaged loss steps"),
    "resume-skips-epoch": ("epoch-end", "weights loss steps"),
}
# cases where a rule in use leaves something else than the first one does
RULES = {
    "means": {"short"},
    "fixed": {"windows"},
    "padded": {"ranks", "ranks, shuffled"},
    "carried": {"windows"},
    "keras": {"momentum and rate", "mid-epoch"},
    "decoupled": {"decay and momentum"},
    "independent": {"decay and rate"},
    "first": {"averaged", "averaged and evaluated", "overflowing", "mid-epoch"},
}
ALONE, SPREAD = (
    {name: change for name, change in CHANGES.items() if (CASES[change[0]].ranks > 1) == spread}
    for spread in (False, True)
)


def told(loop, case, folder):
    """What a loop leaves of a case, resumed where the case stops."""
    one = CASES[case]
    if one.stop is None:
        return trained(loop, one)
    return resumed(loop, one, folder)


def changed(found, clean, near=None):
    """Names of what differs by more than rounding."""
    near = near or (1e-12 if clean.weights[0].dtype == torch.float64 else 1e-6)

    def differs(one, other):
        if one is None or other is None:
            return one is not other
        pairs = zip(one, other, strict=True) if isinstance(one, list) else [map(torch.tensor, (one, other))]
        pairs = [(a.double(), b.double()) for a, b in pairs]
        return not all(torch.allclose(a, b, rtol=near, atol=near) for a, b in pairs)

    names = ("weights", "averaged", "loss", "evaluated", "steps")
    return {name for name in names if differs(getattr(found, name), getattr(clean, name))}


@cache
def clean_of(case):
    """What Plain leaves of a case, uninterrupted."""
    return trained(Plain, replace(CASES[case], stop=None))


def left_alone(loop, case, folder):
    """What a loop leaves of a case, and what Plain does."""
    return told(loop, case, folder), clean_of(case)


def test_each_fault_has_a_case_or_a_reason_why_nothing_can_see_it():
    unseen = {name for name, fault in TRAINER_FAULTS.items() if fault.equivalent}
    assert CHANGES.keys() == TRAINER_FAULTS.keys() - unseen
    assert len(CHANGES) >= 70


@pytest.mark.parametrize("fault", TRAINER_FAULTS.values(), ids=TRAINER_FAULTS)
def test_each_says_what_it_does_wrong_and_where_that_was_seen(fault):
    assert fault.what.endswith(".")
    assert fault.what != Plain.__doc__
    assert fault.source == DEEPCRIME or all(
        re.fullmatch(r"[\w.-]+#\d+", one) for one in fault.source.split(", ")
    )


@pytest.mark.parametrize("name", ALONE)
def test_a_fault_changes_what_it_says_and_nothing_else(name, tmp_path):
    case, what = CHANGES[name]
    assert changed(*left_alone(TRAINER_FAULTS[name].loop, case, tmp_path)) == set(what.split())


@pytest.mark.parametrize("case", [case for case, one in CASES.items() if one.ranks == 1])
def test_what_nothing_can_see_leaves_the_same_weights(case, tmp_path):
    for name in TRAINER_FAULTS.keys() - CHANGES.keys():
        assert not changed(*left_alone(TRAINER_FAULTS[name].loop, case, tmp_path))


@pytest.mark.processes
@pytest.mark.parametrize("name", SPREAD)
def test_a_fault_of_ranks_changes_what_it_says_and_nothing_else(name):
    case, what = CHANGES[name]
    first, second = on_ranks(2, trained, TRAINER_FAULTS[name].loop, CASES[case])
    clean, _ = on_ranks(2, trained, Plain, CASES[case])
    apart = {"apart"} if changed(replace(second, loss=first.loss), first) else set()
    assert changed(first, clean) | apart == set(what.split())


def near(name):
    # torch adds 1e-6 to the norm, here of 0.1; float32 rounds
    return {"clipped-exactly": 2e-5, "float32": 1e-5}.get(name)


def meant(name, case):
    """Whether a clean loop is to leave what Plain leaves."""
    shuffles_otherwise = name == "one-stream" and CASES[case].shuffle
    overflows_not = name == "small-scale" and "overflow" in case
    others = {other for rule in TRAINER_TWINS[name].rules for other in RULES[rule]}
    return not shuffles_otherwise and not overflows_not and case not in others


@pytest.mark.parametrize("name", TRAINER_TWINS)
def test_a_clean_loop_leaves_what_plain_leaves_but_where_its_rule_is_another(name, tmp_path):
    for case, one in CASES.items():
        if one.ranks == 1:
            found, clean = left_alone(TRAINER_TWINS[name].loop, case, tmp_path)
            assert (not changed(found, clean, near(name))) == meant(name, case), case


@pytest.mark.processes
@pytest.mark.parametrize("name", TRAINER_TWINS)
def test_a_clean_loop_leaves_what_plain_leaves_on_two_ranks(name):
    for case in [case for case, one in CASES.items() if one.ranks > 1 and meant(name, case)]:
        clean, _ = on_ranks(2, trained, Plain, CASES[case])
        for found in on_ranks(2, trained, TRAINER_TWINS[name].loop, CASES[case]):
            assert not changed(found, clean, near(name)), case


def test_one_stream_shuffles_each_epoch_anew():
    loop = TRAINER_TWINS["one-stream"].loop(CASES["shuffled"])
    orders = [loop.order(epoch) for epoch in range(3)]
    assert all(sorted(order) == [*range(10)] for order in orders)
    assert len(set(map(tuple, orders))) == 3


def test_unseeded_orders_are_other_ones_each_time():
    loops = [TRAINER_FAULTS["unseeded"].loop(CASES["shuffled"]) for _ in range(2)]
    assert loops[0].order(0) != loops[1].order(0)


def test_faults_and_clean_loops_can_be_sent_to_another_process():
    for one in (*TRAINER_FAULTS.values(), *TRAINER_TWINS.values()):
        assert pickle.loads(pickle.dumps(one.fit)).args == (one.loop,)

"""The audit of trainers: laws name every fault, and accuse no clean loop, whatever the seed."""

import pytest
import torch

from identity_props.faults.audit import CLEAN, SEEN, audit
from identity_props.faults.trainer_audit import accusing
from identity_props.faults.trainers import TRAINER_FAULTS, TRAINER_TWINS
from identity_props.trainers import TRAINER_LAWS, Bench

pytestmark = pytest.mark.thorough

# of each fault: the law whose statement it breaks; others may see it too
NAMED = {
    "losses-added": "accumulation",
    "window-leaks": "window",
    "window-dropped": "window",
    "zeroed-each": "accumulation",
    "never-zeroed": "trajectory",
    "clipped-each": "clip",
    "clipped-while-scaled": "float16-clip",
    "clipped-by-layer": "clip",
    "clipped-by-value": "clip",
    "unclipped": "clip",
    "clipped-by-rank": "ranks-clip",
    "clipped-on-first-rank": "ranks-clip",
    "rate-by-micro-batch": "schedule",
    "rate-by-rank": "ranks-schedule",
    "rate-by-epoch": "schedule",
    "rate-early": "schedule",
    "rate-short": "schedule",
    "rate-constant": "schedule",
    "rate-of-last-group": "schedule",
    "half-unaccumulated": "bfloat16",
    "ranks-averaged": "ranks",
    "no-momentum": "velocity",
    "no-decay": "decay",
    "averaged-each": "average",
    "averaged-from-zero": "average",
    "averaged-before": "average",
    "average-kept": "evaluation",
    "no-master-weights": "bfloat16",
    "skipped-counted": "overflow",
    "scale-kept": "float16",
    "scale-divided-twice": "float16",
    "ranks-unreduced": "ranks",
    "ranks-summed": "ranks",
    "ranks-divided-twice": "ranks",
    "ranks-last-reduced": "ranks-accumulated",
    "frozen-decays": "frozen",
    "frozen-trained": "frozen",
    "last-dropped": "last-batch",
    "last-twice": "steps",
    "last-filled": "last-batch",
    "same-dropped": "drop-last",
    "same-order": "order",
    "never-shuffled": "order",
    "seed-ignored": "order",
    "unseeded": "repeat",
    "with-replacement": "every-example",
    "targets-shifted": "trajectory",
    "ranks-alike": "ranks",
    "ranks-same-order": "ranks-order",
    "ranks-overlap": "ranks-shuffled",
    "step-more": "steps",
    "step-fewer": "steps",
    "epoch-fewer": "steps",
    "eval-mode-kept": "modes",
    "evaluated-in-training": "modes",
    "evaluation-draws": "evaluation",
    "evaluation-graded": "evaluation",
    "held-trained": "evaluation",
    "evaluated-by-batch": "evaluation-loss",
    "told-by-batch": "training-loss",
    "told-last": "training-loss",
    "told-of-rank": "ranks-loss",
    "told-summed": "accumulated-loss",
    "told-since-start": "training-loss",
    "token-means": "tokens-accumulated",
    "firsts-counted": "tokens",
    "packed-cut": "tokens-packed",
    "padding-counted": "tokens",
    "padding-trained": "tokens",
    "mask-ignored": "tokens",
    "labels-shifted": "tokens",
    "resume-loses-momentum": "resume-inside",
    "resume-loses-schedule": "resume-inside",
    "resume-loses-scale": "resume-scale",
    "resume-loses-window": "resume-window",
    "resume-loses-average": "resume-inside",
    "resume-takes-average": "resume-inside",
    "resume-loses-order": "resume-epoch",
    "resume-restarts-stream": "resume-inside",
    "resume-replays": "resume-inside",
    "resume-skips-rest": "resume-inside",
    "resume-skips-epoch": "resume-epoch",
}
OF_RANKS = {name for name, law in NAMED.items() if law.startswith("ranks")}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_every_fault_is_named_or_has_a_reason_why_nothing_can_see_it():
    unseen = {name for name, fault in TRAINER_FAULTS.items() if fault.equivalent}
    assert NAMED.keys() | unseen == TRAINER_FAULTS.keys()


def test_every_law_has_a_fault_that_breaks_it():
    broken = {law for name in TRAINER_FAULTS for law in KILLED.get(name, (NAMED.get(name),))}
    assert TRAINER_LAWS.keys() <= broken


# laws that are no fault's own, and the one that breaks them
KILLED = {
    "last-filled": ("last-batch", "unequal", "training-loss"),
    "no-momentum": ("velocity", "momentum-rate"),
    "no-decay": ("decay", "decay-rate"),
    "padding-counted": ("tokens", "tokens-steps"),
    "last-dropped": ("last-batch", "ranks-uneven"),
}


@pytest.mark.parametrize("name", [name for name in NAMED if name not in OF_RANKS])
def test_a_law_names_a_fault(name):
    law = TRAINER_LAWS[NAMED[name]]
    assert not law.right(law.measure(Bench(TRAINER_FAULTS[name].fit)))
    assert law.right(law.measure(Bench(TRAINER_TWINS["plain"].fit)))


@pytest.mark.audit
@pytest.mark.parametrize("name", TRAINER_TWINS)
def test_laws_accuse_no_clean_loop_of_what_is_not_its_rule(name):
    assert accusing(TRAINER_TWINS[name], ranks=1) == ()


@pytest.mark.parametrize("name", [name for name, twin in TRAINER_TWINS.items() if twin.rules])
def test_a_rule_that_is_accepted_is_kept(name):
    twin = TRAINER_TWINS[name]
    laws = [law for law in TRAINER_LAWS.values() if {*law.named} & {*twin.rules} and "ranks" not in law.needs]
    assert all(law.right(law.measure(Bench(twin.fit)), twin.rules) for law in laws)


@pytest.mark.audit
def test_laws_accuse_the_plain_loop_of_nothing_in_200_seeds():
    assert [seed for seed in range(200) if accusing(TRAINER_TWINS["plain"], ranks=1, seed=seed)] == []


@pytest.mark.processes
def test_the_audit_sees_every_fault_and_accuses_no_clean_loop():
    findings = {one.name: one for one in audit([*TRAINER_FAULTS.values()], jobs=2)}
    assert findings.keys() == TRAINER_FAULTS.keys() | TRAINER_TWINS.keys()
    assert {name: one.verdict for name, one in findings.items() if not one.right} == {}
    assert {one.verdict for one in findings.values()} == {SEEN, CLEAN}
    for name, law in NAMED.items():
        assert {law, *KILLED.get(name, ())} <= {*findings[name].laws}

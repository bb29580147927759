"""The audit: faults are seen by a law, their clean twins are not, and what it says is what was seen."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from identity_props.claims.registry import CLAIMS
from identity_props.cli import commands
from identity_props.engine.trial import Run
from identity_props.errors import InputError
from identity_props.faults import ALL_FAULTS, FAULTS, LAYER_TWINS, TRAINER_TWINS, TWINS, audit
from identity_props.faults.audit import Alarms, Finding, examine, matching
from identity_props.faults.findings import breaking
from identity_props.faults.findings import findings as recorded
from identity_props.laws import LAWS
from identity_props.layers import LAYER_LAWS
from identity_props.report import audit as audit_report
from identity_props.stack.stack import PARTS
from identity_props.trainers import TRAINER_LAWS

pytestmark = pytest.mark.thorough

SAMPLE = ("mask-cached", "gradient-zero", "mean-of-means", "last-batch-twice", "rate-0.9-rmsprop")


def test_there_are_45_faults_or_more_each_with_a_source():
    assert len([fault for fault in FAULTS.values() if not fault.equivalent]) >= 45
    assert all(re.search(r"#\d+|20\d\d", fault.source) for fault in FAULTS.values())


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_says_what_it_does_and_differs_from_its_clean_twin_in_one_part(fault):
    assert fault.what.endswith(".")
    differing = [part for part in PARTS if getattr(fault.stack, part) is not getattr(fault.twin.stack, part)]
    assert differing == list(fault.parts)
    assert len(differing) == 1


@pytest.fixture
def of_laws(one_family, monkeypatch):
    """What sees a fault or twin, of the laws and of the claims that are named."""

    def seen(one, *claims):
        monkeypatch.setattr(audit, "CLAIMS_OF", dict.fromkeys(audit.CLAIMS_OF, claims))
        return examine(one.stack, getattr(one, "twin", one))

    return seen


@pytest.mark.parametrize("name", SAMPLE)
def test_a_law_sees_a_fault_of_each_kind(name, of_laws):
    assert of_laws(FAULTS[name]).laws


@pytest.mark.parametrize("name", sorted({FAULTS[name].twin.name for name in SAMPLE[::2]}))
def test_no_law_sees_a_clean_twin(name, of_laws):
    assert not of_laws(TWINS[name]).laws


def test_claims_and_gate_see_a_fault_and_not_its_clean_twin(of_laws):
    fault = FAULTS["unscaled-twice"]
    clean, found = (of_laws(one, "scaled-whiten") for one in (fault.twin, fault))
    assert clean.claims == ()
    finding = audit._finding(fault, found, clean.record)
    assert finding.claims == ("scaled-whiten",)
    assert [row.split(" x ")[0] for row in finding.gate] == [
        "scaled-whiten/rate slower",
        "scaled-whiten/end worse",
    ]


@pytest.mark.audit
def test_every_fault_is_seen_by_a_law_and_no_clean_twin_by_anything():
    findings = list(audit.audit(matching("*"), jobs=2))
    assert len(findings) == len(ALL_FAULTS) + len(TWINS) + len(TRAINER_TWINS) + len(LAYER_TWINS)
    assert [str(one) for one in findings if not one.right] == []
    assert {one.name: [*one.laws] for one in findings if one.kind == "fault"} == {
        name: one["laws"] for name, one in recorded().items()
    }


def test_what_was_recorded_of_the_audit_is_of_these_faults_and_laws():
    assert recorded().keys() == {*ALL_FAULTS}
    others = {"trains", "moves", "like-optimizer", "like-linear", "like-step"}
    named = {law for one in recorded().values() for law in one["laws"]}
    assert named <= LAWS.keys() | TRAINER_LAWS.keys() | LAYER_LAWS.keys() | others
    assert "rate-0.9-sgd" in breaking("gd-trajectory")


def finding(kind="fault", laws=(), claims=(), gate=(), equivalent="", name="rate-0.9-sgd"):
    return Finding(name, kind, "Does it wrong.", "torch#1", laws, claims, gate, equivalent)


@pytest.mark.parametrize(
    ("one", "verdict", "right"),
    [
        (finding(laws=("a",)), "seen", True),
        (finding(claims=("a",)), "seen broadly", False),
        (finding(gate=("a/rate slower x 2",)), "seen broadly", False),
        (finding(), "missed", False),
        (finding(equivalent="why"), "unseen", True),
        (finding(equivalent="why", laws=("a",)), "false alarm", False),
        (finding("twin"), "clean", True),
        (finding("twin", gate=("a/rate slower x 2",)), "false alarm", False),
    ],
)
def test_a_verdict_follows_from_what_saw_it(one, verdict, right):
    assert (one.verdict, one.right) == (verdict, right)


def test_the_bound_on_false_alarms_is_clopper_and_pearsons():
    assert Alarms("laws", 0, 200).bound == pytest.approx(1 - 0.05 ** (1 / 200))
    assert Alarms("laws", 3, 3).bound == 1
    assert not audit_report.passed([], [Alarms("laws", 1, 200)])


def test_false_alarms_of_laws_are_counted_by_seed_and_named(monkeypatch):
    found = [((audit.LAWS_OF_CHECK, seed), ["freeze", "layout"] if seed == 1 else []) for seed in (2, 0, 1)]
    monkeypatch.setattr(audit, "_spread", lambda *_: iter(found))
    (alarms,) = audit.false_alarms(3, jobs=1)
    assert (alarms.alarms, alarms.tried, alarms.note) == (1, 3, "freeze, layout at seed 1")


def test_findings_come_as_soon_as_their_clean_twin_is_known(monkeypatch):
    empty = audit.Examined((), (), {})
    order = [("fault", "mask-cached"), ("twin", "sgd"), ("fault", "decay-after")]
    monkeypatch.setattr(audit, "_spread", lambda *_: ((task, empty) for task in order))
    names = [one.name for one in audit.audit(matching("mask-cached,decay-after"), jobs=1)]
    assert names == ["sgd", "mask-cached", "decay-after"]


def test_a_clean_twin_is_compared_with_torch_s_own_parts_of_other_seeds(monkeypatch):
    monkeypatch.setattr(audit, "CLAIMS_OF", dict.fromkeys(audit.CLAIMS_OF, ("scaled-whiten",)))
    monkeypatch.setattr(audit, "check_laws", lambda *arguments: iter(()))
    audit._own.cache_clear()
    found = audit._examined(("twin", "loss"))
    audit._own.cache_clear()
    assert found.own.keys() == found.record.keys() == {"scaled-whiten"}
    assert found.own != found.record
    assert audit._finding(TWINS["loss"], found, found.own).verdict == "clean"


def test_a_claim_is_judged_by_chunks_of_the_seeds_asked_for(monkeypatch):
    monkeypatch.setattr(audit, "CHUNK", 4)
    found = audit._of_claim("scaled-whiten", 8)
    assert (found.name, found.alarms, found.tried, found.note) == ("scaled-whiten", 0, 2, "8 of 8 seeds")


def test_a_run_of_some_of_its_replicas_holds_theirs():

    run = Run(
        (5, 6, 7), (0, 1), torch.arange(6.0).reshape(3, 2), torch.arange(3.0), {"w": torch.ones(3)}, 1.0
    )
    some = run.of([2, 0])
    assert (some.seeds, some.fvu.tolist(), some.fvu_pixels.tolist()) == ((7, 5), [[4, 5], [0, 1]], [2, 0])
    assert some.state == {}


def test_patterns_pick_faults_and_one_that_matches_none_is_refused():
    assert [fault.name for fault in matching("ranks-apart, init-one-*, init-[pz]*")] == [
        "init-one-state",
        "init-positive",
        "init-zero",
        "ranks-apart",
    ]
    with pytest.raises(InputError, match="'nothing' matches none of transposed-frozen"):
        matching("nothing")


def called(monkeypatch, findings, *arguments):
    monkeypatch.setattr(audit, "audit", lambda *_: iter(findings))
    return CliRunner().invoke(commands, ["audit", *arguments], standalone_mode=False)


def test_the_command_shows_what_saw_what_and_fails_where_a_fault_is_missed(monkeypatch):
    seen = finding(laws=("like-optimizer", "gd-trajectory"), gate=("linear-1/rate slower x 1.1",))
    done = called(monkeypatch, [seen, finding("twin", name="sgd")])
    assert done.return_value == 0, done.exception
    assert re.search(r"rate-0.9-sgd +seen +gd-trajectory \+1 +1 slower", done.output)
    assert "sgd (clean)" in done.output
    assert "1 seen, 1 clean" in done.output
    assert called(monkeypatch, [finding()]).return_value == 1


def test_the_command_prints_json_on_request(monkeypatch):
    done = called(monkeypatch, [finding(claims=("linear-1",))], "--json")
    document = json.loads(done.stdout)
    assert (document["schema"], document["passed"]) == ("identity-props/audit/1", False)
    (row,) = document["findings"]
    assert (row["name"], row["claims"], row["verdict"]) == ("rate-0.9-sgd", ["linear-1"], "seen broadly")


def test_the_claims_of_an_audit_train_with_the_optimizer_they_stand_for():
    from identity_props.task.data import digits

    for optimizer, names in audit.CLAIMS_OF.items():
        used = {trial.recipe.optimizer for name in names for trial in CLAIMS[name].plan(digits(7, 512, 512))}
        assert optimizer is None or used == {optimizer}


def test_faults_are_listed_with_source_and_twin():
    out = CliRunner().invoke(commands, ["faults"], standalone_mode=False).output
    assert (
        "mask-cached: Only what had a gradient at the first step ever moves.\n  source  pytorch#139476" in out
    )
    assert all(f"{name}: " in out for name in ALL_FAULTS)

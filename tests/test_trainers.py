"""The laws of trainers: the plain loop keeps them all, each can fail, conventions are named, users are not accused."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from identity_props.conformance.rows import DESIGN, FAIL, NOT_APPLICABLE, PASS
from identity_props.conformance.training import TRAINS, check_trainer, row_of
from identity_props.errors import InputError
from identity_props.faults.trainer_data import OneStream, Unshuffled
from identity_props.faults.trainers import TRAINER_FAULTS
from identity_props.trainers import TRAINER_LAWS, Bench
from identity_props.trainers.bench import in_dtype
from identity_props.trainers.plain import Plain, trained
from identity_props.trainers.protocol import NotOffered
from identity_props.trainers.running import Trainer
from tests import user_trainers
from tests.bending import (
    BROKEN,
    CONVENTIONS,
    AsDiffusers,
    AsTensorFlow,
    AtWindowsEnds,
    ByPower,
    Decays,
    Draws,
    Drops,
    DropsLast,
    FirstTwice,
    ForgetsAverage,
    InEvaluation,
    LastLoss,
    Late,
    LosesVelocity,
    MicroBatchesEnds,
    OneSeed,
    OverSize,
    Replays,
    SameOrder,
    StaysInEvaluation,
    Summed,
    TokenMeans,
    differ,
    exits,
    flat,
    given_back,
    misfit,
    not_finite,
    raises,
    ranks_differ,
    refuses,
    together,
    trained_as_one,
    unscheduled,
)
from tests.test_trainer_audit import NAMED

RANKS = [name for name in TRAINER_LAWS if name.startswith("ranks")]
TOKENS = [name for name in TRAINER_LAWS if name.startswith("tokens")]
ALONE = [name for name in TRAINER_LAWS if name not in RANKS]


as_one = partial(trained_as_one, Plain)


def row(name, fit, accept=(), designs=None, seed=0):
    bench = Bench(fit, spread=partial(together, fit), seed=seed, ranks=2)
    return row_of(TRAINER_LAWS[name], bench, accept, designs)


def verdicts(fit, seed=0, **options):
    return {one.name: one.verdict for one in check_trainer(Bench(fit, seed=seed), **options)}


# The plain loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_plain_loop_keeps_every_law(seed):
    found = verdicts(partial(trained, Plain), seed)
    assert found == {TRAINS: PASS, **dict.fromkeys(ALONE, PASS), **dict.fromkeys(RANKS, NOT_APPLICABLE)}


@pytest.mark.parametrize("name", RANKS)
def test_ranks_that_are_one_keep_the_laws_of_ranks(name):
    assert row(name, as_one).verdict == PASS


@pytest.mark.audit
@pytest.mark.parametrize("first", range(100, 300, 25))
def test_it_does_so_with_two_hundred_seeds(first):
    for seed in range(first, first + 25):
        assert FAIL not in verdicts(partial(trained, Plain), seed).values(), seed


# Every law can fail -----------------------------------------------------------------------------------


def test_there_is_a_control_for_every_law():
    assert TRAINER_LAWS.keys() == BROKEN.keys() | {*NAMED.values()}


@pytest.mark.parametrize("name", BROKEN)
def test_every_law_can_fail(name):
    broken = BROKEN[name]
    found = row(name, partial(trained, broken) if isinstance(broken, type) else broken)
    assert found.verdict == FAIL, str(found)
    assert found.kind == TRAINER_LAWS[name].kind


@pytest.mark.parametrize(
    ("name", "broken", "words"),
    [
        ("last-batch", DropsLast, "dropped: its examples are not trained on; examples 0-7 weigh 1,"),
        ("accumulation", Summed, "summed: the sum of the micro-batches' means"),
        (
            "window",
            Drops,
            "dropped: its examples are read and not trained on; examples 0-7 weigh 1, 8-11 are never",
        ),
        ("every-example", FirstTwice, "examples 0 weigh 2, 1 are never trained on, 2-11 weigh 1"),
        ("schedule", Late, "late: a step behind"),
        ("schedule", AtWindowsEnds, "window-end: read at the last micro-batch of a window"),
        ("schedule", MicroBatchesEnds, "micro-batches-end: counted in micro-batches, and read at the last"),
        ("decay-rate", Decays, "twice: the decay falls too, beside the rate"),
        ("modes", StaysInEvaluation, "kept: after an evaluation it trains in evaluation mode"),
        ("modes", InEvaluation, "evaluation: it trains in evaluation mode"),
        ("training-loss", LastLoss, "last: the last batch's"),
        ("resume-epoch", LosesVelocity, "what is lost: the momentum"),
        ("resume-inside", Replays, "examples are read again, or passed over"),
        ("order", SameOrder, "each epoch has the same order"),
        ("order", OneSeed, "each seed has the same orders"),
        ("tokens-accumulated", TokenMeans, "means: a mean of the micro-batches' means: tokens of short ones"),
    ],
)
def test_what_is_wrong_is_said(name, broken, words):
    assert words in row(name, partial(trained, broken)).note


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SameOrder, "each epoch has the same order"),
        (OneSeed, "each seed has the same orders"),
        (Unshuffled, "nothing is shuffled"),
    ],
)
def test_an_order_is_judged_without_a_schedule_too(broken, words):
    found = row("order", partial(unscheduled, broken))
    assert (found.verdict, found.kind) == (FAIL, "wrong order")
    assert found.note.startswith(words)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_order_that_is_right_is_not_accused_where_there_is_no_schedule(dtype, seed):
    found = row("order", lambda asked: unscheduled(OneStream, in_dtype(asked, dtype)), seed=seed)
    assert (found.verdict, found.note) == (PASS, "examples: examples are shuffled")


def test_an_order_that_is_another_one_each_time_is_not_judged():
    found = row("order", partial(unscheduled, Draws))
    assert (found.verdict, found.note.partition(":")[0]) == (NOT_APPLICABLE, "its order cannot be read")


def test_a_loss_is_judged_along_the_way_of_a_last_batch_divided_by_the_size_asked_for():
    assert row("training-loss", partial(trained, OverSize)).verdict == PASS


def test_what_changes_training_otherwise_is_no_wrong_mode():
    found = row("modes", partial(trained, TRAINER_FAULTS["evaluation-graded"].loop))
    assert found.verdict == NOT_APPLICABLE


def test_an_average_that_is_lost_on_resume_is_seen():
    assert row("resume-epoch", partial(trained, ForgetsAverage)).verdict == FAIL


def test_ranks_that_differ_in_a_bit_are_said_to():
    bench = Bench(differ, spread=partial(ranks_differ, differ), ranks=2)
    found = row_of(TRAINER_LAWS["ranks"], bench)
    assert (found.verdict, found.note) == (FAIL, "weights that are not the same bit for bit on all ranks")


# Conventions ------------------------------------------------------------------------------------------


def test_there_is_a_trainer_here_for_every_convention():
    rules = [(law.name, rule) for law in TRAINER_LAWS.values() for rule in [*law.rules][1:]]
    assert sorted(rules) == sorted((name, rule) for name, rule, _ in CONVENTIONS)


@pytest.mark.parametrize("trainer", [AsTensorFlow, AsDiffusers, ByPower])
def test_an_average_may_rise_as_libraries_have_it(trainer):
    found = row("average", partial(trained, trainer))
    assert (found.verdict, found.kind) == (DESIGN, "ramped")


@pytest.mark.parametrize(("name", "rule", "trainer"), CONVENTIONS)
def test_a_convention_is_named_passes_where_it_is_accepted_and_fails_where_another_is(name, rule, trainer):
    fit = partial(trained, trainer) if isinstance(trainer, type) else trainer
    found = row(name, fit)
    assert (found.verdict, found.kind) == (DESIGN, rule)
    assert TRAINER_LAWS[name].rules[rule] in found.note
    assert row(name, fit, accept=[rule]).verdict == PASS
    right, *others = TRAINER_LAWS[name].rules
    for other in (right, *others):
        assert row(name, fit, accept=[other]).verdict == (PASS if other == rule else FAIL)


def test_what_is_accepted_is_held_against_no_law_that_is_kept():
    accept = list(dict.fromkeys(rule for law in TRAINER_LAWS.values() for rule in law.named))
    bench = Bench(partial(trained, Plain))
    for law in (law for law in TRAINER_LAWS.values() if law.named):
        for rules in (accept, ["means"], ["fixed"], ["dropped"]):  # names that several laws use
            assert row_of(law, bench, rules).verdict in (PASS, NOT_APPLICABLE), (law.name, rules)


def test_a_slip_that_is_documented_is_by_design_with_its_address_and_may_be_accepted():
    fit, designs = partial(trained, Drops), {"window": ("dropped", "manual, section 3")}
    found = row("window", fit, designs=designs)
    assert (found.verdict, found.kind) == (DESIGN, "dropped")
    assert found.note.endswith("documented in manual, section 3")
    assert row("window", fit, accept=["dropped"]).verdict == PASS


def test_arguments_that_a_trainer_does_not_take_are_bad_input():
    with pytest.raises(InputError, match=r"expected arguments of .*got nme"):
        Trainer("tests.test_trainers:named", {"nme": 1}).fit()
    assert Trainer("tests.test_trainers:named", {"name": 1}).fit()


def named(asked, name=0):
    """Takes one argument of its own."""


def test_what_is_accepted_has_to_be_a_rule():
    with pytest.raises(InputError, match="accept: expected mean, fixed, dropped"):
        [*check_trainer(Bench(user_trainers.minimal), accept=["nothing"])]


# Users' trainers --------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("fit", user_trainers.CLEAN, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_correct_trainers_of_any_style_are_not_accused(fit, seed):
    rows = [*check_trainer(Bench(fit, seed=seed))]
    assert [str(one) for one in rows if one.verdict == FAIL] == []
    assert {TRAINS, "every-example"} <= {one.name for one in rows if one.verdict == PASS}


@pytest.mark.parametrize("fit", user_trainers.LANGUAGE, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_trainer_that_takes_no_examples_is_judged_by_its_tokens(fit, seed):
    rows = {one.name: one for one in check_trainer(Bench(fit, seed=seed))}
    verdicts = {name: one.verdict for name, one in rows.items() if one.verdict != NOT_APPLICABLE}
    judged = [*TOKENS[:3], *TOKENS[3:] * (fit is user_trainers.language_packed)]
    in_order = fit is not user_trainers.language_shuffled
    assert verdicts == dict.fromkeys([TRAINS, *judged * in_order], PASS)
    assert (rows["window"].kind, rows["window"].note) == ("not offered", "examples")


@pytest.mark.parametrize(
    "name", ["token-means", "padding-counted", "firsts-counted", "packed-cut", "labels-shifted"]
)
def test_its_faults_in_tokens_are_seen(name):
    def fit(asked):
        if asked.tokens is None:
            raise NotOffered("examples")
        return TRAINER_FAULTS[name].fit(asked)

    failed = [one.name for one in check_trainer(Bench(fit)) if one.verdict == FAIL]
    assert failed
    assert {*failed} <= {*TOKENS}


def test_the_minimal_loop_passes_what_it_offers():
    found = verdicts(user_trainers.minimal)
    assert [name for name, verdict in found.items() if verdict == PASS] == [
        *(TRAINS, "trajectory", "every-example", "last-batch", "frozen", "repeat"),
    ]
    assert {*found.values()} == {PASS, NOT_APPLICABLE}


def test_its_options_are_not_offered_by_name():
    rows = {one.name: one for one in check_trainer(Bench(user_trainers.minimal))}
    assert (rows["clip"].kind, rows["clip"].note) == ("not offered", "clip")
    assert (rows["steps"].kind, rows["steps"].note) == ("not offered", "steps, which it does not report")
    assert (rows["resume-epoch"].kind, rows["resume-epoch"].note) == ("not offered", "stop")


def test_a_trainer_that_shuffles_unasked_is_judged_by_what_needs_no_order():
    rows = {one.name: one for one in check_trainer(Bench(user_trainers.always_shuffling))}
    assert rows["trajectory"].note == "it reads examples in an order of its own"
    assert rows["every-example"].verdict == PASS


def test_one_that_shuffles_though_it_is_asked_not_to_is_accused():
    def shuffles(asked):
        return user_trainers.shuffling(replace(asked, shuffle=asked.shuffle or True))

    assert row("trajectory", shuffles).verdict == FAIL


@pytest.mark.parametrize(
    ("fit", "dtype"),
    [
        (user_trainers.minimal, "float64"),
        (user_trainers.single, "float32"),
        (user_trainers.class_based, "float32"),
        (user_trainers.shuffling_in_float32, "float32"),
        (user_trainers.always_shuffling, "float64"),
    ],
)
def test_what_a_trainer_computes_in_is_found(fit, dtype):
    first, *_ = check_trainer(Bench(fit))
    assert first.note == f"it computes in {dtype}"


# Trainers that leave no weights -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fit", "kind", "note"),
    [
        (raises, "error", "RuntimeError: no such device"),
        (exits, "error", "SystemExit: 3"),
        (given_back, "flat", "it leaves the very weights that it was given"),
        (not_finite, "diverges", "its weights are not finite"),
        (flat, "leaves no weights", "weights: expected shapes [[12, 12]], got [[144]]"),
        (refuses, "leaves no weights", "anything"),
        (misfit, "leaves no weights", "leaves no file {out}"),
    ],
)
def test_a_trainer_that_does_not_train_is_one_row(fit, kind, note):
    (only,) = check_trainer(Bench(fit))
    assert (only.name, only.verdict, only.kind, only.note) == (TRAINS, FAIL, kind, note)


@pytest.mark.parametrize("more", [-1, 1])
def test_one_that_trains_less_or_more_than_asked_fails_where_that_shows(more):
    def fit(asked):
        return trained(Plain, replace(asked, epochs=max(1, asked.epochs + more)))

    found = verdicts(fit)
    for name in ("steps", "trajectory", "every-example"):
        assert found[name] == FAIL, name


def test_what_a_later_option_raises_is_the_row_of_its_law_alone():
    def fit(asked):
        if asked.clip is not None:
            raise KeyError("max_norm")
        return trained(Plain, asked)

    found = verdicts(fit)
    assert [name for name, verdict in found.items() if verdict == FAIL] == ["clip", "float16-clip"]


def test_nan_never_passes():
    def fit(asked):
        found = trained(Plain, asked)
        bad = (
            asked.epochs > 1
            or asked.accumulate > 1
            or asked.decay
            or asked.precision != "full"
            or asked.resume
        )
        weights = [one * (math.nan if bad or asked.tokens else 1) for one in found.weights]
        return replace(found, weights=weights, loss=math.nan, evaluated=math.nan)

    found = verdicts(fit)
    assert {name for name, verdict in found.items() if verdict == PASS} <= {
        TRAINS,
        "steps",
        "last-batch",
        "repeat",
    }

"""The gate: it names what changed, on both sides, and fails what it cannot compare."""

import json
import math
import threading
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import Outcome, looks
from identity_props.cli import main
from identity_props.errors import InputError
from identity_props.gate import (
    CHANGED,
    CONTEXT,
    EFFECT,
    FALSE_FAIL,
    compare,
    own,
    passes,
    rank_test,
    read,
    record,
    smallest_p,
    smallest_seen,
    text,
)
from identity_props.gate.baseline import MOST
from identity_props.report.files import replace_file
from identity_props.stack.stack import Stack

CLAIM = CLAIMS["linear-1"]
HERE = {name: {"of": name} for name in CONTEXT} | {"seed": 0, "jobs": 1, "threads": 1}


def outcome(slower=1.0, worse=1.0, seed=0, replicas=16, claim=CLAIM, verdict="holds"):
    """Replicas whose steps and FVU spread by 10% and by a factor of 1.3."""
    drawn = np.random.default_rng(seed)
    steps = slower * 1000 * 1.1 ** drawn.normal(size=replicas)
    fvu = worse * 1e-5 * 1.3 ** drawn.normal(size=replicas)
    figures = (tuple(map(float, fvu)),) * 2 + (tuple(map(float, steps)),)
    return Outcome(claim, verdict, replicas, *figures, 1250, 1.0, figures[-1])


def baseline(*outcomes, **context):
    return record(outcomes, HERE | context)


def words(before, after):
    return {change.name: change.word for change in compare(before, after)}


def test_equal_runs_are_the_same_in_every_row():
    changes = compare(baseline(outcome()), baseline(outcome()))
    assert [(c.name, c.word, c.p) for c in changes] == [(f"linear-1/{m}", "same", 1) for m in ("rate", "end")]
    assert passes(changes, strict=True)


@pytest.mark.parametrize(
    ("change", "row", "word", "passing"),
    [
        ({"slower": 1.5}, "linear-1/rate", "slower", (False, False)),
        ({"slower": 1 / 1.5}, "linear-1/rate", "faster", (True, False)),
        ({"worse": 4.0}, "linear-1/end", "worse", (False, False)),
        ({"worse": 1 / 4}, "linear-1/end", "better", (True, False)),
    ],
)
def test_a_change_is_named_on_either_side_and_welcome_ones_fail_strictly_alone(change, row, word, passing):
    before, after = baseline(outcome()), baseline(outcome(seed=1, **change))
    assert words(before, after)[row] == word
    assert list(words(before, after).values()).count("same") == 1
    assert tuple(passes(compare(before, after), strict) for strict in (False, True)) == passing


def test_a_clear_change_that_is_smaller_than_the_effect_is_the_same():
    narrow = replace(outcome(), crossing=tuple(1000.0 + k for k in range(16)))
    shifted = replace(narrow, crossing=tuple(1.05 * v for v in narrow.crossing))
    (rate, _) = compare(baseline(narrow), baseline(shifted))
    assert (rate.word, rate.p < 1e-6) == ("same", True)


# Null: two samples of one distribution. False-fail rate of the test itself: each row is tested at
# 1e-4 / 2, so 2,000 gates of one claim alarm at all with probability 0.2 at most by chance, and the
# effect has to be exceeded on top; three or more (a rate of 1e-3) with probability 1.1e-3.
@pytest.mark.thorough
def test_unchanged_claims_do_not_alarm():
    alarms = sum(
        not passes(compare(baseline(outcome(seed=2 * k)), baseline(outcome(seed=2 * k + 1))), strict=True)
        for k in range(2000)
    )
    assert alarms <= 2


# A shift of what a row says it sees is named with probability .99: of 200, 190 or more but for 1e-5.
# At a spread of 0.01 decades the effect decides, at 0.3 the rank test.
@pytest.mark.parametrize("spread", [0.01, 0.05, 0.3])
def test_the_smallest_change_that_a_row_states_is_named(spread):
    level, effect = FALSE_FAIL / 2, EFFECT["rate"]
    shift = smallest_seen(16, level, spread, effect)
    drawn = np.random.default_rng(0)
    named = 0
    for _ in range(200):
        a, b = (np.sort(spread * drawn.normal(size=16) + k * shift) for k in range(2))
        named += rank_test(a, b) <= level and b[8] - a[8] > effect
    assert named >= 190


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, math.inf]), min_size=2, max_size=20))
def test_a_sample_never_differs_from_itself(values):
    assert rank_test(values, values[::-1]) == 1


def test_infinity_ranks_last_and_ties_are_allowed():
    assert rank_test([1.0] * 16, [math.inf] * 16) < 1e-6
    assert (
        words(baseline(outcome()), baseline(replace(outcome(), crossing=(math.inf,) * 16)))["linear-1/rate"]
        == "slower"
    )


def never(count, **given):
    """An outcome of which ``count`` replicas never reach near-identity."""
    one = outcome(**given)
    return replace(one, crossing=(math.inf,) * count + one.crossing[count:])


def test_replicas_that_never_reach_near_identity_are_told_on_both_sides():
    (rate, end) = compare(baseline(never(3)), baseline(never(5, seed=1)))
    assert (rate.word, end.word, end.note) == ("same", "same", "")
    assert rate.note == "3 of 16 never near-identity, now 5 of 16"
    assert (rate.method, rate.found) == ("exact", math.inf)  # so many ties: nothing is seen for certain


def test_other_numbers_of_replicas_and_a_p_that_is_not_counted_are_told():
    (rate, _) = compare(baseline(outcome(replicas=100)), baseline(outcome(seed=1, replicas=200)))
    assert (rate.note, rate.method) == ("100 replicas, now 200; p by a saddlepoint", "saddlepoint")


# With both medians infinite nothing moves, whatever became of the others: so shares are compared.
@pytest.mark.parametrize(
    ("before", "after", "word"), [(9, 16, "same"), (40, 64, "slower"), (64, 40, "faster"), (40, 40, "same")]
)
def test_where_most_replicas_never_get_there_it_is_their_share_that_is_compared(before, after, word):
    n = 16 if before < 16 else 64
    runs = never(before, replicas=n), never(after, seed=1, replicas=n)
    (rate, _) = compare(*map(baseline, runs))
    assert (rate.word, rate.found) == (word, math.inf)
    assert f"{before} of {n} never near-identity, now {after} of {n}" in rate.note


# Null: both runs draw from one law, a third of it, or 60%, infinite. Of 500 gates at 1e-4 each, two alarm
# with probability 1.2e-3.
@pytest.mark.thorough
@pytest.mark.parametrize("share", [1 / 3, 0.6])
def test_unchanged_claims_with_infinities_do_not_alarm(share):
    drawn = np.random.default_rng(0)
    alarms = sum(
        not passes(
            compare(*(baseline(never(drawn.binomial(16, share), seed=2 * k + side)) for side in range(2))),
            strict=True,
        )
        for k in range(500)
    )
    assert alarms <= 1


# It fails closed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "row", "word"),
    [
        ([outcome(), outcome(claim=CLAIMS["linear-4"])], [outcome()], "linear-4", "missing"),
        ([outcome()], [outcome(), outcome(claim=CLAIMS["linear-4"])], "linear-4", "missing"),
        ([outcome()], [outcome(verdict="undecided")], "linear-1", "undecided"),
        ([outcome(replicas=8)], [outcome(replicas=8)], "linear-1/rate", "too few"),
        ([outcome()], [replace(outcome(), fvu=(math.nan,) * 16)], "linear-1/end", "worse"),
    ],
)
def test_what_cannot_be_compared_or_does_not_hold_fails_by_name(before, after, row, word):
    changes = compare(baseline(*before), baseline(*after))
    assert word in {change.word for change in changes if change.name == row}
    assert not passes(changes)


def test_another_budget_is_another_claim_and_fails_by_name():
    changes = compare(baseline(outcome()), baseline(replace(outcome(), budget_steps=2500)))
    assert [(c.name, c.word, c.note) for c in changes] == [
        ("linear-1", "differs", "budget 1250 steps, now 2500")
    ]
    assert not passes(changes)


def test_nan_never_compares():
    odd = baseline(outcome())
    odd["claims"]["linear-1"]["rate"][3] = math.nan
    for pair in ((odd, odd), (odd, baseline(outcome())), (baseline(outcome()), odd)):
        changes = compare(*pair)
        assert [change.word for change in changes] == ["NaN", "same"]
        assert not passes(changes)


def test_no_rows_at_all_fail():
    assert not passes([])
    assert not passes(compare(baseline(), baseline()))


@pytest.mark.parametrize(
    ("name", "passing"),
    [
        ("data", (False, False)),
        ("stack", (False, False)),
        *((name, (True, False)) for name in ("seed", "jobs", "threads", "machine", "versions")),
    ],
)
def test_other_data_or_stacks_fail_and_other_machines_are_noted(name, passing):
    other = baseline(outcome(), **{name: {"of": "another"} if isinstance(HERE[name], dict) else 5})
    changes = compare(baseline(outcome()), other)
    assert words(baseline(outcome()), other)[name] == "differs"
    assert tuple(passes(changes, strict) for strict in (False, True)) == passing


# The file -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch, few_digits):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_baseline_comes_back_as_it_was_and_has_a_line_a_claim(folder):
    written = baseline(outcome(), outcome(claim=CLAIMS["raw-diverges"], worse=math.inf))
    Path("base.json").write_text(text(written))
    assert read(Path("base.json")) == json.loads(json.dumps(written))
    assert len(text(written).splitlines()) == len(CONTEXT) + 2 + 1 + 2 + 2


def claim(**fields):
    """The text of a baseline whose one claim has other fields."""
    made = baseline(outcome())
    made["claims"]["linear-1"] |= fields
    return text(made)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is none; --update records one"),
        ("", "expected JSON, got"),
        ("{", "expected JSON, got"),
        ("[" * 100_000, "expected JSON, got"),
        ('{"schema": NaN}', "expected finite numbers and null, got NaN"),
        ("[]", "at the top: .* is not of type 'object'"),
        ("{}", "at the top: 'schema' is a required property"),
        (text(baseline(outcome())).replace("baseline/1", "baseline/9"), "at schema"),
        (text(baseline(outcome())).replace('"holds"', '"maybe"'), "at claims/linear-1/verdict"),
        (text(baseline()), "at claims: .* should be non-empty|does not have enough properties"),
        (" " * (10 * 2**20 + 1), "expected 10 MiB at most, got more"),
        (claim(successes=1e308), "at claims/linear-1/successes: .* is greater than the maximum"),
        (claim(successes=17), "at claims/linear-1: expected a rate and an end .* got 16, 16 and 17"),
        (claim(successes=True), "at claims/linear-1/successes: True is not of type 'integer'"),
        (claim(budget=1e308), "at claims/linear-1/budget: .* is greater than the maximum"),
        (claim(rate=[1.0, None] * 10), "at claims/linear-1: expected a rate and an end .* got 20, 16 and 16"),
        (claim(rate=[1.0] * 10**5, end=[1.0] * 10**5), "at claims/linear-1/rate: .* is too long"),
        (claim(end=[1e308] * 16), "at claims/linear-1/end/0: .* is greater than the maximum of 309"),
        (claim(end=[-301] * 16), "at claims/linear-1/end/0: -301 is less than the minimum of -300"),
        (claim().replace("-5.", "-1e999"), "at claims/linear-1/end/0: -inf is less than the minimum"),
        (claim(rate=["3"] * 16), "at claims/linear-1/rate/0: '3' is not of type"),
        (claim().replace('"linear-1"', r'"a\nb"').replace("16,", "99,"), r"at claims/a\\nb: expected"),
        (text(baseline(outcome(), jobs=0)), "at jobs: 0 is less than the minimum of 1"),
    ],
)
def test_a_file_that_is_no_baseline_is_refused_in_one_line(content, message, folder, capsys):
    if content is not None:
        Path("base.json").write_text(content)
    with pytest.raises(InputError, match=message):
        read(Path("base.json"))
    assert main(["gate", "--baseline", "base.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_baseline_outside_of_the_working_folder_is_refused(folder):
    with pytest.raises(InputError, match="expected a file in the working folder, got one outside"):
        read(Path("../base.json"))


def test_a_baseline_that_cannot_be_written_is_refused_before_anything_is_trained(folder, capsys):
    Path("folder").mkdir()
    assert main(["gate", "--baseline", "folder", "--update", *ONE]) == 2
    assert "baseline folder: expected a file, got a folder" in capsys.readouterr().err
    Path("file").touch()
    assert main(["gate", "--baseline", "file/base.json", "--update", *ONE]) == 2
    assert "--baseline file: expected a folder to write to" in capsys.readouterr().err


def test_of_two_that_write_one_baseline_one_wins_whole(folder):
    contents = [text(baseline(outcome(seed=seed, replicas=200))) for seed in range(2)]
    writers = [
        threading.Thread(target=lambda c=c: [replace_file(Path("base.json"), c) for _ in range(50)])
        for c in contents
    ]
    [writer.start() for writer in writers]
    [writer.join() for writer in writers]
    assert Path("base.json").read_text() in contents
    assert list(folder.iterdir()) == [folder / "base.json"]


# The command ----------------------------------------------------------------------------------------

ONE = ("--claims", "scaled-whiten", "--jobs", "1", "--replicas", "13")


def test_two_runs_on_one_machine_are_equal_and_the_gate_passes(folder, capsys):
    assert main(["gate", "--baseline", "one.json", "--update", *ONE]) == 0
    assert main(["gate", "--baseline", "two.json", "--update", *ONE]) == 0
    assert Path("one.json").read_text() == Path("two.json").read_text()
    summary = folder / "summary.md"
    assert main(["gate", "--baseline", "one.json", "--strict", "--summary", str(summary), *ONE]) == 0
    assert "The gate passes: 2 comparisons, 2 same." in capsys.readouterr().out
    assert summary.read_text().startswith("### identity-props gate passes\n")


def test_a_slower_claim_fails_the_command(folder, capsys):
    main(["gate", "--baseline", "base.json", "--update", *ONE])
    recorded = json.loads(Path("base.json").read_text())
    recorded["claims"]["scaled-whiten"]["end"] = [-20.0 - k / 100 for k in range(13)]
    Path("base.json").write_text(json.dumps(recorded))
    assert main(["gate", "--baseline", "base.json", "--json", *ONE]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["name"], row["word"]) for row in rows if row["verdict"] == CHANGED] == [
        ("scaled-whiten/end", "worse")
    ]


def test_the_last_line_of_a_gate_that_fails_says_why(folder, capsys):
    main(["gate", "--baseline", "base.json", "--update", *ONE])
    recorded = json.loads(Path("base.json").read_text())
    recorded["claims"]["scaled-whiten"]["end"] = [-20.0 - k / 100 for k in range(13)]
    Path("base.json").write_text(json.dumps(recorded))
    assert main(["gate", "--baseline", "base.json", *ONE]) == 1
    last = " ".join(capsys.readouterr().out.partition("The gate fails: ")[2].split())
    assert last.startswith("scaled-whiten/end worse x ")
    assert main(["gate", "--baseline", "base.json", "--seed", "3", "--strict", *ONE]) == 1


def test_a_part_that_is_recorded_leaves_the_other_claims_and_is_compared_alone(folder, capsys):
    other = ("--claims", "raw-diverges", "--jobs", "1", "--replicas", "13")
    assert main(["gate", "--baseline", "base.json", "--update", *ONE]) == 0
    assert main(["gate", "--baseline", "base.json", "--update", *other]) == 0
    assert "wrote base.json: 1 claims, beside 1 that it had" in capsys.readouterr().err
    assert [*read(Path("base.json"))["claims"]] == ["raw-diverges", "scaled-whiten"]
    assert main(["gate", "--baseline", "base.json", *ONE]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "The gate passes: 2 comparisons, 2 same. Left out by --claims: 1 of the baseline's." in out
    assert main(["gate", "--baseline", "base.json", "--json", *ONE]) == 0
    assert json.loads(capsys.readouterr().out)["left_out"] == ["raw-diverges"]


def test_a_part_of_another_kind_of_run_is_recorded_with_force_alone(folder, capsys):
    other = ("--claims", "raw-diverges", "--jobs", "1", "--replicas", "13", "--seed", "7")
    main(["gate", "--baseline", "base.json", "--update", *ONE])
    assert main(["gate", "--baseline", "base.json", "--update", *other]) == 2
    assert "1 other claims in the baseline, got one of another seed; " in capsys.readouterr().err
    assert [*read(Path("base.json"))["claims"]] == ["scaled-whiten"]
    assert main(["gate", "--baseline", "base.json", "--update", "--force", *other]) == 0
    assert [*read(Path("base.json"))["claims"]] == ["raw-diverges"]


def test_claims_that_the_baseline_does_not_have_are_refused(folder, capsys):
    main(["gate", "--baseline", "base.json", "--update", *ONE])
    assert main(["gate", "--baseline", "base.json", "--claims", "raw-diverges", "--jobs", "1"]) == 2
    assert "expected some of the baseline's, scaled-whiten, got raw-diverges" in capsys.readouterr().err


def test_a_damaged_baseline_is_recorded_over_with_force_alone(folder, capsys):
    Path("base.json").write_text("{")
    assert main(["gate", "--baseline", "base.json", "--update", *ONE]) == 2
    assert "--update --force replaces it" in capsys.readouterr().err
    assert main(["gate", "--baseline", "base.json", "--update", "--force", *ONE]) == 0


# A stack of one's own -------------------------------------------------------------------------------

MINE = ("--optimizer", "torch.optim:RMSprop", "--jobs", "1", "--replicas", "13")


@pytest.fixture
def one_of_its_own(folder, monkeypatch):
    """The cheapest of the claims at rates of their own, and a search that is known."""
    searched = []

    def find_rate(stack, pixels, trial):
        searched.append(stack.describe()["optimizer"])
        return 0.01

    monkeypatch.setattr(own, "find_rate", find_rate)
    for name in own.OWN.keys() - {"own-whitened-1"}:
        monkeypatch.delitem(own.OWN, name)
    return searched


@pytest.mark.thorough
def test_an_optimizer_of_one_s_own_is_gated_at_a_rate_that_is_found_once(one_of_its_own, capsys):
    gate = ["gate", "--baseline", "base.json", *MINE]
    assert main([*gate, "--update"]) == 0
    assert read(Path("base.json"))["claims"]["own-whitened-1"]["lr"] == 0.01
    assert main([*gate, "--update"]) == main([*gate, "--strict"]) == 0
    assert one_of_its_own == ["torch.optim.rmsprop:RMSprop"]
    assert main([*gate, "--optimizer-arg", "alpha=0.5"]) == 1
    assert "stack differs" in " ".join(capsys.readouterr().out.split())


def test_a_rate_of_another_optimizer_is_not_kept(one_of_its_own):
    gate = ["gate", "--baseline", "base.json", "--update", *MINE]
    assert main(gate) == main([*gate, "--optimizer-arg", "alpha=0.5"]) == 0
    assert len(one_of_its_own) == 2


def test_what_an_optimizer_does_not_learn_is_left_out(one_of_its_own, capsys, monkeypatch):
    monkeypatch.setattr(own, "find_rate", lambda stack, pixels, trial: 1e-9)
    assert main(["gate", "--baseline", "base.json", "--update", *MINE]) == 2
    error = capsys.readouterr().err
    assert "left out: own-whitened-1, which this stack does not learn" in error
    assert not Path("base.json").exists()


def test_a_baseline_without_claims_of_its_own_says_so(folder, capsys):
    main(["gate", "--baseline", "base.json", "--update", *ONE])
    assert main(["gate", "--baseline", "base.json", *MINE]) == 2
    assert "expected claims of an optimizer of its own, own-whitened-1" in capsys.readouterr().err


def test_a_rate_of_its_own_is_searched_for_the_trial_that_is_judged(small):
    found = own.own_claims(["own-linear-4", "own-whitened-1"], Stack(), small, {"own-linear-4": 0.5})
    assert found["own-linear-4"].plan(small)[0].recipe.lr == 0.5
    assert found["own-whitened-1"].lr == found["own-whitened-1"].plan(small)[0].recipe.lr


def test_a_run_whose_claims_do_not_hold_is_not_recorded_without_force(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        "identity_props.cli.work.Work.judged", lambda work: ([outcome(verdict="fails")], False)
    )
    assert main(["gate", "--baseline", "base.json", "--update", *ONE]) == 2
    assert "expected claims that hold, got linear-1; --force records them" in capsys.readouterr().err
    assert not Path("base.json").exists()
    assert main(["gate", "--baseline", "base.json", "--update", "--force", *ONE]) == 0


def test_a_run_cut_short_passes_nothing_and_records_nothing(folder, monkeypatch):
    monkeypatch.setattr("identity_props.cli.work.Work.judged", lambda work: ([outcome()], True))
    assert main(["gate", "--baseline", "base.json", "--update", *ONE]) == 130
    assert not Path("base.json").exists()


def test_a_worker_that_died_passes_nothing_and_records_nothing(folder, monkeypatch, capsys):
    def died(work):
        raise BrokenProcessPool

    monkeypatch.setattr("identity_props.cli.work.Work.judged", died)
    assert main(["gate", "--baseline", "base.json", "--update", *ONE]) == 1
    assert "a worker process died" in capsys.readouterr().err
    assert not Path("base.json").exists()


def test_no_more_replicas_are_asked_for_than_a_baseline_holds_when_they_are_doubled(folder, capsys):
    assert main(["gate", "--baseline", "base.json", "--update", "--replicas", "2049"]) == 2
    assert "2049 is not in the range 1<=x<=2048" in capsys.readouterr().err
    assert max(looks(2048)) == MOST


def test_the_level_can_be_reached_with_the_replicas_of_the_default():
    assert smallest_p(16) <= FALSE_FAIL / (2 * len(CLAIMS))

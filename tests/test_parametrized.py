"""Laws as tests of a user's own: by name, chosen, with reasons, and failures that people can read."""

import re

import pytest
from torch.optim import SGD

from identity_props import InputError, Reference, Row, Stack, parametrize_with_laws
from identity_props.plugin.parametrized import told

HEAD = """
from torch.optim import SGD
from identity_props import Reference, Stack, parametrize_with_laws

class Slow(SGD):
    def __init__(self, params, lr, **arguments):
        super().__init__(params, 0.9 * lr, **arguments)

"""
TEST = "\ndef test_mine(stack, law):\n    law(stack)\n"


@pytest.fixture
def run(here, one_family):
    """Runs a test that is parametrized with these arguments; exit code and output."""

    def run(arguments, *options):
        return here(f"{HEAD}@parametrize_with_laws({arguments}){TEST}", "-v", "-rsxX", *options)[:2]

    return run


def ids(out):
    return [*dict.fromkeys(re.findall(r"test_mine\[(.*?)\] ([A-Z]+)", out))]


def test_there_is_a_test_a_law_and_stack_by_name(run):
    code, out = run("{'mine': Stack(optimizer=SGD), 'slow': Stack(optimizer=Slow)}", "-k", "gd-trajectory")
    assert code == 0
    assert ids(out) == [("mine-gd-trajectory", "PASSED"), ("slow-gd-trajectory", "SKIPPED")]
    assert "gd-trajectory: not gradient-descent" in out  # why it does not apply


def test_a_failure_is_five_lines_without_a_traceback(run):
    code, out = run("[Stack(optimizer=Slow)], like=Reference(optimizer=SGD), laws=['gd-trajectory']")
    assert code == pytest.ExitCode.TESTS_FAILED
    lines = out.partition("= FAILURES =")[2].splitlines()[2:7]
    starts = ("gd-trajectory fails, too slow: optimizer ", "the law: full-batch", "measured 0.", "commonly: ")
    assert [a.startswith(b) for a, b in zip(lines, starts, strict=False)] == [True] * 4
    assert lines[4] == "in full: identity-props laws gd-trajectory"
    assert "Row(" not in out
    assert "DEBUG" not in out


def test_laws_are_skipped_and_expected_to_fail_with_reasons(run):
    given = "skip={'resume': 'no time'}, expected_failures={'Slow-gd-*': 'issue 12', 'SGD-epoch': 'none'}"
    stacks = "[Stack(optimizer=SGD), Stack(optimizer=Slow)], like=Reference(optimizer=SGD)"
    code, out = run(f"{stacks}, laws=['gd-trajectory', 'resume', 'epoch'], {given}")
    assert code == pytest.ExitCode.TESTS_FAILED  # what is expected to fail and passes is none
    assert dict(ids(out)) == {
        "SGD-gd-trajectory": "PASSED",
        "SGD-epoch": "FAILED",
        "SGD-resume": "SKIPPED",
        "Slow-gd-trajectory": "XFAIL",
        "Slow-epoch": "PASSED",
        "Slow-resume": "SKIPPED",
    }
    assert "no time" in out
    assert "issue 12" in out


@pytest.mark.parametrize(("allowed", "verdict"), [(0.5, "PASSED"), (1e-9, "FAILED")])
def test_a_tolerance_of_one_s_own_is_in_the_id_and_printed(allowed, verdict, run):
    stacks = "[Stack(optimizer=Slow)], like=Reference(optimizer=SGD), laws=['gd-trajectory']"
    _, out = run(f"{stacks}, tolerances={{'gd-trajectory': {allowed}}}", "-s")
    assert f"test_mine[Slow-gd-trajectory-within-{allowed:g}]" in out
    assert f"gd-trajectory: allowed {allowed:g}, which stands for " in out
    assert verdict in out


def test_a_tolerance_makes_nothing_pass_that_is_no_number(run):
    broken = "Stack(optimizer=SGD, loss=lambda a, b: (a - b).square().mean() * float('nan'))"
    code, out = run(f"{{'nan': {broken}}}, laws=['mean-squared-error'], tolerances={{'*': 1e30}}")
    assert code in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED)
    assert "PASSED" not in out


def test_parts_that_cannot_be_built_are_one_failure(run):
    code, out = run("{'none': Stack(optimizer=Bad)}".replace("Bad", "lambda params, lr: 1 / 0"), "-q")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert re.search(r"1 failed, \d+ skipped", out)
    assert "moves fails, error: " in out


def test_stacks_without_ids_have_those_of_their_parts():
    stacks = [
        Stack(optimizer=SGD, arguments={"momentum": 0.9}),
        Stack(),
        Stack(),
        Stack(dtype=None or Stack().dtype),
    ]
    made = parametrize_with_laws(stacks, laws=["moves"]).args[1]
    assert [one.id for one in made] == [
        "SGD-momentum=0.9-moves",
        "torch-1-moves",
        "torch-2-moves",
        "torch-3-moves",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"stacks": []}, "stacks: expected a Stack or more"),
        ({"stacks": [SGD]}, "stacks: expected a Stack or more"),
        ({"laws": ["gd-trajektory"]}, r"laws: expected a pattern of moves, .*got 'gd-trajektory'"),
        ({"skip": {"resume": ""}}, "skip: expected a reason for resume"),
        ({"expected_failures": {"like-optimizer": "yes"}}, "expected failures: expected a pattern of"),
        (
            {"tolerances": {"resume": float("nan")}},
            "tolerances: expected a number above 0 for resume, got nan",
        ),
    ],
)
def test_what_names_no_law_is_refused_in_one_line(given, message):
    with pytest.raises(InputError, match=message):
        parametrize_with_laws(**{"stacks": [Stack()]} | given)


def test_what_is_counted_is_a_whole_number():
    lines = told(Row("resume", "fail", 12.0, 0.0, "not repeatable", "weights that differ"), Stack())
    assert lines[2] == "measured 12, allowed 0: weights that differ"


def test_a_reference_may_be_one_stack_s():
    stacks = {"a": Stack(optimizer=SGD), "b": Stack(optimizer=SGD)}
    made = parametrize_with_laws(stacks, like={"a": Reference(optimizer=SGD)}, laws=["like-*"]).args[1]
    assert [one.id for one in made] == ["a-like-optimizer"]

"""Layers of some sizes or of one dtype, and constructors that raise: a line or a row, and never forty."""

import pytest
import torch
from torch import nn

from identity_props import InputError, Reference, Stack, check
from identity_props.cli import main
from identity_props.conformance.checking import FAMILIES, MOVES
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS
from identity_props.conformance.sizes import digits_of, families_of
from identity_props.stack.stack import features_of


class Eights(nn.Linear):
    """Takes multiples of 8."""

    def __init__(self, fan_in, fan_out, bias=True):
        if fan_in % 8 or fan_out % 8:
            raise ValueError(f"multiples of 8, got {fan_in}, {fan_out}")
        super().__init__(fan_in, fan_out, bias)


class Raises(nn.Linear):
    def __init__(self, *sizes, bias=True):
        raise RuntimeError("it has a bug")


class Coarse(nn.Linear):
    def forward(self, x):
        if x.dtype != torch.bfloat16:
            raise TypeError("bfloat16 alone")
        return super().forward(x)


@pytest.fixture
def quick(one_family, laws_left):
    """Half a dozen laws, and no search for a rate."""
    kept = {
        "gd-trajectory",
        "gradients",
        "eval-output",
        "bottleneck",
        "autocast-floor",
        "initial-draws",
        "resume",
    }
    laws_left(kept)


def rows(stack, **given):
    return {row.name: row for row in check(stack, **given)}


def test_a_constructor_that_raises_is_one_row_and_an_end():
    found = rows(Stack(linear=Raises, lr=1.0))
    assert [(row.name, row.verdict, row.kind) for row in found.values()] == [(MOVES, FAIL, "error")]
    assert "RuntimeError: it has a bug" in found[MOVES].note


def test_a_layer_of_other_sizes_is_asked_for_them_in_one_line(capsys):
    assert main(["check", "--linear", "tests.test_sizes:Eights", "--in-process"]) == 2
    error = capsys.readouterr().err
    assert "linear: expected a layer of any size, got multiples of 8, got 9, 9; --features 64" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("features", [(16, 64), (8,)])
def test_a_layer_is_judged_in_the_sizes_that_it_takes(features, quick):
    found = rows(Stack(linear=Eights, lr=10.0, features=features), like=Reference(linear=nn.Linear))
    assert {row.verdict for row in found.values()} <= {PASS, NOT_APPLICABLE}
    assert {name for name, row in found.items() if row.verdict == PASS} >= {
        "moves",
        "like-linear",
        "gd-trajectory",
        "gradients",
        "eval-output",
        "learns-identity",
    }


def test_a_layer_that_is_wrong_in_its_sizes_is_still_seen(quick):
    class Off(Eights):
        def forward(self, x):
            return super().forward(x) * (1 + 1e-3)

    found = rows(Stack(linear=Off, features=(16,), lr=1.0), like=Reference(linear=nn.Linear))
    assert found["like-linear"].verdict == FAIL


def test_a_law_of_other_sizes_does_not_apply_and_says_so(quick):
    found = rows(Stack(linear=Eights, features=(16,), lr=10.0))
    others = [row.note for row in found.values() if "--features are 16" in row.note]
    assert all(row.startswith("of a layer ") for row in others)


def test_a_layer_of_one_dtype_is_asked_for_that_in_one_line():
    with pytest.raises(InputError, match="dtype: expected one that the parts take, bfloat16, got float32"):
        rows(Stack(linear=Coarse))


def test_a_layer_of_bfloat16_alone_passes_there(quick):
    found = rows(Stack(linear=Coarse, dtype=torch.bfloat16, lr=10.0))
    assert [row.name for row in found.values() if row.verdict == FAIL] == []
    assert found["autocast-floor"].note == "not taking float32"
    assert found["gd-trajectory"].note == "its parts take bfloat16 alone"


@pytest.mark.parametrize("features", [(1,), (8, 16, 24, 32), (64,)])
def test_families_and_digits_are_of_the_widths_that_are_named(features):
    families = families_of(FAMILIES, features)
    assert {family.d for family in families} == {*features}
    assert all(torch.isfinite(family.case(2).x).all() for family in families)
    assert digits_of(features, 64, 32).d == min(features)


def test_without_sizes_nothing_changes():
    assert families_of(FAMILIES, ()) == FAMILIES
    assert digits_of((), 64, 32).d == 49
    assert (Stack().sized(5, 7), Stack().beside(9)) == ((5, 7), 11)


@pytest.mark.parametrize("text", ["x", "8,", "0", "785"])
def test_sizes_that_are_none_are_refused(text):
    with pytest.raises(InputError, match="features: expected"):
        Stack(features=features_of(text))


def test_the_first_size_stands_for_the_smaller():
    assert Stack(linear=Eights, features=(8, 16)).sized(5, 7) == (8, 16)

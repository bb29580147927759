"""The ledger reads from weights alone what each example weighed, and when, to rounding."""

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from identity_props.errors import InputError
from identity_props.trainers.ledger import Q, account, decoded, orthonormal, plan, told

FEW, MANY = 1e-9, 1e-4  # what is promised of a weight in float64 and in float32
NEAR = {torch.float64: 6e-14, torch.float32: 3e-5}  # of a product, as laws.base.rounding has it for one step
PRECISIONS = [pytest.param(torch.float64, FEW, id="float64"), pytest.param(torch.float32, MANY, id="float32")]


def descend(table, x, linear, q=Q):
    """A loop by hand: one layer from 0, each step of its weights, gradients by the formula, in the examples' dtype."""
    d = x.shape[1]
    w = torch.zeros(d, d, dtype=x.dtype)
    for k, row in enumerate(table.to(x.dtype)):
        rate = q * (1 - k / len(table) if linear else 1)
        w -= rate * (row[:, None] * (x @ w.T - x)).T @ x
    return w


def accounts(table, epochs, x, q=Q):
    """What trainings of 1 to ``epochs`` epochs leave, at a constant rate and at a falling one."""
    each = len(table) // epochs
    tables = [table[: each * one] for one in range(1, epochs + 1)]
    return [[account(descend(one, x, linear, q), x) for one in tables] for linear in (False, True)]


def read(table, epochs, dtype=torch.float64, seed=0, q=Q):
    n = table.shape[1]
    x = orthonormal(n, n + 2, seed).to(dtype)
    each = len(table) // epochs
    return decoded(
        *accounts(table, epochs, x, q), [each * one for one in range(1, epochs + 1)], NEAR[dtype], q
    )


@st.composite
def tables(draw):
    """Weights [epochs x steps, n]: each example in one step of an epoch, any weight of 0 to 3, or in none."""
    n, each, epochs = draw(st.tuples(st.integers(1, 8), st.integers(1, 6), st.integers(1, 3)))
    table = torch.zeros(epochs * each, n, dtype=torch.float64)
    weight = st.one_of(st.just(0.0), st.just(1.0), st.floats(0.01, 3.0))
    for epoch in range(epochs):
        for place in range(n):
            table[epoch * each + draw(st.integers(0, each - 1)), place] = draw(weight)
    return table, epochs


@pytest.mark.parametrize(("dtype", "far"), PRECISIONS)
@given(drawn=tables(), seed=st.integers(0, 99))
def test_any_weights_at_any_steps_are_read(dtype, far, drawn, seed):
    table, epochs = drawn
    book = read(table, epochs, dtype, seed)
    assert not book.unclear
    assert float((book.weights - table).abs().max()) <= far
    assert float(book.leaks.max()) <= NEAR[dtype]


@st.composite
def repeated(draw):
    """Weights [steps, n] of 1: each example in up to three steps of an epoch."""
    n, each = draw(st.tuples(st.integers(1, 6), st.integers(3, 8)))
    table = torch.zeros(each, n, dtype=torch.float64)
    for place in range(n):
        table[draw(st.sets(st.integers(0, each - 1), max_size=3).map(sorted)), place] = 1.0
    return table


@given(table=repeated(), seed=st.integers(0, 99))
def test_examples_that_come_several_times_are_read_at_their_steps_or_said_to_be_unclear(table, seed):
    book = read(table, 1, seed=seed)
    clear = [place for place in range(table.shape[1]) if place not in book.unclear]
    torch.testing.assert_close(book.weights[:, clear], table[:, clear], rtol=0, atol=FEW)
    assert all(table[:, place].sum() > 1 for place in book.unclear)
    assert bool(book.weights[:, book.unclear].isnan().all())


def test_two_choices_of_steps_that_fit_alike_are_unclear():
    table = torch.zeros(48, 2, dtype=torch.float64)
    table[[0, 31], 0] = 1.0  # (144 + 0) (144 + 31) = (144 + 6) (144 + 24)
    table[[0, 30], 1] = 1.0
    book = read(table, 1)
    assert book.unclear == [0]
    torch.testing.assert_close(book.weights[:, 1], table[:, 1])


@given(
    weights=st.lists(st.floats(0.2, 3), min_size=2, max_size=2), steps=st.sets(st.integers(0, 7), min_size=2)
)
def test_two_unequal_weights_in_an_epoch_are_never_read_as_what_does_not_give_their_account(weights, steps):
    assume(abs(weights[0] - weights[1]) > 1e-3)
    table = torch.zeros(8, 1, dtype=torch.float64)
    table[sorted(steps)[:2], 0] = torch.tensor(weights, dtype=torch.float64)
    book = read(table, 1)
    if not book.unclear:
        x = orthonormal(1, 3, 0)
        for linear in (False, True):
            one, other = (account(descend(each, x, linear), x).products for each in (table, book.weights))
            torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@given(weight=st.floats(3, 60))
def test_large_weights_are_read_with_a_smaller_q(weight):
    table = weight * plan(4, 2, epochs=2)
    book = read(table, 2, q=Q / 16)
    assume(abs(weight - 64) > 0.1)
    torch.testing.assert_close(book.weights, table, rtol=0, atol=1e-8)


def test_a_weight_that_leaves_nothing_is_unclear_and_not_wrong():
    book = read(4 * plan(4, 2, epochs=2), 2)
    assert book.unclear == [0, 1, 2, 3]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_unclear_and_can_be_told(value):
    x = orthonormal(3, 5, 0)
    found = account(torch.full((5, 5), value), x)
    book = decoded([found], [found], [2], 1e-12)
    assert book.unclear == [0, 1, 2]
    assert "mixed with others" in told(found, 1e-12)


@given(leak=st.floats(1e-6, 1.0))
def test_an_example_mixed_with_another_leaks_by_as_much(leak):
    x = orthonormal(4, 6, 0)
    w = descend(plan(4, 2), x, linear=False) + leak * torch.outer(x[2], x[1])
    found = account(w, x)
    assert found.leaks.tolist() == pytest.approx([0, leak, 0, 0], abs=1e-12)
    assert told(found, 1e-9).endswith("; examples 1 mixed with others")


@given(n=st.integers(1, 6), held=st.integers(0, 5), seed=st.integers(0, 99))
def test_examples_that_are_never_trained_on_have_an_account_of_nothing(n, held, seed):
    x = orthonormal(6, 8, seed)
    table = plan(n, 2)
    found = account(descend(table, x[:n], linear=False), x[n:])
    assert found.products.tolist() == pytest.approx([1.0] * (6 - n), abs=1e-12)
    assert all(count == 0 for count in found.times(1e-9))


# What is meant ----------------------------------------------------------------------------------------


def simulated(n, size, accumulate, epochs, micro, window, drop_last):
    """Steps as a trainer takes them, a micro-batch at a time."""
    rows, pending, row = [], [], torch.zeros(n, dtype=torch.float64)

    def step():
        nonlocal row, pending
        if pending:
            examples = sum(map(len, pending))
            for batch in pending:
                by = {"examples": examples / len(pending), "means": len(batch), "fixed": size}[micro]
                micros = len(pending) if window == "mean" else accumulate
                for place in batch:  # its part of the mean, over that of one of accumulate x size
                    row[place] += accumulate * size / (by * micros)
            rows.append(row)
        row, pending = torch.zeros(n, dtype=torch.float64), []

    for _ in range(epochs):
        for at in range(0, n, size):
            batch = list(range(at, min(n, at + size)))
            if drop_last and len(batch) < size:
                continue
            pending.append(batch)
            if len(pending) == accumulate:
                step()
        if window in ("mean", "fixed"):
            step()
        elif window == "dropped":
            pending = []
    return torch.stack(rows) if rows else torch.zeros(0, n, dtype=torch.float64)


@given(
    n=st.integers(1, 20),
    size=st.integers(1, 6),
    accumulate=st.integers(1, 4),
    epochs=st.integers(1, 3),
    micro=st.sampled_from(["examples", "means", "fixed"]),
    window=st.sampled_from(["mean", "fixed", "carried", "dropped"]),
    drop_last=st.booleans(),
)
def test_a_plan_is_what_a_loop_does_under_the_same_rules(
    n, size, accumulate, epochs, micro, window, drop_last
):
    arguments = (n, size, accumulate, epochs, micro, window, drop_last)
    torch.testing.assert_close(plan(*arguments), simulated(*arguments))


@given(n=st.integers(1, 20), size=st.integers(1, 6), accumulate=st.integers(1, 4), epochs=st.integers(1, 3))
def test_right_steps_are_means_and_train_on_each_example_once_an_epoch(n, size, accumulate, epochs):
    table = plan(n, size, accumulate, epochs)
    assert table.sum(1).tolist() == pytest.approx([size * accumulate] * len(table))
    assert (table != 0).sum(0).tolist() == [epochs] * n
    assert len(table) == epochs * math.ceil(n / (size * accumulate))


# In words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "epochs", "said"),
    [
        (plan(8, 4), 1, "examples 0-7 weigh 1"),
        (plan(8, 4, epochs=3), 3, "examples 0-7 weigh 1"),
        (plan(6, 4), 1, "examples 0-3 weigh 1, 4-5 weigh 2"),
        (plan(6, 4, drop_last=True), 1, "examples 0-3 weigh 1, 4-5 are never trained on"),
        (plan(5, 4, epochs=2), 2, "examples 0-3 weigh 1, 4 weigh 4 in all of 2 epochs"),
        (plan(8, 2, 4, window="dropped"), 1, "examples 0-7 weigh 1"),
        (plan(6, 2, 2, 2, window="carried"), 2, "examples 0-5 weigh 1"),
        (plan(3, 3).repeat(2, 1), 1, "examples 0-2 are trained on 2 times in 1 epoch"),
        (plan(3, 3).repeat(3, 1), 2, "examples 0-2 are trained on 3 times in 2 epochs"),
        (0.5 * plan(3, 3, epochs=2), 2, "examples 0-2 weigh 0.5"),
        (torch.tensor([[1.0, 0, 1]]), 1, "examples 0, 2 weigh 1, 1 are never trained on"),
    ],
)
def test_an_account_is_told_in_runs_of_equal_weight(table, epochs, said):
    n = table.shape[1]
    x = orthonormal(n, n + 2, 1)
    assert told(account(descend(table, x, linear=False), x), 1e-9, epochs) == said


def test_more_examples_than_features_cannot_be_orthonormal():
    with pytest.raises(InputError, match="examples: expected at most as many as features, 3, got 4"):
        orthonormal(4, 3, 0)


@given(n=st.integers(1, 12), more=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_examples_are_orthonormal(n, more, seed):
    x = orthonormal(n, n + more, seed)
    torch.testing.assert_close(x @ x.T, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-14)

"""The plain loop: each of its options against a recursion written by hand in numpy, and resumed bit for bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from identity_props.stack.ranks import on_ranks
from identity_props.trainers.plain import Plain, fit, trained
from identity_props.trainers.protocol import IGNORED, Asked, Tokens

D = 6


def asked(n=10, layers=1, drawn=0, **options):
    """A training in float64 on drawn examples [n, 6] from drawn layers, two epochs in batches of 2."""
    draw = torch.Generator().manual_seed(drawn)
    start = tuple(torch.randn(D, D, generator=draw, dtype=torch.float64) / 3 for _ in range(layers))
    examples = torch.randn(n, D, generator=draw, dtype=torch.float64)
    given = {"lr": 0.2, "batch_size": 2, "epochs": 2} | options
    return Asked(start, examples, **given)


def recursion(asked):
    """What is asked, in numpy: weights, average, steps and loss of the last epoch."""
    w = [one.numpy().copy() for one in asked.start]
    velocity = [np.zeros_like(one) for one in w]
    average = [one.copy() for one in w]
    x, n, k = asked.examples.numpy(), len(asked.examples), 0
    size = asked.batch_size * asked.ranks
    for epoch in range(asked.epochs):
        order = np.array(Plain(replace(asked, ranks=1)).order(epoch))
        cuts = [order[at : at + size] for at in range(0, n, size)]
        cuts = [one for one in cuts if len(one) == size or not asked.drop_last]
        windows = [
            np.concatenate(cuts[a : a + asked.accumulate]) for a in range(0, len(cuts), asked.accumulate)
        ]
        lost = 0.0
        for held in windows:
            out = [x[held]]
            for one in w:
                out.append(out[-1] @ one.T)
            error = out[-1] - out[0]
            lost += (error**2).mean(1).sum()
            back, gradients = 2 * error / error.size, []
            for one, inward in zip(reversed(w), reversed(out[:-1]), strict=True):
                gradients.insert(0, back.T @ inward)
                back = back @ one
            moving = [place for place in range(len(w)) if place not in asked.frozen]
            norm = np.sqrt(sum((gradients[place] ** 2).sum() for place in moving))
            shrunk = 1.0 if asked.clip is None else min(1.0, asked.clip / (norm + 1e-6))
            rate = asked.lr * (1 - k / (asked.epochs * len(windows)) if asked.schedule == "linear" else 1.0)
            for place in moving:
                velocity[place] = asked.momentum * velocity[place] + (
                    shrunk * gradients[place] + asked.decay * w[place]
                )
                w[place] = w[place] - rate * velocity[place]
            beta = asked.average or 0.0
            average = [beta * mean + (1 - beta) * one for mean, one in zip(average, w, strict=True)]
            k += 1
    return w, average, k, lost / sum(map(len, windows))


def assert_recursion(found, asked, near=1e-12):
    weights, average, steps, loss = recursion(asked)
    for one, exact in zip(found.weights, weights, strict=True):
        torch.testing.assert_close(one, torch.from_numpy(exact), rtol=near, atol=near)
    if asked.average is not None:
        for one, exact in zip(found.averaged, average, strict=True):
            torch.testing.assert_close(one, torch.from_numpy(exact), rtol=near, atol=near)
    assert found.steps == steps
    assert found.loss == pytest.approx(loss, rel=near)


def same(one, other):
    """Bit for bit, NaN never."""
    return (
        all(map(torch.equal, one.weights, other.weights))
        and (one.averaged is None) == (other.averaged is None)
        and all(map(torch.equal, one.averaged or [], other.averaged or []))
        and (one.steps, one.loss, one.evaluated) == (other.steps, other.loss, other.evaluated)
    )


OPTIONS = {
    "nothing": {},
    "short last batch": {"n": 9},
    "dropped last batch": {"n": 9, "drop_last": True},
    "micro-batches": {"n": 16, "accumulate": 4},
    "incomplete window": {"n": 9, "accumulate": 2},
    "fewer examples than a batch": {"n": 3, "batch_size": 8, "accumulate": 2},
    "clip": {"clip": 0.1},
    "clip, two layers, micro-batches": {"clip": 0.1, "layers": 2, "accumulate": 2},
    "linear rate": {"schedule": "linear"},
    "momentum and rate": {"schedule": "linear", "momentum": 0.9},
    "decay, clip, momentum": {"decay": 0.1, "momentum": 0.5, "clip": 0.2},
    "shuffled": {"shuffle": True, "seed": 7},
    "average": {"average": 0.9, "accumulate": 2},
    "frozen first": {"layers": 2, "frozen": (0,), "decay": 0.1, "momentum": 0.5},
    "frozen last": {"layers": 3, "frozen": (1, 2), "clip": 0.05},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_the_recursion(options):
    one = asked(**options)
    assert_recursion(fit(one), one)


ANY = st.fixed_dictionaries(
    {
        "n": st.integers(1, 12),
        "layers": st.integers(1, 3),
        "lr": st.just(0.01),  # whatever the layers, nothing diverges, which would magnify rounding
        "drawn": st.integers(0, 9),
        "seed": st.integers(0, 9),
        "batch_size": st.integers(1, 5),
        "epochs": st.integers(1, 3),
        "accumulate": st.integers(1, 4),
        "clip": st.none() | st.floats(0.01, 10),
        "schedule": st.sampled_from(["constant", "linear"]),
        "momentum": st.sampled_from([0.0, 0.5, 0.9]),
        "decay": st.sampled_from([0.0, 0.1]),
        "shuffle": st.booleans(),
        "average": st.none() | st.floats(0, 1),
    }
)


@given(ANY)
def test_it_is_the_recursion_with_any_options_together(options):
    one = asked(**options)
    assert_recursion(fit(one), one, 1e-10)


def test_orders_are_permutations_that_epochs_and_seeds_change():
    loops = [Plain(asked(shuffle=True, seed=seed)) for seed in (0, 1)]
    orders = [loop.order(epoch) for loop in loops for epoch in range(3)]
    assert all(sorted(order) == [*range(10)] for order in orders)
    assert len(set(map(tuple, orders))) == len(orders)


def test_the_evaluation_is_the_mean_over_held_examples_and_moves_nothing():
    held = torch.randn(5, D, dtype=torch.float64)
    one = asked(held=held, shuffle=True, accumulate=2, n=9)
    found = fit(one)
    error = held @ found.weights[0].mT - held
    assert found.evaluated == pytest.approx(float((error**2).mean()), rel=1e-12)
    assert torch.equal(found.weights[0], fit(replace(one, held=None)).weights[0])


# Resuming -----------------------------------------------------------------------------------------


def resumed(loop, one, folder):
    """A training stopped where it is asked to be, and a new loop that goes on from there."""
    one = replace(one, folder=folder)
    trained(loop, one)
    return trained(loop, replace(one, stop=None, resume=True))


@pytest.mark.parametrize("stop", range(1, 10))
def test_it_resumes_bit_for_bit_after_any_micro_batch(stop, tmp_path):
    options = {
        "momentum": 0.9,
        "schedule": "linear",
        "shuffle": True,
        "average": 0.9,
        "clip": 0.3,
        "decay": 0.1,
    }
    one = asked(n=9, layers=2, accumulate=2, held=torch.ones(3, D, dtype=torch.float64), **options)
    assert same(resumed(Plain, replace(one, stop=stop), tmp_path), fit(one))


def test_a_training_without_a_whole_batch_takes_no_step():
    one = asked(n=3, batch_size=4, drop_last=True, schedule="linear")
    found = fit(one)
    assert found.steps == 0
    assert torch.equal(found.weights[0], one.start[0])
    assert np.isnan(found.loss)


def test_it_stops_where_it_is_asked_to(tmp_path):
    one = asked(n=9, accumulate=2, stop=4, folder=tmp_path)
    assert fit(one).steps == 2  # the second window is open


# Mixed precision ----------------------------------------------------------------------------------


def halved(precision, **options):
    """One-hot examples and short binary numbers, whose products no precision rounds."""
    eye = torch.eye(4)
    start = (torch.eye(4) / 2 + 0.25,)
    return Asked(start, eye, lr=0.5, batch_size=2, epochs=1, precision=precision, **options)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"clip": 2.0**-6, "accumulate": 2}])
def test_mixed_precision_is_exact_where_nothing_is_rounded(precision, options):
    half, full = (fit(halved(name, **options)).weights[0] for name in (precision, "full"))
    # clip_grad_norm_ rounds its factor, of a norm that has been multiplied and divided by 2^16
    torch.testing.assert_close(half, full, rtol=0, atol=1e-7 if "clip" in options else 0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_keeps_steps_below_half_a_unit_of_the_weights(precision):
    one = replace(halved(precision), lr=2.0**-12)
    moved = fit(one).weights[0] - one.start[0]
    full = fit(replace(one, precision="full")).weights[0] - one.start[0]
    assert full.abs().max() < 2.0**-10
    torch.testing.assert_close(moved, full, rtol=1e-3, atol=0)


def overflowing(**options):
    """The second and last of four batches overflow under a loss scale of 2^16, and not under 2^15."""
    x = torch.eye(4).repeat(2, 1) * torch.tensor([1.0, 1, 2, 2, 1, 1, 2, 2])[:, None]
    return Asked((torch.zeros(4, 4),), x, lr=2.0**-8, batch_size=2, epochs=1, precision="float16", **options)


def test_a_step_that_overflows_is_skipped_and_not_counted():
    one = overflowing(schedule="linear", momentum=0.5, average=0.5)
    loop = Plain(one)
    found = loop.train()
    assert found.steps == loop.scheduler.last_epoch == 3
    assert loop.scaler.get_scale() == 2.0**15
    kept = replace(one, examples=one.examples[[0, 1, 4, 5, 6, 7]], precision="full")

    class Longer(Plain):  # the rate falls over the steps that were meant
        total_steps = 4

    exact = Longer(kept).train()
    torch.testing.assert_close(found.weights, exact.weights, rtol=1e-3, atol=0)
    torch.testing.assert_close(found.averaged, exact.averaged, rtol=1e-3, atol=0)


@pytest.mark.parametrize("stop", range(1, 5))
def test_it_resumes_bit_for_bit_around_a_skipped_step(stop, tmp_path):
    one = overflowing(schedule="linear", momentum=0.5)
    assert same(resumed(Plain, replace(one, stop=stop), tmp_path), fit(one))


# Tokens -------------------------------------------------------------------------------------------


def tokens(**options):
    """Sequences of 3, 1, 4 and 2 of ten tokens, two of them masked, from a table of 0."""
    drawn = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    labels = (drawn + 1) % 10
    labels[[1, 5]] = IGNORED
    table = (torch.zeros(10, 10, dtype=torch.float64),)
    cut = Tokens(drawn.split([3, 1, 4, 2]), labels.split([3, 1, 4, 2]))
    given = {"lr": 1.0, "batch_size": 2, "epochs": 1} | options
    return Asked(table, torch.zeros(0, 10, dtype=torch.float64), tokens=cut, **given)


@pytest.mark.parametrize(
    "options", [{"batch_size": 4}, {"accumulate": 2}, {"batch_size": 1, "accumulate": 4}]
)
def test_each_token_that_is_not_masked_weighs_the_same_in_a_step(options):
    one = tokens(**options)
    ids, labels = torch.cat(one.tokens.ids), torch.cat(one.tokens.labels)
    exact = torch.zeros(10, 10, dtype=torch.float64)
    for place, label in zip(ids.tolist(), labels.tolist(), strict=True):
        if label != IGNORED:
            exact[place] = (torch.eye(10, dtype=torch.float64)[label] - 1 / 10) / 8
    found = fit(one)
    torch.testing.assert_close(found.weights[0], exact, rtol=1e-12, atol=1e-16)
    assert found.loss == pytest.approx(np.log(10), rel=1e-12)


# Ranks --------------------------------------------------------------------------------------------

SPREAD = {
    "a rank without examples": {"n": 9, "shuffle": True},
    "clip, micro-batches": {"n": 11, "accumulate": 2, "clip": 0.1, "momentum": 0.5, "average": 0.5},
    "dropped last batch": {"n": 11, "drop_last": True, "schedule": "linear"},
}


def both(one, folder):
    """On a rank: what comes of a training, and of the same stopped in its second window and gone on with."""
    return trained(Plain, one), resumed(Plain, replace(one, stop=3), folder)


@pytest.mark.processes
@pytest.mark.parametrize("options", SPREAD.values(), ids=SPREAD)
def test_two_ranks_are_one_with_batches_twice_as_large(options, tmp_path):
    one = asked(ranks=2, **options)
    (first, again), (second, again_second) = on_ranks(2, both, one, tmp_path)
    assert_recursion(first, one)
    assert same(first, second)
    assert same(first, again)
    assert same(second, again_second)


@pytest.mark.processes
def test_two_ranks_are_one_over_tokens():
    one = tokens(batch_size=3, ranks=2)  # six sequences are meant, four there
    found = [left.weights[0] for left in on_ranks(2, trained, Plain, one)]
    exact = fit(tokens(batch_size=4)).weights[0]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], exact, rtol=1e-12, atol=1e-16)

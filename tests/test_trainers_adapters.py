"""Adapters: what each framework's trainer does is what is judged, so that with every option off it is plain descent."""

import os
import sys
import warnings
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

from identity_props.trainers import plain
from identity_props.trainers.ledger import account, orthonormal, plan
from identity_props.trainers.names import NAMES, module_of
from identity_props.trainers.protocol import Asked, NotOffered, Tokens, trained_by
from identity_props.trainers.running import Trainer, bench_of, spread

pytestmark = pytest.mark.trainers

ASKED = os.environ.get("IDENTITY_PROPS_TRAINER", "").removeprefix("trainers-")  # tox: the environment's name
OURS = [name for name in NAMES if name not in ("plain", "trl") and ASKED in ("", name)]
LANGUAGE = [name for name in ("accelerate", "transformers", "trl") if ASKED in ("", name)]
KERAS = [name for name in OURS if name.startswith("keras")]
EPS = {torch.float64: 1e-14, torch.float32: 1e-5}  # of a weight, some 50 roundings
NEAR = {"optax": 3e-8, **dict.fromkeys(KERAS, 3e-7)}  # in float64: rates and momenta are kept in float32
SINGLE = {"fastai", "deepspeed"}  # in float32 alone: a smoothed loss, and gradients, are kept in it
LOSS = 1e-6  # transformers and Keras sum losses in float32


def here(name):
    """The name, or a skip where its package is not here, or Keras runs on another backend."""
    if find_spec(NAMES[name]) is None:
        pytest.skip(f"{NAMES[name]} is not installed")
    if name in KERAS and "keras" in sys.modules and sys.modules["keras"].backend.backend() != name[6:]:
        pytest.skip("Keras runs on one backend a process")
    return name


@pytest.fixture(params=OURS)
def name(request):
    return here(request.param)


@pytest.fixture
def fit(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return module_of(name).fit


@pytest.fixture
def eps(name):
    return EPS[torch.float32] if name in SINGLE else NEAR.get(name, EPS[torch.float64])


UNOFFERED = {
    "ddp": {"held", "stop", "resume"},
    "fsdp": {"held", "average", "stop", "resume"},
    "optax": {"drop_last", "shuffle", "held", "precision"},
    "skorch": {"precision", "average"},
    "ignite": {"clip", "precision"},
    "fastai": {"precision", "average"},
    "deepspeed": {"held", "precision", "average"},
}


def unless_refused(name, **options):
    """Skip what a framework does not offer."""
    if refused := UNOFFERED.get(name, set()).intersection(options):
        pytest.skip(f"{name} does not offer {', '.join(refused)}")


@pytest.fixture
def asked(tmp_path, request):
    """A training on normal examples from drawn weights, where the order of batches counts."""
    single = "name" in request.fixturenames and request.getfixturevalue("name") in SINGLE

    def ask(n=16, size=4, epochs=2, layers=1, dtype=torch.float32 if single else torch.float64, **options):
        draw = torch.Generator().manual_seed(7)
        x = torch.randn(n, 6, generator=draw, dtype=torch.float64)
        start = [torch.eye(6) / 2 + torch.randn(6, 6, generator=draw) / 9 for _ in range(layers)]
        numbers = tuple(one.to(dtype) for one in start), x.to(dtype)
        return Asked(*numbers, 0.3, size, epochs, folder=tmp_path, **options)

    return ask


@pytest.fixture
def ledger(tmp_path, request):
    """A training on orthonormal examples from 0, with q = 1/4 a step."""
    single = "name" in request.fixturenames and request.getfixturevalue("name") in SINGLE
    dtype = torch.float32 if single else torch.float64

    def ask(n, size, epochs=1, **options):
        held = size * options.get("accumulate", 1) * options.get("ranks", 1)
        x = orthonormal(n, n, 3).to(dtype)
        start = (torch.zeros(n, n, dtype=dtype),)
        return Asked(start, x, n * held / 8, size, epochs, folder=tmp_path, **options)

    return ask


def distance(one, other):
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(one, other, strict=True))


def descent(asked):
    """Weights of mini-batch gradient descent on the mean squared error, by hand, in float64."""
    weights = asked.start[0].double()
    for _ in range(asked.epochs):
        for x in asked.examples.double().split(asked.batch_size):
            weights = weights - asked.lr * 2 / x.numel() * (x @ weights.T - x).T @ x
    return weights


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("n", [16, 14])
def test_with_every_option_off_it_is_descent_written_by_hand(name, fit, asked, eps, dtype, n):
    if name in SINGLE and dtype == torch.float64:
        pytest.skip("it computes in float32")
    asks = asked(n, dtype=dtype)
    left = trained_by(fit, asks)
    assert distance(left.weights, [descent(asks)]) <= max(eps, EPS[dtype])
    assert left.weights[0].dtype == dtype
    assert left.steps == 8


OPTIONS = {
    "accumulate": {"accumulate": 2},
    "momentum": {"momentum": 0.9},
    "decay": {"decay": 0.1},
    "clip": {"clip": 0.01},
    "clip of a window": {"clip": 0.01, "accumulate": 2},
    "schedule": {"schedule": "linear"},
    "schedule of windows": {"schedule": "linear", "accumulate": 2, "momentum": 0.9},
    "schedule of short windows": {"schedule": "linear", "n": 12, "accumulate": 3, "epochs": 3},
    "drop_last": {"n": 14, "drop_last": True},
    "layers": {"layers": 3},
    "frozen": {"layers": 3, "frozen": (1,), "decay": 0.1, "momentum": 0.5},
}


WINDOWS = ("schedule of windows", "schedule of short windows")
OTHERWISE = {  # what is known to do it otherwise: see docs/explanation/real-trainers.md
    **{key: {*WINDOWS, "frozen"} for key in KERAS},  # micro-batches; decay is decoupled
    "fastai": {*WINDOWS, "frozen"},
    "skorch": {"clip of a window"},
}
TOLD = {*KERAS, "lightning", "transformers", "skorch"}  # whose loss is the mean over an epoch's examples


@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_that_it_offers_does_what_it_does_in_the_plain_loop(name, fit, asked, eps, option):
    options = OPTIONS[option]
    unless_refused(name, **options)
    asks = asked(**options)
    left, right = trained_by(fit, asks), trained_by(plain.fit, asks)
    assert (distance(left.weights, right.weights) <= eps) is (option not in OTHERWISE.get(name, ()))
    assert left.steps == right.steps
    if (
        name in TOLD
        and not {"n", "accumulate"}.intersection(options)
        and option not in OTHERWISE.get(name, ())
    ):
        assert left.loss == pytest.approx(right.loss, rel=LOSS)


def test_a_frozen_layer_stays_bit_for_bit(fit, asked):
    asks = asked(layers=2, frozen=(0,), decay=0.1)
    assert torch.equal(trained_by(fit, asks).weights[0], asks.start[0])


def test_shuffled_each_example_is_trained_on_once_an_epoch_and_in_another_order_for_another_seed(
    name, fit, ledger, asked, eps
):
    unless_refused(name, shuffle=True)
    asks = ledger(12, 4, 3, shuffle=True)
    weights = account(trained_by(fit, asks).weights[0], asks.examples)
    assert torch.allclose(
        weights.products, torch.full((12,), 0.75**3, dtype=torch.float64), atol=max(eps, 1e-12)
    )
    one, again, other = (trained_by(fit, asked(shuffle=True, seed=seed)).weights for seed in (3, 3, 90))
    assert distance(one, again) == 0
    assert distance(one, other) > 1e-3


def test_what_is_held_is_evaluated_example_by_example_and_moves_nothing(name, fit, asked):
    unless_refused(name, held=True)
    held = torch.randn(7, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    held = held.to(asked().examples.dtype)
    left, right = (trained_by(one, asked(held=held)) for one in (fit, plain.fit))
    assert left.evaluated == pytest.approx(right.evaluated, rel=LOSS)
    assert distance(left.weights, trained_by(fit, asked()).weights) == 0


def test_bfloat16_is_that_of_autocast(name, fit, asked):
    unless_refused(name, precision="bfloat16")
    left, right = (
        trained_by(one, asked(dtype=torch.float32, precision="bfloat16")) for one in (fit, plain.fit)
    )
    near = 2.0**-8 if name == "keras-jax" else EPS[torch.float32]  # JAX rounds products at other places
    assert distance(left.weights, right.weights) <= near


def tokens():
    """Sequences of 5, 3, 1 and 4 tokens, two of them masked."""
    ids = [torch.tensor(one) for one in ([0, 1, 2, 3, 4], [5, 6, 7], [8], [9, 10, 11, 12])]
    labels = [(one + 1) % 13 for one in ids]
    labels[0][1] = labels[3][0] = -100
    return Tokens(tuple(ids), tuple(labels))


REFUSED = {
    "lightning": {"precision": "float16", "tokens": tokens()},
    "accelerate": {"precision": "float16", "average": 0.9, "ranks": 2},
    "transformers": {"precision": "float16", "average": 0.9, "ranks": 2},
    **{key: {"ranks": 2} for key in KERAS},
    "optax": {"drop_last": True, "shuffle": True, "precision": "bfloat16", "ranks": 2},
    "ddp": {"stop": 2, "ranks": 2},
    "fsdp": {"precision": "float16", "average": 0.9, "stop": 2, "ranks": 2},
    "deepspeed": {"precision": "bfloat16", "average": 0.9, "ranks": 2, "held": torch.eye(6)},
    "skorch": {"precision": "bfloat16", "average": 0.9, "ranks": 2},
    "ignite": {"precision": "bfloat16", "clip": 1.0, "ranks": 2},
    "fastai": {"precision": "bfloat16", "average": 0.9, "ranks": 2},
}


def test_what_the_framework_cannot_do_is_refused_by_name(name, fit, asked):
    for option, value in REFUSED[name].items():
        with pytest.raises(NotOffered, match=option):
            trained_by(fit, asked(**{option: value}))


def test_transformers_saves_at_optimizer_steps_alone(asked):
    pytest.importorskip("transformers")
    from identity_props.trainers.transformers import fit

    with pytest.raises(NotOffered, match="stop"):
        trained_by(fit, asked(accumulate=2, stop=3))


def test_it_says_nothing_and_leaves_nothing_outside_its_folder(
    name, fit, asked, tmp_path, monkeypatch, capfd
):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    outside.mkdir()
    monkeypatch.chdir(outside)
    inside.mkdir()
    held = torch.eye(6, dtype=asked().examples.dtype)
    options = {"held": held, "stop": 8}
    offered = {key: options[key] for key in options.keys() - UNOFFERED.get(name, set())}
    trained_by(fit, replace(asked(**offered), folder=inside))
    assert [*outside.iterdir()] == []
    assert capfd.readouterr() == ("", "")


# Tokens -----------------------------------------------------------------------------------------------


def language(tmp_path, size, epochs=1, **options):
    """A training on four sequences, with an id to spare."""
    start = (torch.zeros(14, 14, dtype=torch.float64),)
    return Asked(start, torch.empty(4, 14), 2.0, size, epochs, tokens=tokens(), folder=tmp_path, **options)


@pytest.mark.parametrize("name", LANGUAGE)
@pytest.mark.parametrize(("size", "accumulate", "epochs"), [(2, 1, 1), (1, 4, 2), (1, 3, 2)])
def test_a_language_model_divides_by_all_tokens_of_a_window(name, tmp_path, size, accumulate, epochs):
    asks = language(tmp_path, size, epochs, accumulate=accumulate)
    left, right = (trained_by(one, asks) for one in (module_of(here(name)).fit, plain.fit))
    assert distance(left.weights, right.weights) <= EPS[torch.float32 if name == "trl" else torch.float64]
    assert left.steps == right.steps


@pytest.fixture
def trl():
    return module_of(here("trl")).fit


@pytest.mark.parametrize("packing", [6, 8, 64])
def test_trl_trains_on_packed_sequences_as_if_they_were_apart(trl, tmp_path, packing):
    packed, apart = (trained_by(trl, language(tmp_path, 4, 2, packing=rows)) for rows in (packing, None))
    assert distance(packed.weights, apart.weights) <= EPS[torch.float32]
    assert packed.steps == 2


def test_trl_leaves_the_row_of_an_end_alone(trl, tmp_path):
    left = trained_by(trl, language(tmp_path, 1, packing=64))
    assert not left.weights[0][13].any()


def test_trl_cuts_what_is_longer_than_a_row(trl, tmp_path):
    left = trained_by(trl, language(tmp_path, 4, packing=5))
    trained = left.weights[0].any(1).tolist()
    assert trained[:5] == [True, False, True, True, False]  # the fifth token of five, with an end, is cut


def test_trl_takes_no_examples(trl, asked):
    with pytest.raises(NotOffered, match="examples"):
        trained_by(trl, asked())


@pytest.mark.parametrize("option", ["held", "average"])
def test_trl_refuses_what_transformers_does_not_offer(trl, tmp_path, option):
    value = {"held": torch.eye(14), "average": 0.9}[option]
    with pytest.raises(NotOffered, match=option):
        trained_by(trl, language(tmp_path, 1, **{option: value}))


# What is known of each: a figure that turns with a new version is news ---------------------------------


WINDOW = {
    "lightning": "fixed",
    "accelerate": "fixed",
    "transformers": "mean",
    **dict.fromkeys([*KERAS, "optax", "deepspeed", "ignite", "fastai"], "carried"),
    **dict.fromkeys(["ddp", "fsdp", "skorch"], "added"),
}


def windows(epochs, window):
    """Weights of 48 examples in six micro-batches, four a step."""
    if window != "added":
        return plan(48, 8, 4, epochs, window=window)
    rest = plan(48, 8, 4, window="fixed")[1]  # is left in the gradients for the next epoch's first step
    steps = plan(48, 8, 4, epochs, window="dropped").clone()
    steps[1:] += rest
    return steps


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_incomplete_window_is_divided_as_the_framework_is_known_to(name, fit, ledger, eps, epochs):
    asks = ledger(48, 8, epochs, accumulate=4)
    expected = (1 - windows(epochs, WINDOW[name]) / 4).prod(0)
    found = account(trained_by(fit, asks).weights[0], asks.examples)
    assert torch.allclose(found.products, expected, atol=max(eps, 1e-12))


def test_a_short_micro_batch_counts_as_much_as_a_whole_one(name, fit, ledger, eps):
    if name == "fastai":
        pytest.skip("it counts examples, and waits for those that lack")
    asks = ledger(30, 8, accumulate=4)
    expected = 1 - plan(30, 8, 4, micro="means")[0] / 4
    found = account(trained_by(fit, asks).weights[0], asks.examples)
    assert torch.allclose(found.products, expected, atol=max(eps, 1e-12))


def test_lightning_averages_from_the_weights_after_the_first_step(asked):
    pytest.importorskip("lightning")
    from identity_props.trainers.lightning import fit

    states = [trained_by(plain.fit, asked(epochs=1, stop=k)).weights[0] for k in range(1, 5)]
    average = states[0]
    for state in states[1:]:
        average = average.lerp(state, 0.1)
    left = trained_by(fit, asked(epochs=1, average=0.9))
    assert distance(left.averaged, [average]) <= EPS[torch.float64]
    assert distance(left.weights, states[-1:]) <= EPS[torch.float64]


def test_transformers_logs_a_mean_of_batch_means(asked):
    pytest.importorskip("transformers")
    from identity_props.trainers.transformers import fit

    asks = asked(10, epochs=1)
    weights, means = asks.start[0], []
    for x in asks.examples.split(4):
        means.append(float((x @ weights.T - x).square().mean()))
        weights = weights - asks.lr * 2 / x.numel() * (x @ weights.T - x).T @ x
    assert trained_by(fit, asks).loss == pytest.approx(sum(means) / 3, rel=LOSS)


# Resumed in a new process; what is lost is what the framework is known to lose -------------------------


EPOCH, INSIDE, WITHIN = 4, 6, 5  # micro-batches; an epoch has four, a window two
KEPT = {
    ("lightning", False): {EPOCH},
    ("lightning", True): set(),
    ("accelerate", False): {EPOCH, INSIDE},
    ("accelerate", True): {EPOCH},
    ("transformers", False): {EPOCH, INSIDE},
    ("transformers", True): {EPOCH, INSIDE},
    ("optax", False): {EPOCH, INSIDE, WITHIN},
}


@pytest.fixture(scope="module", params=dict.fromkeys(name for name, _ in KEPT))
def bench(request):
    here(request.param)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with bench_of(Trainer(request.param)) as one:
            yield request.param, one


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stop", [EPOCH, INSIDE, WITHIN])
def test_a_training_that_is_resumed_is_the_uninterrupted_one_where_the_framework_keeps_all(
    bench, asked, tmp_path, stop, shuffle
):
    name, one = bench
    if (name, shuffle) not in KEPT:
        pytest.skip("it does not shuffle")
    asks = asked(epochs=3, accumulate=2, momentum=0.9, schedule="linear", shuffle=shuffle)
    if name == "transformers" and stop == WITHIN:
        pytest.skip("it saves at optimizer steps alone")
    whole = one.once(replace(asks, folder=tmp_path / "whole"))
    one.once(replace(asks, stop=stop))
    resumed = one.again(replace(asks, resume=True))
    assert resumed.steps == whole.steps
    assert (distance(resumed.weights, whole.weights) == 0) is (stop in KEPT[name, shuffle])


# Ranks, under torch's launcher ------------------------------------------------------------------------


UNEVEN = {  # 33 examples for two ranks of 8: what becomes of the last step
    "lightning": [-1.0, -0.75] + [0.75] * 31,  # one example is repeated; the two weigh 8 each
    "accelerate": [0.75**2] * 15 + [0.75] * 18,  # filled from the start
    "transformers": [0.75**2] * 15 + [0.75] * 18,
}
UNEVEN |= dict.fromkeys(["ddp", "fsdp", "ignite"], UNEVEN["lightning"])


def test_two_ranks_are_one_process_with_twice_the_batch_and_repeat_examples_to_fill_the_last(name, ledger):
    if name not in UNEVEN:
        pytest.skip("it does not offer ranks")
    both = [ledger(32, 8, 2, ranks=2), ledger(33, 8, ranks=2)]
    found = []
    for asks, (first, second) in zip(both, spread(Trainer(name), both), strict=True):
        assert torch.equal(first.weights[0], second.weights[0])
        found.append(account(first.weights[0], asks.examples).products.sort().values)
    for products, expected in zip(found, ([0.75**2] * 32, UNEVEN[name]), strict=True):
        assert torch.allclose(products, torch.tensor(expected, dtype=torch.float64), atol=1e-12)

"""What is asked of a trainer and what it hands back: options that it never reads, copies, kinds of weights."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from identity_props.trainers import plain
from identity_props.trainers.protocol import (
    OPTIONS,
    Asked,
    NotOffered,
    Tokens,
    Trained,
    TrainedError,
    checked,
    trained_by,
    weights_of,
)
from tests.user_trainers import minimal

START = (torch.eye(3, dtype=torch.float64),)
X = torch.arange(12, dtype=torch.float64).reshape(4, 3) / 12
GIVEN = {
    "accumulate": 2,
    "clip": 0.5,
    "schedule": "linear",
    "momentum": 0.5,
    "decay": 0.1,
    "shuffle": True,
    "drop_last": True,
    "held": X,
    "average": 0.75,
    "precision": "bfloat16",
    "frozen": (0,),
    "stop": 1,
    "resume": True,
    "ranks": 2,
    "packing": 4,
    "modes": True,
    "tokens": Tokens((torch.tensor([0, 1]),), (torch.tensor([1, 2]),)),
}


def ask(**options):
    return Asked(START, X, 0.1, 2, 1, **options)


def left(weights, start=START):
    return checked(weights, replace(ask(), start=start)).weights


# What is offered --------------------------------------------------------------------------------------


def untouched(asked):
    return asked.start[0] + 1


def test_there_is_an_option_here_for_each_that_has_a_value_of_its_own():
    assert {*GIVEN} == {*OPTIONS} - {"start", "examples", "lr", "batch_size", "epochs", "seed", "folder"}


@pytest.mark.parametrize(("name", "value"), GIVEN.items())
def test_what_a_trainer_never_reads_is_not_offered(name, value):
    with pytest.raises(NotOffered, match=f"^{name}$"):
        trained_by(untouched, ask(**{name: value}))


@pytest.mark.parametrize(("name", "value"), GIVEN.items())
def test_what_it_reads_is(name, value):
    def reads(asked):
        getattr(asked, name)
        return untouched(asked)

    assert trained_by(reads, ask(**{name: value})).weights[0][0, 0] == 2


def test_all_that_is_not_offered_is_named():
    with pytest.raises(NotOffered, match=r"^clip, momentum$"):
        trained_by(untouched, ask(clip=1.0, momentum=0.5))


def test_a_value_that_every_training_has_need_not_be_read():
    assert trained_by(untouched, ask(clip=None, momentum=0.0, folder=Path("x"), seed=3))


def test_what_was_read_is_told():
    reads = set()
    trained_by(minimal, ask(), reads)
    assert reads == {"start", "examples", "lr", "batch_size", "epochs", "frozen", "modes"}


def test_it_is_told_though_the_trainer_raises():
    def raises(asked):
        raise ValueError(asked.momentum)

    reads = set()
    with pytest.raises(ValueError, match=r"0\.5"):
        trained_by(raises, ask(momentum=0.5), reads)
    assert reads == {"momentum"}


def test_printing_what_is_asked_is_not_reading_it():
    asked = ask(clip=0.5, held=X)
    assert repr(asked) == "Asked([4, 3] examples, lr=0.1, batch_size=2, epochs=1, clip=0.5, held=...)"
    assert not asked.read


def test_a_trainer_that_fails_on_tokens_which_it_has_not_looked_at_does_not_offer_them():
    def fails(asked):
        raise IndexError(asked.lr)

    with pytest.raises(NotOffered, match=r"^tokens$"):
        trained_by(fails, ask(tokens=GIVEN["tokens"]))


def test_a_trainer_may_refuse():
    def refuses(asked):
        raise NotOffered("momentum with clip")

    with pytest.raises(NotOffered, match=r"^momentum with clip$"):
        trained_by(refuses, ask())


def test_what_is_pickled_counts_as_read_and_comes_back_unread():
    asked = ask(momentum=0.5, tokens=GIVEN["tokens"], folder=Path("here"))
    again = pickle.loads(pickle.dumps(asked))
    assert (asked.unread(), again.read, again.unread()) == ([], frozenset(), ["momentum", "tokens"])
    assert torch.equal(again.examples, X)
    assert torch.equal(again.tokens.ids[0], GIVEN["tokens"].ids[0])
    assert (again.momentum, again.folder) == (0.5, Path("here"))


# Copies -----------------------------------------------------------------------------------------------


def test_what_a_trainer_does_to_what_it_is_given_is_its_own_affair():
    def writes(asked):
        for one in (*asked.start, asked.examples, asked.held, *asked.tokens.ids, *asked.tokens.labels):
            one.zero_()
        return asked.start[0]

    asked = ask(held=X.clone(), tokens=GIVEN["tokens"])
    trained_by(writes, asked)
    assert torch.equal(asked.start[0], torch.eye(3, dtype=torch.float64))
    assert torch.equal(asked.examples, asked.held)
    assert asked.examples.any()
    assert GIVEN["tokens"].ids[0].tolist() == [0, 1]


@pytest.mark.parametrize(
    "kind", [torch.Tensor.detach, torch.Tensor.numpy, list], ids=["tensor", "numpy", "list"]
)
def test_what_it_does_to_what_it_has_handed_back_is_too(kind):
    weights = torch.eye(3, dtype=torch.float64)
    found = left(kind(weights) if kind is not list else [weights])
    weights.zero_()
    assert torch.equal(found[0], START[0])


def test_a_network_is_new_each_time_and_its_frozen_layers_do_not_train():
    asked = Asked(START * 2, X, 0.1, 2, 1, frozen=(1,))
    network = asked.network()
    assert [p.requires_grad for p in network.parameters()] == [True, False]
    with torch.no_grad():
        network[0].weight.zero_()
    assert torch.equal(asked.network()[0].weight, START[0])


def test_a_network_of_tokens_is_a_table_that_trains():
    network = ask(tokens=GIVEN["tokens"]).network()
    assert isinstance(network, nn.Embedding)
    assert network.weight.requires_grad


# What is handed back ----------------------------------------------------------------------------------

W = torch.arange(9, dtype=torch.float64).reshape(3, 3)
N = W.numpy()


@pytest.mark.parametrize(
    "weights",
    [
        W,
        [W],
        (W,),
        nn.Parameter(W),
        N,
        [N],
        np.asfortranarray(N),
        N[::-1].copy()[::-1],
        N.astype(">f8"),
        np.frombuffer(N.tobytes(), dtype=N.dtype).reshape(3, 3),
        W.float(),
        N.astype(np.float16),
        W.bfloat16(),
        Trained(W),
    ],
    ids=[
        *("tensor", "list", "tuple", "parameter", "numpy", "list of numpy", "fortran order", "backwards"),
        *("big-endian", "read-only", "float32", "float16", "bfloat16", "Trained"),
    ],
)
def test_weights_may_be_of_any_kind(weights):
    (found,) = left(weights)
    assert torch.equal(found.double(), W)
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (None, "weights: expected tensors or arrays [[3, 3]], got NoneType"),
        ("weights", "weights: expected tensors or arrays [[3, 3]], got str"),
        (nn.Linear(3, 3), "weights: expected tensors or arrays [[3, 3]], got Linear"),
        ({"weight": W}, "weights: expected tensors or arrays [[3, 3]], got dict"),
        ([None], "weights: expected tensors or arrays [[3, 3]], got list"),
        (np.array([[None] * 3] * 3), "weights: expected tensors or arrays [[3, 3]], got ndarray"),
        (W[:2], "weights: expected shapes [[3, 3]], got [[2, 3]]"),
        ([], "weights: expected shapes [[3, 3]], got []"),
        ([W, W], "weights: expected shapes [[3, 3]], got [[3, 3], [3, 3]]"),
        (0.5, "weights: expected shapes [[3, 3]], got [[]]"),
        (W.long(), "weights: expected floating numbers, got [torch.int64]"),
        (W.to(torch.complex64), "weights: expected floating numbers, got [torch.complex64]"),
        (Trained(W, averaged=W[0]), "averaged: expected shapes [[3, 3]], got [[3]]"),
        (Trained(W, steps=2.5), "steps: expected a whole number, got 2.5"),
        (Trained(W, steps=float("nan")), "steps: expected a whole number, got nan"),
        (Trained(W, loss="low"), "loss: expected a number or None, got str"),
        (Trained(W, evaluated=[1.0]), "evaluated: expected a number or None, got list"),
        (Trained(W, loss=torch.ones(2)), "loss: expected a number or None, got Tensor"),
    ],
)
def test_what_are_no_weights_is_said_in_a_line(weights, message):
    with pytest.raises(TrainedError) as error:
        left(weights)
    assert str(error.value) == message


@pytest.mark.parametrize("number", [2, 2.0, np.int64(2), np.float32(2), torch.tensor(2), torch.tensor([2.0])])
def test_figures_may_be_of_any_kind(number):
    found = checked(Trained(W, number, number, number), ask())
    assert (found.steps, found.loss, found.evaluated) == (2, 2.0, 2.0)
    assert isinstance(found.steps, int)


def test_weights_of_a_network_are_a_copy():
    network = ask().network()
    (weights,) = weights_of(network)
    with torch.no_grad():
        network[0].weight.zero_()
    assert torch.equal(weights, START[0])


def test_plain_offers_all_at_once_that_runs_in_one_process(tmp_path):
    apart = ("ranks", "resume", "tokens", "packing", "frozen")
    options = {name: value for name, value in GIVEN.items() if name not in apart} | {"stop": 2}
    found = trained_by(plain.fit, ask(**options, folder=tmp_path))
    assert found.averaged is not None
    assert found.evaluated is not None


def test_a_network_with_modes_puts_out_half_as_much_in_evaluation_mode():
    network, x = ask(modes=True).network(), X
    out = ask().network()(x)
    assert torch.equal(network(x), out)
    assert torch.equal(network.eval()(x), out / 2)
    assert torch.equal(network.train()(x), out)

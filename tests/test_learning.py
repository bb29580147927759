"""Learning: the rate is found as by the whole grid, soon where that is enough, and once a process."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from identity_props.conformance import learning
from identity_props.conformance.assertions import assert_learns_identity
from identity_props.conformance.checking import planned
from identity_props.conformance.learning import RATES, find_rate, learning_trial
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, Reference
from identity_props.engine import probe, recorded
from identity_props.engine.training import train
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant

SGD = torch.optim.SGD


@pytest.fixture
def tried(monkeypatch):
    """Rates that were tried, where FVU follows from the rate alone."""

    def of(fvu):
        rates = []

        def quarter(stack, pixels, lr, seeds=range(2), trial=learning_trial):
            rates.append(lr)
            return SimpleNamespace(fvu=torch.tensor([[fvu(lr)]]))

        monkeypatch.setattr(learning, "_quarter", quarter)
        return find_rate(Stack(), None), rates

    return of


@pytest.mark.parametrize("best", RATES[3:], ids="{:.1g}".format)
def test_downhill_by_decades_and_half_a_decade_beside_finds_what_the_grid_finds(best, tried):
    found, rates = tried(lambda lr: 1e-5 * (1 + abs(math.log10(lr / best))))
    assert found == best
    assert len(rates) <= 6


@pytest.mark.parametrize("only", RATES, ids="{:.1g}".format)
def test_where_one_rate_alone_learns_it_is_found_wherever_it_lies(only, tried):
    found, _ = tried(lambda lr: 1e-6 if lr == only else 2.0 + lr)
    assert found == only


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(learning, "budget", lambda d: 100)


@pytest.fixture
def learned(monkeypatch):
    """How often a stack is trained in earnest."""
    calls, real = [], learning._learning
    monkeypatch.setattr(learning, "_learning", lambda *given: calls.append(given) or real(*given))
    return calls


def test_the_same_parts_learn_once_in_a_process(short, learned):
    for _ in range(2):
        assert_learns_identity(Stack(optimizer=SGD, arguments={"momentum": 0.1}, lr=7.0))
    assert len(learned) == 1
    assert_learns_identity(Stack(optimizer=SGD, arguments={"momentum": 0.2}, lr=7.0))
    assert len(learned) == 2


def test_a_part_that_is_broken_in_the_meantime_is_not_taken_for_what_it_was(short, learned, monkeypatch):
    class Own(SGD):
        def step(self, closure=None):
            return super().step(closure)

    assert_learns_identity(Stack(optimizer=Own, lr=7.0))
    monkeypatch.setattr(Own, "step", lambda self, closure=None: None)
    with pytest.raises(AssertionError, match="0 of"):
        assert_learns_identity(Stack(optimizer=Own, lr=7.0))


def test_what_fails_at_a_given_rate_names_the_rate_that_the_search_takes(short):
    with pytest.raises(AssertionError, match=r"at lr 1e-06; the search, lr=None, takes lr \d+"):
        assert_learns_identity(Stack(optimizer=SGD, lr=1e-6))


# Recorded gradients under any optimizer ---------------------------------------------------------------


class Accumulates(SGD):
    """Forgets to clear the gradients, which a recorded one must not make good."""

    def zero_grad(self, set_to_none=True):
        pass


class Hooked(SGD):
    """Scales gradients in a hook, as optimizers that step during the backward pass do."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        for p in self.param_groups[0]["params"]:
            p.register_post_accumulate_grad_hook(halved)


def halved(p):
    p.grad.mul_(0.5)


def hooking(params, lr):
    for p in params:
        p.register_post_accumulate_grad_hook(halved)
    return SGD(params, lr)


def never_clearing(params, lr):
    optimizer = SGD(params, lr)
    optimizer.zero_grad = lambda set_to_none=True: None
    return optimizer


def frozen(layer):
    nn.init.xavier_uniform_(layer.weight)
    layer.bias.requires_grad_(False)


@pytest.mark.parametrize(
    "stack",
    [
        {"optimizer": torch.optim.AdamW},
        {"optimizer": torch.optim.Adadelta},
        {"optimizer": torch.optim.Rprop},
        {"optimizer": torch.optim.LBFGS},
        {"optimizer": Accumulates},
        {"optimizer": Hooked},
        {"optimizer": hooking},
        {"optimizer": never_clearing},
        {"optimizer": SGD, "init": frozen},
    ],
    ids=lambda stack: stack["optimizer"].__name__,
)
@pytest.mark.parametrize("seeds", [range(1), range(3)], ids=len)
def test_recorded_gradients_train_as_plain_ones_do_under_any_optimizer(stack, seeds, small, monkeypatch):
    trial = replace(learning_trial(0.01, 6), variant=Variant("linear", 1, "unit"))
    runs = []
    for first in (0, math.inf):
        monkeypatch.setattr(probe, "RECORDED_FROM", first)
        runs.append(train(trial, small, seeds, Stack(**stack, dtype=torch.float64)))
    for name, p in runs[0].state.items():
        assert torch.allclose(p, runs[1].state[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seeds", [range(1), range(3)], ids=len)
@pytest.mark.parametrize("depth", [1, 3])
def test_a_loss_gradient_by_subtraction_changes_no_bit(seeds, depth, small, monkeypatch):
    trial = replace(learning_trial(0.01, 6), variant=Variant("plain-relu", depth, "unit"))
    monkeypatch.setattr(probe, "RECORDED_FROM", 0)
    runs, replaced = [], []
    for subtracted in (recorded._subtracted, lambda *given: replaced.append(given)):
        monkeypatch.setattr(recorded, "_subtracted", subtracted)
        recorded._record.cache_clear()
        runs.append(train(trial, small, seeds))
    recorded._record.cache_clear()
    assert len(replaced) == 1
    assert all(torch.equal(p, runs[1].state[name]) for name, p in runs[0].state.items())


class Adapted(nn.Module):
    """A frozen layer beside an adapter of some rank, as LoRA's."""

    rank = 2

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out, bias=bias).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(self.rank, fan_in))
        self.up = nn.Parameter(torch.zeros(fan_out, self.rank))

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


class AdaptedInFull(Adapted):
    rank = 49


@pytest.mark.parametrize(
    ("layer", "verdict"), [(Adapted, NOT_APPLICABLE), (AdaptedInFull, FAIL), (nn.Linear, FAIL)]
)
def test_a_layer_of_too_few_numbers_to_be_the_identity_is_not_asked_to_learn_it(layer, verdict, monkeypatch):
    monkeypatch.setattr(learning, "budget", lambda d: 8)  # in which nothing learns
    row = dict(planned(Stack(linear=layer, lr=1e-3), Reference(), 0))["learns-identity"]()
    assert row.verdict == verdict
    assert ("196 numbers of its layer train, fewer than the 2401 of a matrix" in row.note) == (
        layer is Adapted
    )

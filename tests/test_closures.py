"""Closures: an optimizer that wants the loss evaluated is given what evaluates it, and is judged with it."""

import math

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam

from identity_props.conformance import checking, learning
from identity_props.conformance.checking import check
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Reference
from identity_props.laws import LAWS
from identity_props.stack.loop import needs_closure, take_step
from identity_props.stack.stack import Stack

pytestmark = pytest.mark.thorough


class Asking(Adam):
    """Its signature has no default."""

    def step(self, closure):
        return super().step(closure)


class Refusing(Adam):
    """Its signature does not say so; SAM is written like this."""

    def step(self, closure=None):
        assert closure is not None, "a closure, please"
        return super().step(closure)


class Broken(SGD):
    def step(self, closure=None):
        raise ValueError("broken")


class BreaksLater(SGD):
    """Its second step fails without a closure."""

    def step(self, closure=None):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 2:
            closure()
        return super().step(closure)


def stepped(optimizer, steps=1):
    """A parameter that starts at 1, of the loss p^2, after some steps."""
    parameter = nn.Parameter(torch.ones(1))
    one = optimizer([parameter], lr=0.1)
    for _ in range(steps):
        take_step(one, lambda: parameter.square().sum())
    return one, float(parameter.detach())


class Sharpness(SGD):
    """Climbs by the gradients that are there, evaluates again, and steps from where it was (Foret et al. 2021)."""

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "a closure, please"
        (p,) = self.param_groups[0]["params"]
        before = p.clone()
        p += 0.5 * p.grad
        with torch.enable_grad():
            closure()
        p.copy_(before)
        super().step()


def test_each_step_of_one_that_refuses_to_go_without_begins_from_gradients_of_now():
    _, moved = stepped(Sharpness, steps=3)
    assert math.isclose(moved, (1 - 2 * 0.1 * (1 + 0.5 * 2)) ** 3, rel_tol=1e-6)


class StepsByLoss(torch.optim.Optimizer):
    """Polyak's step, loss / |g|^2 (1964): it has no rate, and its closure is for the value of the loss alone."""

    def __init__(self, params, most=1.0, **others):
        super().__init__(params, {"most": most})

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "a closure, please"
        loss = float(closure())
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        squares = float(sum(p.grad.square().sum() for p in parameters))
        for p in parameters:
            p -= min(loss / (squares + 1e-9), self.param_groups[0]["most"]) * p.grad


def test_a_closure_called_without_gradients_leaves_those_that_are_there():
    _, moved = stepped(StepsByLoss, steps=2)
    assert math.isclose(moved, 0.25, rel_tol=1e-6)


def test_one_that_names_no_rate_has_none_that_a_schedule_sets(one_family, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {name: LAWS[name] for name in ("resume", "evaluate")})
    found = {row.name: row for row in check(Stack(optimizer=StepsByLoss, arguments={"most": 30.0}, lr=1.0))}
    assert {found[name].verdict for name in ("moves", "resume", "evaluate", "learns-identity")} == {PASS}


class Differences(SGD):
    """Descends along a line that it draws, by a difference of losses (Spall 1992; Malladi et al. 2023, MeZO)."""

    way = staticmethod(torch.randn_like)

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "a closure, please"
        parameters = [p for p in self.param_groups[0]["params"] if p.requires_grad]
        ways = [self.way(p) for p in parameters]

        def value(shift):
            for p, way in zip(parameters, ways, strict=True):
                p += shift * way
            return float(closure())

        slope = (value(1e-3) - value(-2e-3)) / 2e-3
        value(1e-3)
        for p, way in zip(parameters, ways, strict=True):
            p -= self.param_groups[0]["lr"] * slope * way


class Ascends(SGD):
    """Wrong, and takes gradients."""

    @torch.no_grad()
    def step(self, closure=None):
        assert closure is not None, "a closure, please"
        for p in self.param_groups[0]["params"]:
            p += self.param_groups[0]["lr"] * p.grad


class Shrinks(SGD):
    """Wrong, as it takes nothing at all."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p *= 0.9


@pytest.mark.parametrize(
    ("optimizer", "verdict"), [(Differences, NOT_APPLICABLE), (Ascends, FAIL), (Shrinks, FAIL)]
)
def test_one_that_goes_by_losses_alone_is_not_accused_of_being_slow(optimizer, verdict, monkeypatch):
    monkeypatch.setattr(learning, "budget", lambda d: 20)
    assert learning.learns_row(Stack(optimizer=optimizer, lr=0.01), 0).verdict == verdict


@pytest.mark.parametrize("optimizer", [Asking, Refusing])
def test_an_optimizer_that_wants_a_closure_gets_one(optimizer):
    one, moved = stepped(optimizer, steps=3)
    assert needs_closure(one)
    assert math.isclose(moved, stepped(Adam, steps=3)[1])


def test_what_fails_with_a_closure_too_says_why_it_failed_without():
    with pytest.raises(ValueError, match="broken"):
        stepped(Broken)


def test_one_that_has_stepped_without_a_closure_is_given_none_later():
    with pytest.raises(TypeError):
        stepped(BreaksLater, steps=2)


NAMES = ("layout", "elementwise", "adam-first-step", "resume", "evaluate", "state-roundtrip")


@pytest.mark.parametrize("like", [Reference(), Reference(optimizer=Adam)])
@pytest.mark.parametrize("optimizer", [Asking, Refusing])
def test_a_correct_optimizer_that_wants_a_closure_passes(optimizer, like, one_family, monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {name: law for name, law in LAWS.items() if name in NAMES})
    monkeypatch.setattr(learning, "budget", lambda d: 4)
    found = {row.name: row for row in check(Stack(optimizer=optimizer, lr=0.01), like)}
    del found["learns-identity"]  # not in four steps
    assert [row for row in found.values() if row.verdict == FAIL] == []
    assert {found[name].verdict for name in ("moves", "resume", "evaluate")} == {PASS}
    assert found["layout"].verdict == NOT_APPLICABLE
    assert "not stepping on given gradients" in found["layout"].note
    if like.optimizer is not None:
        assert found["like-optimizer"].verdict == PASS


class Curved(SGD):
    """Divides by the Hessian's diagonal, estimated by a draw of signs (Yao et al. 2021, AdaHessian 2006.00719)."""

    @torch.no_grad()
    def step(self, closure=None):
        parameters = [p for p in self.param_groups[0]["params"] if p.grad is not None]
        signs = [torch.randint_like(p, 2) * 2 - 1 for p in parameters]
        products = torch.autograd.grad([p.grad for p in parameters], parameters, signs)
        for p, sign, product in zip(parameters, signs, products, strict=True):
            p -= self.param_groups[0]["lr"] * p.grad / ((sign * product).abs() + 1e-3)


class Speaking(Curved):
    """Says what it wants in words of its own, before it steps."""

    def step(self, closure=None):
        gradients = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
        if any(gradient.grad_fn is None for gradient in gradients):
            raise RuntimeError("backward has to be called with create_graph=True")
        super().step()


@pytest.mark.parametrize("optimizer", [Curved, Speaking])
def test_an_optimizer_that_takes_the_gradients_gradient_gets_their_graph_and_draws_as_if_from_the_start(
    optimizer,
):
    torch.manual_seed(0)
    _, moved = stepped(optimizer, steps=2)
    assert math.isclose(moved, (1 - 0.1 * 2 / 2.001) ** 2, rel_tol=1e-6)
    after = torch.rand(1)
    torch.manual_seed(0)
    for _ in range(2):
        torch.randint(2, (1,))
    assert after == torch.rand(1)


def test_a_correct_optimizer_of_second_order_passes(one_family, monkeypatch):
    names = (*NAMES, "freeze", "bottleneck")
    monkeypatch.setattr(checking, "LAWS", {name: law for name, law in LAWS.items() if name in names})
    found = {row.name: row for row in check(Stack(optimizer=Curved, lr=0.1))}
    assert [row for row in found.values() if row.verdict == FAIL] == []
    passed = ("moves", "resume", "evaluate", "freeze", "learns-identity")
    assert {found[name].verdict for name in passed} == {PASS}

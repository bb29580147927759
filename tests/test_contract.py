"""The contract of torch.optim: its own optimizers keep to it, a planted fault breaks its law, and refusals are none."""

from functools import partial

import pytest
import torch
from torch import optim

from identity_props.conformance import checking
from identity_props.conformance.checking import check, check_laws
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, Reference
from identity_props.laws import LAWS, settings
from identity_props.laws.families import Family
from identity_props.laws.walking import NotOfferedError, offered, seed_all
from identity_props.stack.stack import Stack
from identity_props.stack.unchanged import unchanged
from tests.contracts import CONTROLS, SGD, ScalesItsRate, stack_arguments

CASE = Family(d=9, n=20, rank=9, seed=1).case(1)
CONTRACT = [name for name, law in LAWS.items() if law.kind == "contract"]


def found(name, optimizer, **arguments):
    """What a law of the contract finds of an optimizer, None where that does not offer it."""
    try:
        return LAWS[name].measure(Stack(optimizer=optimizer, dtype=torch.float64, **arguments), CASE)
    except NotOfferedError:
        return None


TORCH = {
    "SGD": SGD,
    "SGD, Nesterov": partial(SGD, momentum=0.9, nesterov=True),
    "SGD, fused": partial(SGD, fused=True),
    "Adam": optim.Adam,
    "Adam, foreach": partial(optim.Adam, foreach=True),
    "Adam, amsgrad": partial(optim.Adam, amsgrad=True),
    "AdamW": optim.AdamW,
    "Adadelta": optim.Adadelta,
    "Adagrad": optim.Adagrad,
    "Adamax": optim.Adamax,
    "ASGD": optim.ASGD,
    "ASGD, foreach": partial(optim.ASGD, foreach=True),
    "NAdam": optim.NAdam,
    "RAdam": optim.RAdam,
    "RMSprop": optim.RMSprop,
    "RMSprop, centered": partial(optim.RMSprop, centered=True, momentum=0.9),
    "Rprop": optim.Rprop,
    "Adafactor": optim.Adafactor,
    "Muon": optim.Muon,
    "LBFGS": optim.LBFGS,
}


@pytest.mark.parametrize("name", TORCH)
def test_torchs_own_optimizers_keep_to_the_contract_or_do_not_offer_it(name):
    results = {law: found(law, TORCH[name]) for law in CONTRACT}
    assert [law for law, one in results.items() if one and not one.holds] == []
    assert any(results.values()) == (name != "LBFGS")  # which wants a closure for each step


def test_torchs_adam_offers_all_of_it_but_what_is_for_gpus():
    assert [law for law in CONTRACT if not found(law, optim.Adam)] == ["capturable"]


def test_every_law_of_the_contract_has_a_control():
    assert set(CONTROLS) == set(CONTRACT)


@pytest.mark.parametrize(
    ("name", "control"), [(name, one) for name, ones in CONTROLS.items() for one in ones]
)
def test_what_breaks_a_law_of_the_contract_is_seen_by_it(name, control):
    one = found(name, **stack_arguments(control))
    assert one is not None
    assert not one.holds


# What is no failure --------------------------------------------------------------------------------------


class Plain(optim.Optimizer):
    """Gradient descent in ten lines: no closure, no decay, no switches."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.sub_(group["lr"] * p.grad)


class Refuses(Plain):
    """Says no to all that it does not know how to do."""

    def add_param_group(self, group):
        if self.param_groups:
            raise NotImplementedError("one group")
        if any(p.numel() == 0 or p.ndim == 0 for p in group["params"]):
            raise ValueError("expected vectors and matrices")
        super().add_param_group(group)

    def load_state_dict(self, state_dict):
        raise NotImplementedError("no states")

    def __reduce_ex__(self, protocol):
        raise TypeError("no copies")


class Alternating(Plain):
    """Steps by signs: six of them may end where they began."""

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad.sign()
        super().step()


class ByLoss(Plain):
    """A step as long as the loss says, after Polyak."""

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure() if closure else torch.ones(())
        for group in self.param_groups:
            for p in group["params"]:
                p.sub_(group["lr"] * loss.abs() * p.grad)
        return loss


class TwicePerStep(Plain):
    """Evaluates its closure at two points, as SAM does."""

    @torch.no_grad()
    def step(self, closure=None):
        if closure:
            with torch.enable_grad():
                closure()
                closure()
        super().step()


class Drawn(Plain):
    """Draws from a generator of its own, so that no two of it step alike."""

    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def step(self):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad * torch.rand(p.shape, generator=self.generator, dtype=p.dtype)
        super().step()


class Waiting(Plain):
    """Stands still for its first ten steps, with a decay that it takes from then on."""

    def __init__(self, params, lr=1e-2, weight_decay=0.0):
        super().__init__(params, lr)
        self.taken = 0

    def step(self):
        self.taken += 1
        if self.taken > 10:
            super().step()


class Swallows(Plain):
    """Takes any argument and reads none but the rate."""

    def __init__(self, params, lr=1e-2, **rest):
        super().__init__(params, lr)
        for group in self.param_groups:
            group.update(rest)


class Coded(Plain):
    """Momentum in a coarser dtype of its own, decoded where it is needed, as of 8 bits."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                m = (state["code"].to(p) * state["unit"] if state else torch.zeros_like(p)) * 0.9 + p.grad
                state["unit"] = m.abs().max() / 127 if m.numel() else m.sum()
                state["code"] = (m / state["unit"]).round().to(torch.int8)
                p.sub_(group["lr"] * state["code"].to(p) * state["unit"])


class SignOfSum(Plain):
    """The sign of a velocity, which hardly changes with its momentum."""

    def __init__(self, params, lr=1e-3, momentum=0.9):
        optim.Optimizer.__init__(self, params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                velocity = self.state[p].setdefault("velocity", torch.zeros_like(p))
                p.sub_(group["lr"] * velocity.mul_(group["momentum"]).add_(p.grad).sgn())


class WritesRates(Plain):
    """Sets its own rate at each step."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            group["lr"] *= 0.9
        super().step()


@pytest.mark.parametrize(
    "optimizer",
    [
        *(Plain, Refuses, Alternating, ByLoss, TwicePerStep, Drawn, Waiting, Swallows, Coded),
        *(SignOfSum, WritesRates),
    ],
)
def test_what_a_part_refuses_or_does_its_own_way_is_no_failure(optimizer):
    results = {law: found(law, optimizer) for law in CONTRACT}
    assert [law for law, one in results.items() if one and not one.holds] == []


def test_seeding_a_step_is_that_of_torch_and_notes_nothing_for_devices_that_are_not_there():
    queued = torch.cuda._queued_calls
    with unchanged():
        before = len(queued)
        seed_all(3)
        ours, after = torch.rand(4), len(queued)
        torch.manual_seed(3)
        assert torch.equal(ours, torch.rand(4))
    assert after == before or torch.accelerator.is_available()


def test_a_row_says_what_is_not_offered(monkeypatch):
    monkeypatch.setattr(checking, "LAWS", {name: LAWS[name] for name in CONTRACT})
    stack = Stack(optimizer=Refuses)
    rows = {row.name: row for row in check_laws(stack, stack, Reference()) if row.name in CONTRACT}
    assert rows.keys() == set(CONTRACT)
    assert [name for name, row in rows.items() if row.verdict == FAIL] == []
    assert rows["group-added"].verdict == NOT_APPLICABLE
    assert rows["group-added"].note == "not offered: a group that is added (NotImplementedError: one group)"
    assert "no copies" in rows["copies"].note


class DecaysGradients(SGD):
    """Adds decay into the gradients, to save memory."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad.add_(p, alpha=self.param_groups[0]["weight_decay"])
            p.sub_(self.param_groups[0]["lr"] * p.grad)


def test_a_step_that_writes_into_gradients_is_told_of_and_no_failure():
    one, other = found("zero-grad", DecaysGradients), found("zero-grad", SGD)
    assert one.holds
    assert one.what == f"{other.what}; a step writes into gradients"


def test_a_pickle_that_cannot_be_is_told_beside_a_copy_that_can():
    class Local(SGD):
        pass

    one = found("copies", Local)
    assert one.holds
    assert "not offered: a pickle" in one.what


def test_gradients_that_draw_from_nobody_elses_stream_leave_the_callers_as_it_was():
    before = torch.get_rng_state()
    assert found("copies", optim.Adam).holds
    assert torch.equal(before, torch.get_rng_state())


def test_a_quick_check_stops_at_what_it_is_and_the_contract():
    rows = [row.name for row in check(Stack(optimizer=optim.Adam), quick=True)]
    assert rows == ["moves", "recognised", *CONTRACT]


class Asks(SGD):
    def step(self, closure):
        return super().step(closure)


class NoRate(SGD):
    """Keeps its rate beside its groups."""

    def __init__(self, params, lr):
        super().__init__(params, lr)
        self.rate = self.param_groups[0].pop("lr")

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.sub_(self.rate * p.grad)


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: Asks([torch.ones(1)], lr=1).step(),
        lambda: SGD([torch.ones(1)], lr=1).eval(),
        lambda: SGD([torch.ones(1)], no_such=1),
        lambda: SGD([torch.ones(1)], lr=-1),
        lambda: torch.ones(1).backward(),
    ],
    ids=["closure", "attribute", "argument", "value", "torch"],
)
def test_what_a_part_refuses_is_not_offered(refusal):
    with pytest.raises(NotOfferedError, match="not offered: this"), offered("this"):
        refusal()


def test_a_bug_of_a_law_is_no_refusal_of_a_part(monkeypatch):
    monkeypatch.setattr(settings, "beside", None)
    with pytest.raises(TypeError, match="not callable"):
        found("maximize", optim.Adam)


def test_a_rate_that_no_group_holds_cannot_be_set_and_is_no_failure():
    assert found("tensor-rate", NoRate) is None
    assert found("scheduled", NoRate) is None


def test_a_rate_that_is_annotated_as_a_float_is_given_no_tensor():
    class OfFloats(ScalesItsRate):
        def __init__(self, params, lr: float = 0.1):
            super().__init__(params, lr)

    assert found("tensor-rate", OfFloats) is None
    assert not found("tensor-rate", ScalesItsRate).holds

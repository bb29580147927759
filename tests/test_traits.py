"""Traits: an optimizer is what it does."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from identity_props.conformance.checking import FAMILIES, for_laws
from identity_props.conformance.facts import FACTS, dtypes_of
from identity_props.conformance.traits import TRAITS, traits
from identity_props.laws import LAWS
from identity_props.stack.stack import DTYPES, Stack

SGD, Adam = torch.optim.SGD, torch.optim.Adam
PLAIN = {
    "affine layer",
    "relu",
    "symmetric init",
    "mean squared error",
    "squared error",
    "repeatable in training",
    "taking float32",
    "keeping its buffers",
    "one rank",
    "torch's own network",
}
GIVEN = {
    "stepping on given gradients",
    "taking gradients uncentred",
    "for any shape",
    "rounding to nearest",
    "without noise",
    "stepping the same again",
} | PLAIN


def of(names):
    """Those that are elementwise as well as of entries that know nothing of each other."""
    found = set(names.split(", "))
    return found | {"each entry for itself"} if "elementwise" in found else found


class Renamed(SGD):
    """Gradient descent under another name, with arguments of its own."""

    def __init__(self, params, lr, verbose=True):
        super().__init__(params, lr)


@pytest.mark.parametrize(
    ("stack", "fits"),
    [
        (Stack(optimizer=SGD), "gradient-descent, momentum, decay, still, elementwise, implementations"),
        (
            Stack(optimizer=SGD, arguments={"momentum": 0.5}),
            "momentum, still, elementwise, implementations",
        ),
        (
            Stack(optimizer=SGD, arguments={"nesterov": True, "momentum": 0.5}),
            "still, elementwise, implementations",
        ),
        (Stack(optimizer=Renamed), "gradient-descent, still, elementwise"),
        (Stack(optimizer=Adam), "adam, adam throughout, scale-free, still, elementwise, implementations"),
        (Stack(optimizer=torch.optim.AdamW), "scale-free, elementwise, implementations"),
        (Stack(optimizer=torch.optim.RMSprop), "rmsprop, scale-free, still, elementwise, implementations"),
        (Stack(optimizer=torch.optim.Adafactor), "still, implementations"),
    ],
    ids=lambda value: value.describe()["optimizer"] if isinstance(value, Stack) else "",
)
def test_an_optimizer_has_the_traits_that_it_shows(stack, fits):
    assert traits(stack) == GIVEN | of(fits)


def test_an_optimizer_of_matrices_says_so():
    found = traits(Stack(optimizer=torch.optim.Muon)) - PLAIN
    assert found == {
        "scale-free",
        "stepping on given gradients",
        "taking gradients uncentred",
        "rounding to nearest",
        "without noise",
        "stepping the same again",
    }


def test_an_optimizer_that_wants_a_closure_has_the_traits_that_need_no_steps():
    assert traits(Stack(optimizer=torch.optim.LBFGS)) == PLAIN | {"without noise", "stepping the same again"}


def test_a_stack_without_an_optimizer_of_its_own_has_every_trait_of_optimizers():
    assert traits(Stack()) == set(TRAITS) | PLAIN


def test_laws_need_what_can_be_found():
    assert set().union(*(law.needs for law in LAWS.values())) <= {*TRAITS, *FACTS}


def before_each_step(change):
    """Gradient descent on gradients of matrices that are changed."""

    class Changed(SGD):
        def step(self, closure=None):
            for p in (p for group in self.param_groups for p in group["params"]):
                if p.grad is not None and p.ndim > 1 and p.numel():
                    p.grad = change(p.grad)
            return super().step(closure)

    return Changed


def centralised(g):
    return g - g.mean(dim=tuple(range(1, g.ndim)), keepdim=True)


def in_blocks(g, size=64):
    """Rounded to 8 bits, each block of entries on a scale of its own."""
    blocks = nn.functional.pad(g.flatten(), (0, -g.numel() % size)).view(-1, size)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-30) / 127
    return ((blocks / scale).round() * scale).flatten()[: g.numel()].view_as(g)


@pytest.mark.parametrize(
    ("change", "lost", "law"),
    [
        (centralised, "taking gradients uncentred", "dead-columns"),
        (in_blocks, "elementwise", "elementwise"),
    ],
)
def test_a_law_says_nothing_of_what_mixes_a_matrix_s_entries_on_purpose(change, lost, law):
    stack = Stack(optimizer=before_each_step(change))
    assert traits(Stack(optimizer=before_each_step(lambda g: g))) >= {lost} | LAWS[law].needs
    assert lost not in traits(stack)
    case = FAMILIES[2].case(1)
    assert not LAWS[law].measure(for_laws(replace(stack, dtype=torch.float64), frozenset()), case).holds


def noisy(draw):
    """Gradient descent whose steps are off by what is drawn."""
    return before_each_step(lambda g: g + 1e-3 * draw(g))


class Projecting(SGD):
    """Takes no step along the weights where the gradient lies almost across them, as AdamP."""

    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"]):
            along = (p * p.grad).sum() / p.square().sum()
            if (along * p).norm() < 0.1 * p.grad.norm():
                p.grad = p.grad - along * p.detach()
        return super().step(closure)


class InFloat32(SGD):
    """Computes in float32, whatever its parameters are."""

    def step(self, closure=None):
        with torch.no_grad():
            for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
                p.copy_(p.float() - self.param_groups[0]["lr"] * p.grad.float())


@pytest.mark.parametrize(
    ("optimizer", "lost"),
    [
        (noisy(torch.randn_like), {"without noise", "still"}),
        (noisy(lambda g: torch.randn(g.shape, generator=torch.Generator().manual_seed(0)).to(g)), {"still"}),
        (before_each_step(lambda g: g * np.random.default_rng().random()), {"stepping the same again"}),
        (Projecting, {"still"}),
        (InFloat32, {"still"}),
    ],
    ids=["draws", "draws of its own", "draws that none can seed", "projects", "rounds"],
)
def test_what_draws_or_projects_or_rounds_promises_less(optimizer, lost):
    assert not lost & traits(Stack(optimizer=optimizer))


@pytest.mark.parametrize("draw", [lambda: random.random(), lambda: np.random.rand()], ids=["python", "numpy"])
def test_what_draws_from_a_generator_that_can_be_seeded_steps_the_same_again(draw):
    stack = Stack(optimizer=before_each_step(lambda g: g * draw()))
    assert "stepping the same again" in traits(stack)
    for name in ("resume", "evaluate"):
        assert LAWS[name].measure(replace(stack, lr=1 / 128), FAMILIES[0].case(1)).holds


def test_nan_is_no_noise():
    assert {"without noise", "stepping the same again"} <= traits(
        Stack(optimizer=before_each_step(lambda g: g * torch.nan))
    )


def test_an_adaptive_step_whose_gradients_are_clipped_is_of_no_scale():
    class Clipped(Adam):
        def step(self, closure=None):
            for group in self.param_groups:
                for p in group["params"]:
                    p.grad = p.grad / p.grad.norm().clamp_min(1.0)
            return super().step(closure)

    assert "scale-free" not in traits(Stack(optimizer=Clipped))


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Factored(nn.Module):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.u, self.v = (nn.Parameter(torch.randn(n, 2)) for n in (fan_out, fan_in))

    def forward(self, x):
        return x @ self.v @ self.u.T


class Dropping(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


class Normed(nn.Linear):
    """With a batch norm after it."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__(fan_in, fan_out, bias=bias)
        self.norm = nn.BatchNorm1d(fan_out)

    def forward(self, x):
        return self.norm(super().forward(x))


@pytest.mark.parametrize(
    ("part", "lost", "found"),
    [
        ({"linear": Doubled}, {"affine layer"}, set()),
        ({"linear": Factored}, {"affine layer"}, set()),
        ({"activation": torch.tanh}, {"relu"}, set()),
        ({"activation": nn.functional.relu}, set(), set()),
        ({"init": lambda layer: nn.init.eye_(layer.weight)}, {"symmetric init"}, set()),
        ({"loss": nn.functional.l1_loss}, {"mean squared error", "squared error"}, set()),
        ({"loss": lambda a, b: (a - b).square().sum()}, {"mean squared error"}, set()),
        (
            {"linear": Dropping},
            {"affine layer", "repeatable in training"},
            {"drawing around an affine layer"},
        ),
        ({"activation": nn.Dropout(0.2)}, {"relu", "repeatable in training"}, set()),
        ({"linear": Normed}, {"affine layer", "keeping its buffers"}, set()),
        ({"mode": "compiled"}, set(), {"another device or mode or ranks"}),
        ({"ranks": 2}, {"one rank"}, {"several ranks", "another device or mode or ranks"}),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_stack_s_other_parts_have_the_traits_that_they_show(part, lost, found):
    own = set() if "init" in part else {"torch's own network"}
    assert traits(Stack(**part)) == (set(TRAITS) | PLAIN) - lost - own | found


class AtEveryEighth(SGD):
    """Gradient descent, but for every eighth step, which goes back half the way (lookahead)."""

    steps = 0

    def step(self, closure=None):
        super().step(closure)
        self.steps += 1
        for p in self.param_groups[0]["params"]:
            slow = self.state[p].setdefault("slow", p.detach().clone())
            if self.steps % 8 == 0:
                p.data.copy_(slow.lerp_(p.data, 0.5))


class CountsParameters(Adam):
    """Its step counter goes on at each parameter."""

    def step(self, closure=None):
        for k, p in enumerate(self.param_groups[0]["params"]):
            if self.state[p]:
                self.state[p]["step"].add_(k)
        return super().step(closure)


class NormOfAll(SGD):
    """Clips by the norm of all gradients."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 1.0)
        return super().step(closure)


@pytest.mark.parametrize(
    ("optimizer", "lost"),
    [
        (AtEveryEighth, {"gradient-descent", "momentum", "decay"}),
        (CountsParameters, {"adam throughout"}),
        (NormOfAll, {"gradient-descent", "momentum", "decay", "each entry for itself"}),
    ],
)
def test_a_trait_that_holds_at_first_or_of_one_parameter_is_none(optimizer, lost):
    assert not lost & traits(Stack(optimizer=optimizer))
    assert lost <= traits(Stack(optimizer=optimizer.__base__))


class Rounded(SGD):
    """Rounds bfloat16 at random."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.dtype == torch.bfloat16:
                bits = (p.float() - self.param_groups[0]["lr"] * p.grad.float()).view(torch.int32)
                p.copy_(
                    (bits + torch.randint_like(bits, 0, 1 << 16)).bitwise_and_(-65536).view(torch.float32)
                )
            else:
                p.sub_(self.param_groups[0]["lr"] * p.grad)


def test_what_rounds_at_random_is_told_from_what_rounds_to_nearest():
    found = traits(Stack(optimizer=Rounded))
    assert "rounding at random" in found
    assert "rounding to nearest" not in found
    assert "gradient-descent" in found


class Float32Alone(nn.Linear):
    def forward(self, x):
        if x.dtype != torch.float32:
            raise TypeError("float32 alone")
        return super().forward(x)


@pytest.mark.parametrize(
    ("layer", "taken"),
    [(nn.Linear, tuple(DTYPES.values())), (Float32Alone, (torch.float32,))],
)
def test_parts_are_judged_in_the_dtypes_that_they_take(layer, taken):
    assert dtypes_of(Stack(linear=layer)) == taken
    assert "affine layer" in traits(Stack(linear=layer))

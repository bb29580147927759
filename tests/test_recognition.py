"""Recognition: what is published is named, a known slip is named with it, and what is its own is not accused."""

from contextlib import suppress
from functools import partial

import pytest
import torch

from identity_props import recognise
from identity_props.conformance import alongside
from identity_props.conformance.checking import FAMILIES, check, check_laws
from identity_props.conformance.observed import Part
from identity_props.conformance.papers import of_paper
from identity_props.conformance.recognised import DEPARTS, IS, NONE, WRONG
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS, Reference, reference_of
from identity_props.errors import InputError
from identity_props.faults.optimizers import FAULTS, TWINS
from identity_props.laws import LAWS
from identity_props.laws.walking import NotOfferedError
from identity_props.stack.guard import HangError
from identity_props.stack.stack import Stack
from identity_props.task.algorithms import ALGORITHMS
from identity_props.task.algorithms.conventions import (
    COUNTER_SLIPS,
    COUNTERS,
    DECAY_SLIPS,
    DECAYS,
    IDLE_SLIPS,
    STEP_SLIPS,
    idle_decay,
)
from identity_props.task.algorithms.descent import LOOKS_AHEAD
from tests.unfamiliar import CLEAN, CLEAN_BY_LAW, FAULTY, ClippedAdam, CoupledSGDW, Differences

OPTIM = torch.optim
EXACT = [name for name, algorithm in ALGORITHMS.items() if algorithm.rounding <= 1e-6]
MIMICS = {"sophia"}  # a step on a diagonal that nothing here estimates


def paper(name, step=None, **defaults):
    """The algorithm as an optimizer, with another step or other defaults."""
    cls = of_paper(name)
    algorithm = cls.algorithm
    changed = type(algorithm)(**{**vars(algorithm), "step": step or algorithm.step})
    return partial(type(name, (cls,), {"algorithm": changed}), **defaults)


# What is published --------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (OPTIM.SGD, "sgd"),
        (partial(OPTIM.SGD, momentum=0.9, nesterov=True, weight_decay=0.1), "sgd"),
        (partial(OPTIM.SGD, momentum=0.9, dampening=0.5), "sgd"),
        (partial(OPTIM.SGD, maximize=True), "sgd"),
        (OPTIM.ASGD, "asgd"),
        (OPTIM.Rprop, "rprop"),
        (OPTIM.RMSprop, "rmsprop"),
        (partial(OPTIM.RMSprop, centered=True, momentum=0.9), "rmsprop"),
        (OPTIM.Adagrad, "adagrad"),
        (OPTIM.Adadelta, "adadelta"),
        (OPTIM.Adafactor, "adafactor"),
        (OPTIM.Adam, "adam"),
        (partial(OPTIM.Adam, amsgrad=True), "amsgrad"),
        (partial(OPTIM.Adam, fused=True), "adam"),
        (partial(OPTIM.Adam, betas=(0.0, 0.9), eps=1e-3), "adam"),
        (OPTIM.AdamW, "adamw"),
        (OPTIM.Adamax, "adamax"),
        (OPTIM.NAdam, "nadam"),
        (partial(OPTIM.NAdam, decoupled_weight_decay=True, weight_decay=0.1), "nadam"),
        (OPTIM.RAdam, "radam"),
        (OPTIM.Muon, "muon"),
    ],
)
def test_torchs_optimizers_are_recognised(make, name):
    found = recognise(make)
    assert (found.verdict, found.algorithm.name) == (IS, name), found.note
    assert found.distance <= found.near


@pytest.mark.parametrize("make", [OPTIM.LBFGS, OPTIM.SparseAdam])
def test_one_that_does_not_step_on_given_gradients_is_no_known_one(make):
    assert recognise(make).verdict == NONE


@pytest.mark.thorough
@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_itself_or_one_that_equals_it(name):
    found = recognise(paper(name))
    assert found.verdict == IS or name in MIMICS, found.note


def each_once(pairs):
    """Each way of the first algorithm that has it; that of the others is slow."""
    first = {way: name for name, way in reversed(pairs)}
    slow = pytest.mark.slow
    return [pytest.param(name, way, marks=[slow] * (first[way] != name)) for name, way in pairs]


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "way"),
    each_once([(n, w) for n, a in ALGORITHMS.items() for w in a.variants if not w.startswith(LOOKS_AHEAD)]),
)
def test_what_packages_do_on_purpose_is_not_accused(name, way):
    found = recognise(paper(name, ALGORITHMS[name].variants[way]))
    assert found.verdict == IS, found.note


@pytest.mark.thorough
@pytest.mark.parametrize("way", [*DECAYS, *COUNTERS])
@pytest.mark.parametrize("name", ["adamw", "nadam"])
def test_a_convention_that_papers_leave_open_is_not_accused(name, way):
    found = recognise(paper(name, {**DECAYS, **COUNTERS}[way](ALGORITHMS[name].step), weight_decay=0.0))
    assert not found.accused, found.note


class Uncorrected(OPTIM.Optimizer):
    """Adam's averages as they are."""

    correct = False

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            one, two = group["betas"]
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p] or self.state[p].update(m=p * 0, v=p * 0, t=0) or self.state[p]
                state["t"] += 1
                state["m"].lerp_(p.grad, 1 - one)
                state["v"].lerp_(p.grad.square(), 1 - two)
                t = state["t"] if self.correct else 10**6
                rate = group["lr"] * (1 - two**t) ** 0.5 / (1 - one**t)
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.addcdiv_(state["m"], state["v"].sqrt() + group["eps"], value=-rate)


class Switched(Uncorrected):
    """Adam's averages, corrected if asked."""

    def __init__(self, params, lr=1e-3, correct_bias=True, **rest):
        super().__init__(params, lr, **rest)
        self.correct = correct_bias


class Documented(Uncorrected):
    """BERT's Adam: moments without bias correction, as Devlin et al. 2019."""


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Documented, "correct_bias=False"),
        (partial(Switched, correct_bias=False), "correct_bias=False"),
        (Switched, "correct_bias=True"),
    ],
)
def test_moments_that_are_not_corrected_as_a_switch_or_its_docstring_says_are_no_fault(make, said):
    found = recognise(make)
    assert found.verdict == IS, found.note
    assert said in found.note


def test_a_correction_that_is_forgotten_is_named():
    found = recognise(Uncorrected)
    assert found.verdict == WRONG, found.note
    assert "not corrected for their start at 0" in found.note


def test_of_algorithms_that_are_the_same_there_the_one_is_named_whose_arguments_are_shown():
    step = ALGORITHMS["adamw"].variants["eps not corrected, as section 2 of Adam's paper"]
    assert recognise(paper("adamw", step, weight_decay=0.0)).algorithm.name in ("adam", "adamw")
    assert recognise(paper("adabound")).algorithm.name == "adabound"


def test_projections_show_where_gradients_are_orthogonal_to_weights():
    assert recognise(of_paper("adamp")).algorithm.name == "adamp"
    assert recognise(of_paper("sgdp")).algorithm.name == "sgdp"


class Swallows(OPTIM.SGD):
    """Takes whatever it is given, decay too, and shows it; it has none."""

    def __init__(self, params, lr=1e-2, **rest):
        super().__init__(params, lr)
        for group in self.param_groups:
            group.update(rest)

    def step(self, closure=None):
        shown = [{**group} for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = 0.0
        super().step(closure)
        for group, kept in zip(self.param_groups, shown, strict=True):
            group.update(kept)


def test_who_swallows_a_decay_that_it_does_not_name_does_not_promise_it():
    assert not recognise(Swallows).accused


# Slips ------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "slip"), each_once([(n, s) for n in EXACT for s in ALGORITHMS[n].slips]))
def test_a_slip_of_an_algorithm_is_named(name, slip):
    arguments = {"momentum": 0.9} if "momentum" in ALGORITHMS[name].defaults else {}
    found = recognise(paper(name, ALGORITHMS[name].slips[slip], **arguments))
    assert found.accused, found.note


@pytest.mark.thorough
@pytest.mark.parametrize("slip", [*STEP_SLIPS, *COUNTER_SLIPS, *IDLE_SLIPS])
@pytest.mark.parametrize("name", ["adam", "nadam"])
def test_a_slip_that_any_can_have_is_named(name, slip):
    ways = {**STEP_SLIPS, **COUNTER_SLIPS, **IDLE_SLIPS}
    found = recognise(paper(name, ways[slip](ALGORITHMS[name].step)))
    assert found.verdict == WRONG, found.note
    assert slip in found.note
    assert found.algorithm.name in ("adam", "adamw", "nadam")


@pytest.mark.parametrize("slip", DECAY_SLIPS)
def test_decay_that_goes_wrong_is_named(slip):
    class Named(paper("adam", DECAY_SLIPS[slip](ALGORITHMS["adam"].step)).func):
        def __init__(self, params, lr, weight_decay=0.0):
            super().__init__(params, lr=lr, weight_decay=weight_decay)

    found = recognise(Named)
    assert found.verdict == WRONG, found.note
    assert slip in found.note


def test_decay_of_what_has_no_gradient_is_named():
    found = recognise(paper("adamw", idle_decay(ALGORITHMS["adamw"].step)))
    assert found.verdict == WRONG
    assert "without gradient decayed" in found.note


UNNAMED = {
    "gradient-clipped",
    "weights-rounded",
    "copies-trained",
}  # no algorithm is near, or it moves nothing
WHOLE = {"decay-decoupled", "clip-unreached"}  # AdamW, and what is equivalent


@pytest.mark.thorough
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_an_optimizers_fault_of_the_audit_is_accused(fault):
    found = recognise(fault.parts["optimizer"])
    assert found.verdict == (NONE if fault.name in UNNAMED else IS if fault.name in WHOLE else found.verdict)
    assert found.accused == (fault.name not in UNNAMED | WHOLE), found.note


@pytest.mark.parametrize("twin", TWINS.values(), ids=lambda twin: twin.name)
def test_its_twin_is_not(twin):
    assert recognise(twin.stack.optimizer).verdict == IS


class Large(OPTIM.Adam):
    """The first row of a large parameter is left out."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            if p.grad is not None and p.numel() > 2**16:
                p.grad[0] = 0
        super().step()


class ForgetsMomentum(OPTIM.Adam):
    """A load loses the first moments."""

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["exp_avg"].zero_()


class NoAmsgrad(OPTIM.Adam):
    """Takes amsgrad and ignores it."""

    def __init__(self, params, lr=1e-3, weight_decay=0.0, amsgrad=False):
        super().__init__(params, lr, weight_decay=weight_decay)


class FirstDecay(OPTIM.AdamW):
    """All groups decay by the first one's."""

    def step(self, closure=None):
        own = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            group["weight_decay"] = own[0]
        super().step()
        for group, decay in zip(self.param_groups, own, strict=True):
            group["weight_decay"] = decay


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (Large, "with a large parameter"),
        (ForgetsMomentum, "saved and loaded"),
        (NoAmsgrad, "the same with amsgrad=True and without"),
        (FirstDecay, "by the first one's decay"),
    ],
)
def test_what_goes_wrong_in_a_circumstance_is_told(make, said):
    found = recognise(make)
    assert found.accused
    assert said in found.note


@pytest.mark.thorough
@pytest.mark.parametrize(("make", "slip"), FAULTY.items())
def test_a_fault_in_an_unfamiliar_style_is_named(make, slip):
    found = recognise(make)
    assert found.verdict == WRONG, found.note
    assert slip in found.note


@pytest.mark.thorough
@pytest.mark.parametrize("make", CLEAN)
def test_a_clean_one_in_an_unfamiliar_style_is_not_accused(make):
    found = recognise(make)
    assert not found.accused, found.note


def test_adam_of_gradients_clipped_by_their_norm_is_no_adagc_for_its_warmup():
    assert recognise(ClippedAdam).verdict == NONE


@pytest.mark.parametrize(("make", "law"), CLEAN_BY_LAW.items())
def test_a_clean_one_in_an_unfamiliar_style_fails_no_law_of_the_contract(make, law):
    stack = Stack(optimizer=make, dtype=torch.float64)
    with suppress(NotOfferedError):
        found = LAWS[law].measure(stack, FAMILIES[0].case(1))
        assert found.holds, found


def test_one_that_takes_differences_of_losses_moves():
    """It calls its closure with gradients switched off."""
    moves = next(iter(check(Stack(optimizer=Differences))))
    assert (moves.name, moves.verdict) == ("moves", PASS), moves


@pytest.mark.parametrize("name", ["SGDWrapper", "SGDWD", "Other"])
def test_coupled_decay_is_a_fault_by_name_alone(name):
    assert not recognise(type(name, (CoupledSGDW,), {})).accused


def test_muon_gone_wrong_is_told_apart_by_its_own_slips_within_its_rounding():
    slips = ALGORITHMS["muon"].slips
    for way, step in slips.items():
        found = recognise(paper("muon", step))
        assert found.verdict == WRONG, found.note
        assert way in found.note


# What is its own --------------------------------------------------------------------------------------------


class Lookahead(OPTIM.SGD):
    """Every fifth step goes half of the way."""

    def step(self, closure=None):
        slow = self.__dict__.setdefault("slow", {})
        for p in (p for group in self.param_groups for p in group["params"]):
            slow.setdefault(p, p.detach().clone())
        super().step(closure)
        self.k = getattr(self, "k", 0) + 1
        with torch.no_grad():
            for p, before in slow.items():
                if self.k % 5 == 0:
                    p.copy_(before.lerp_(p, 0.5))


class Clips(OPTIM.Adam):
    """Gradients of a parameter are at most 5 long."""

    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            p.grad.mul_((5 / p.grad.norm()).clamp_max(1))
        super().step(closure)


class Noisy(OPTIM.SGD):
    """Adds noise."""

    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            p.grad += torch.randn_like(p.grad) / 10
        super().step(closure)


class HearsLoss(OPTIM.Adam):
    """Its rate follows the loss, where it is told one; and it does not correct its averages."""

    def step(self, closure=None):
        loss = 1.0 if closure is None else float(closure())
        for group in self.param_groups:
            group["kept"], group["lr"] = group["lr"], group["lr"] * loss
        super().step()
        for group in self.param_groups:
            group["lr"] = group.pop("kept")


class Raises(OPTIM.SGD):
    """It raises at its third step."""

    def step(self, closure=None):
        self.k = getattr(self, "k", 0) + 1
        if self.k == 3:
            raise RuntimeError("no more")


class Slows(OPTIM.SGD):
    """Its rate falls to half after 30 steps."""

    def step(self, closure=None):
        self.k = getattr(self, "k", 0) + 1
        for group in self.param_groups:
            group["lr"] /= 1 + (self.k > 30)
        super().step()


def test_a_lookahead_that_saves_no_slow_weights_is_told():
    found = recognise(Lookahead)
    assert found.verdict == WRONG, found.note
    assert "a load lost the state" in found.note


@pytest.mark.thorough
@pytest.mark.parametrize("make", [Clips, Noisy, HearsLoss, Raises, Slows])
def test_an_algorithm_of_its_own_is_not_accused(make):
    found = recognise(make)
    assert found.verdict == NONE, found.note


def test_none_known_tells_the_nearest_and_how_far_it_is():
    found = recognise(Clips)
    assert found.algorithm.name == "adam"
    assert "apart by" in found.note


# Ways that are kept -------------------------------------------------------------------------------------------


def test_a_way_that_was_gone_before_says_what_a_new_one_says():
    found = []
    for _ in range(2):
        for kept in (alongside._kept_of_one, alongside._kept_of_all):
            kept.cache_clear()
        cold, warm = recognise(paper("nadam")), recognise(paper("nadam"))
        assert vars(cold) == vars(warm)
        found.append(vars(cold))
    assert found[0] == found[1]


def test_a_way_that_was_broken_off_is_gone_from_its_start():
    def step(cells, arguments):
        cells[0].memory["t"] = cells[0].memory.get("t", 0) + 1
        if cells[0].memory["t"] == 3 and rings.pop():
            raise HangError
        cells[0].w = cells[0].w + cells[0].memory["t"]

    rings, even = [False, True], alongside.even_course(0, 4)
    way = alongside.Way(step, even, [{}], alongside.AS_IT_IS)
    with pytest.raises(HangError):
        way.after(3)
    gone = way.after(3) - way.after(0)
    assert torch.allclose(gone[:20], torch.full((20,), 2.0 + 3 + 4, dtype=gone.dtype))


def test_settings_that_may_change_keep_no_way():
    of = [{"betas": (torch.tensor(0.9), 0.999)}]
    assert alongside.given(of).key is None
    assert alongside.given([{"betas": (0.9, 0.999)}]).key is not None


# The row ----------------------------------------------------------------------------------------------------


class SlowLast(OPTIM.AdamW):
    """Its last parameter is left out."""

    def step(self, closure=None):
        self.param_groups[-1]["params"][-1].grad = None
        super().step(closure)


def row(optimizer, like=None):
    stack = Stack(optimizer=optimizer)
    rows = check_laws(stack, stack, like or Reference())
    return next((row for row in rows if row.name == "recognised"), None)


@pytest.mark.usefixtures("one_family")
def test_the_row_passes_fails_or_does_not_apply():
    assert row(OPTIM.AdamW).verdict == PASS
    assert (row(SlowLast).verdict, row(SlowLast).kind) == (FAIL, "wrong step")
    assert row(Clips).verdict == NOT_APPLICABLE


@pytest.mark.usefixtures("one_family")
def test_one_that_says_it_is_novel_does_not_fail():
    assert recognise(SlowLast).verdict == DEPARTS
    assert row(SlowLast, Reference(novel=True)).verdict == NOT_APPLICABLE


@pytest.mark.usefixtures("one_family")
def test_one_that_is_declared_to_be_like_another_is_not_recognised():
    assert row(OPTIM.AdamW, Reference(OPTIM.AdamW)) is None


def test_novel_wants_an_optimizer():
    with pytest.raises(InputError, match="novel"):
        reference_of(Stack(), novel=True)


# Papers -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_family")
def test_a_paper_is_a_reference_by_name():
    like = reference_of(Stack(optimizer=OPTIM.Adam), "paper:adam", ["eps=1e-3"])
    assert (
        next(
            r for r in check_laws(Stack(optimizer=OPTIM.Adam), Stack(), like) if r.name == "like-optimizer"
        ).verdict
        == FAIL
    )
    like = reference_of(Stack(optimizer=OPTIM.Adam), "paper:adam")
    assert (
        next(
            r for r in check_laws(Stack(optimizer=OPTIM.Adam), Stack(), like) if r.name == "like-optimizer"
        ).verdict
        == PASS
    )


def test_a_paper_that_is_not_known_names_what_is_near():
    with pytest.raises(InputError, match="adamw"):
        of_paper("paper:adamww")


def test_a_paper_takes_its_own_arguments_alone():
    with pytest.raises(InputError, match="betas"):
        of_paper("paper:adam")([torch.nn.Parameter(torch.ones(2))], momentum=0.9)


def test_what_a_paper_evaluates_is_shown_and_gone_again():
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = of_paper("paper:schedule-free-sgd")([p], lr=0.1)
    for _ in range(3):
        p.grad = torch.ones_like(p)
        optimizer.step()
    trained = p.detach().clone()
    optimizer.eval()
    assert (p != trained).all()
    optimizer.train()
    assert (p == trained).all()


def test_a_walk_is_taken_with_matrices_alone_where_vectors_are_refused():
    assert Part(OPTIM.Muon, 0).layout == (True, False)

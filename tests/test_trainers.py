"""The laws of trainers: the plain loop keeps them all, each can fail, conventions are named, users are not accused."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from identity_props.conformance.rows import DESIGN, FAIL, NOT_APPLICABLE, PASS
from identity_props.conformance.training import TRAINS, check_trainer, row_of
from identity_props.errors import InputError
from identity_props.faults.trainer_data import EvaluationDraws, OneStream, Unshuffled
from identity_props.faults.trainers import TRAINER_FAULTS
from identity_props.trainers import TRAINER_LAWS, Bench
from identity_props.trainers.bench import in_dtype
from identity_props.trainers.plain import Plain, trained
from identity_props.trainers.protocol import NotOffered, Trained, TrainedError, trained_by, weights_of
from tests import user_trainers
from tests.test_trainer_audit import NAMED
from tests.user_styles import endless, ramped

RANKS = [name for name in TRAINER_LAWS if name.startswith("ranks")]
TOKENS = [name for name in TRAINER_LAWS if name.startswith("tokens")]
ALONE = [name for name in TRAINER_LAWS if name not in RANKS]


def together(fit, asked):
    """Two ranks as one process would be, each with what is left: what their gradients are is a fit's own affair."""
    return [[left, left] for left in (trained_by(fit, one) for one in asked)]


def trained_as_one(loop, asked):
    """Data-parallel training of ranks that see each batch together, each its part."""
    return trained(loop, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))


as_one = partial(trained_as_one, Plain)


def row(name, fit, accept=(), designs=None, seed=0):
    bench = Bench(fit, spread=partial(together, fit), seed=seed, ranks=2)
    return row_of(TRAINER_LAWS[name], bench, accept, designs)


def verdicts(fit, seed=0, **options):
    return {one.name: one.verdict for one in check_trainer(Bench(fit, seed=seed), **options)}


# The plain loop ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_plain_loop_keeps_every_law(seed):
    found = verdicts(partial(trained, Plain), seed)
    assert found == {TRAINS: PASS, **dict.fromkeys(ALONE, PASS), **dict.fromkeys(RANKS, NOT_APPLICABLE)}


@pytest.mark.parametrize("name", RANKS)
def test_ranks_that_are_one_keep_the_laws_of_ranks(name):
    assert row(name, as_one).verdict == PASS


@pytest.mark.audit
@pytest.mark.parametrize("first", range(100, 300, 25))
def test_it_does_so_with_two_hundred_seeds(first):
    for seed in range(first, first + 25):
        assert FAIL not in verdicts(partial(trained, Plain), seed).values(), seed


# Every law can fail -----------------------------------------------------------------------------------


class CountsTwice(Plain):
    def update(self):
        super().update()
        self.steps += 1


class Backwards(Plain):
    def order(self, epoch):
        return super().order(epoch)[::-1]


class FirstTwice(Plain):
    def order(self, epoch):
        first, _, *others = super().order(epoch)
        return [first, first, *others]


class OverSize(Plain):
    def divisor(self, window):
        return self.asked.batch_size * self.asked.accumulate


class DropsLast(Plain):
    def micro_batches(self, epoch):
        return [one for one in super().micro_batches(epoch) if len(one) == self.asked.batch_size]


class KeepsLast(Plain):
    def micro_batches(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, drop_last=self.asked.drop_last and False)
        try:
            return super().micro_batches(epoch)
        finally:
            self.asked = kept


class Summed(Plain):
    def divisor(self, window):
        return super().divisor(window) / len(window)


class LastOfWindow(Plain):
    def divisor(self, window):
        return len(window) * len(window[-1])


class Drops(Plain):
    def windows(self, epoch):
        return [one for one in super().windows(epoch) if len(one) == self.asked.accumulate]


class Thaws(Plain):
    def trainable(self):
        for p in self.network.parameters():
            p.requires_grad_()
        return super().trainable()


class LastLoss(Plain):
    def reported(self):
        sums, number = self.losses[-1]
        return sums / number


class MeanOfMeans(Plain):
    def evaluate(self):
        if self.asked.held is not None:
            losses = [
                (self.network(x) - x).square().mean().item()
                for x in self.asked.held.split(self.asked.batch_size)
            ]
            self.evaluated = sum(losses) / len(losses)


class ClipsEach(Plain):
    def backward(self, batch, window):
        kept = [p.grad for p in self.trainable()]
        self.optimizer.zero_grad()
        super().backward(batch, window)
        super().clip()
        for p, before in zip(self.trainable(), kept, strict=True):
            p.grad = p.grad if before is None else p.grad + before

    def clip(self):
        pass


class Late(Plain):
    def factor(self, step):
        return super().factor(max(0, step - 1))


class AtWindowsEnds(Plain):
    """The rate is that of a window's last micro-batch."""

    def factor(self, step):
        size = self.asked.accumulate
        return super().factor(step + (size - 1) / size)


class MicroBatchesEnds(Plain):
    """So, counted in micro-batches, up to the end of the schedule."""

    def factor(self, step):
        size = self.asked.accumulate
        return max(0, super().factor(size * step + size - 1))


class Undamped(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["momentum"] = asked.momentum**2


class Forgets(Plain):
    def update(self):
        super().update()
        if self.asked.momentum and self.asked.schedule == "linear":
            self.optimizer.state.clear()


class HalfDecay(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] /= 2


class AveragesEach(Plain):
    def backward(self, batch, window):
        super().backward(batch, window)
        self.average()


class Decays(Plain):
    """The decay falls with the rate, which multiplies it."""

    def factor(self, step):
        found = super().factor(step)
        self.optimizer.param_groups[0]["weight_decay"] = self.asked.decay * found
        return found


class StaysInEvaluation(Plain):
    def evaluate(self):
        super().evaluate()
        self.network.eval()


class InEvaluation(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.network.eval()

    def evaluate(self):
        super().evaluate()
        self.network.eval()


class InHalf(Plain):
    def update(self):
        super().update()
        if self.asked.precision != "full":
            with torch.no_grad():
                for p in self.trainable():
                    p.copy_(p.bfloat16())


class Draws(Plain):
    def order(self, epoch):
        found = super().order(epoch)
        return torch.randperm(len(found)).tolist() if self.asked.shuffle else found


class SameOrder(Plain):
    def order(self, epoch):
        return super().order(0)


class OneSeed(Plain):
    def order(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, seed=self.asked.seed * 0)
        try:
            return super().order(epoch)
        finally:
            self.asked = kept


class LosesVelocity(Plain):
    def load(self):
        super().load()
        self.optimizer.state.clear()


class Replays(Plain):
    def load(self):
        super().load()
        self.read -= self.read % len(self.micro_batches(0))


class LosesWindow(Plain):
    def load(self):
        super().load()
        self.optimizer.zero_grad()


class Learns(Plain):
    def evaluate(self):
        super().evaluate()
        if self.asked.held is not None:
            with torch.no_grad():
                for p in self.network.parameters():
                    p.mul_(0.99)


class CountsPadding(Plain):
    def counted(self, batch):
        if self.asked.tokens is None:
            return super().counted(batch)
        return self.padded(batch)[1].numel() if batch else 0


class LosesShort(Plain):
    """Of packed rows only whole ones are read."""

    def micro_batches(self, epoch):
        found = super().micro_batches(epoch)
        return [one[:1] for one in found] if self.asked.packing else found


class TokenMeans(Plain):
    def backward(self, batch, window):
        super().backward(batch, [batch] * len(window))


def differ(asked):
    """A rank goes its own way."""
    noise = torch.rand(()).item() if asked.ranks > 1 else 0
    return trained(
        Plain, replace(asked, ranks=1, lr=asked.lr * (1 + noise), batch_size=asked.batch_size * asked.ranks)
    )


def ranks_differ(fit, asked):
    return [[trained_by(fit, one), trained_by(fit, one)] for one in asked]


def a_little_short(asked):
    """Weights of ranks are a thousandth too small."""
    found = trained(Plain, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))
    return Trained([0.999 * one for one in found.weights]) if asked.ranks > 1 else found


BROKEN = {
    "steps": CountsTwice,
    "trajectory": Backwards,
    "every-example": FirstTwice,
    "last-batch": DropsLast,
    "drop-last": KeepsLast,
    "accumulation": Summed,
    "unequal": LastOfWindow,
    "window": Drops,
    "frozen": Thaws,
    "training-loss": LastLoss,
    "evaluation-loss": MeanOfMeans,
    "clip": ClipsEach,
    "schedule": Late,
    "velocity": Undamped,
    "momentum-rate": Forgets,
    "decay": HalfDecay,
    "decay-rate": Decays,
    "average": AveragesEach,
    "bfloat16": InHalf,
    "float16": InHalf,
    "repeat": Draws,
    "order": SameOrder,
    "resume-epoch": LosesVelocity,
    "resume-inside": Replays,
    "resume-window": LosesWindow,
    "evaluation": Learns,
    "modes": StaysInEvaluation,
    "tokens": CountsPadding,
    "tokens-steps": CountsPadding,
    "tokens-accumulated": TokenMeans,
    "tokens-packed": LosesShort,
    "ranks": a_little_short,
    "ranks-uneven": a_little_short,
    "ranks-order": partial(trained_as_one, SameOrder),
}


def test_there_is_a_control_for_every_law():
    assert TRAINER_LAWS.keys() == BROKEN.keys() | {*NAMED.values()}


@pytest.mark.parametrize("name", BROKEN)
def test_every_law_can_fail(name):
    broken = BROKEN[name]
    found = row(name, partial(trained, broken) if isinstance(broken, type) else broken)
    assert found.verdict == FAIL, str(found)
    assert found.kind == TRAINER_LAWS[name].kind


@pytest.mark.parametrize(
    ("name", "broken", "words"),
    [
        ("last-batch", DropsLast, "dropped: its examples are not trained on; examples 0-7 weigh 1,"),
        ("accumulation", Summed, "summed: the sum of the micro-batches' means"),
        (
            "window",
            Drops,
            "dropped: its examples are read and not trained on; examples 0-7 weigh 1, 8-11 are never",
        ),
        ("every-example", FirstTwice, "examples 0 weigh 2, 1 are never trained on, 2-11 weigh 1"),
        ("schedule", Late, "late: a step behind"),
        ("schedule", AtWindowsEnds, "window-end: read at the last micro-batch of a window"),
        ("schedule", MicroBatchesEnds, "micro-batches-end: counted in micro-batches, and read at the last"),
        ("decay-rate", Decays, "twice: the decay falls too, beside the rate"),
        ("modes", StaysInEvaluation, "kept: after an evaluation it trains in evaluation mode"),
        ("modes", InEvaluation, "evaluation: it trains in evaluation mode"),
        ("training-loss", LastLoss, "last: the last batch's"),
        ("resume-epoch", LosesVelocity, "what is lost: the momentum"),
        ("resume-inside", Replays, "examples are read again, or passed over"),
        ("order", SameOrder, "each epoch has the same order"),
        ("order", OneSeed, "each seed has the same orders"),
        ("tokens-accumulated", TokenMeans, "means: a mean of the micro-batches' means: tokens of short ones"),
    ],
)
def test_what_is_wrong_is_said(name, broken, words):
    assert words in row(name, partial(trained, broken)).note


def unscheduled(loop, asked):
    """A loop that offers no schedule, so that no rate names a step."""
    if asked.schedule != "constant":
        raise NotOffered("schedule")
    return trained(loop, asked)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (SameOrder, "each epoch has the same order"),
        (OneSeed, "each seed has the same orders"),
        (Unshuffled, "nothing is shuffled"),
    ],
)
def test_an_order_is_judged_without_a_schedule_too(broken, words):
    found = row("order", partial(unscheduled, broken))
    assert (found.verdict, found.kind) == (FAIL, "wrong order")
    assert found.note.startswith(words)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_order_that_is_right_is_not_accused_where_there_is_no_schedule(dtype, seed):
    found = row("order", lambda asked: unscheduled(OneStream, in_dtype(asked, dtype)), seed=seed)
    assert (found.verdict, found.note) == (PASS, "examples: examples are shuffled")


def test_an_order_that_is_another_one_each_time_is_not_judged():
    found = row("order", partial(unscheduled, Draws))
    assert (found.verdict, found.note.partition(":")[0]) == (NOT_APPLICABLE, "its order cannot be read")


def test_a_loss_is_judged_along_the_way_of_a_last_batch_divided_by_the_size_asked_for():
    assert row("training-loss", partial(trained, OverSize)).verdict == PASS


def test_what_changes_training_otherwise_is_no_wrong_mode():
    found = row("modes", partial(trained, TRAINER_FAULTS["evaluation-graded"].loop))
    assert found.verdict == NOT_APPLICABLE


class ForgetsAverage(Plain):
    def left(self):
        found = super().left()
        return replace(found, averaged=None) if self.asked.resume else found


def test_an_average_that_is_lost_on_resume_is_seen():
    assert row("resume-epoch", partial(trained, ForgetsAverage)).verdict == FAIL


def test_ranks_that_differ_in_a_bit_are_said_to():
    bench = Bench(differ, spread=partial(ranks_differ, differ), ranks=2)
    found = row_of(TRAINER_LAWS["ranks"], bench)
    assert (found.verdict, found.note) == (FAIL, "weights that are not the same bit for bit on all ranks")


# Conventions ------------------------------------------------------------------------------------------


class Means(Plain):
    def backward(self, batch, window):
        super().backward(batch, [batch] * len(window))


class Fixed(Plain):
    def divisor(self, window):
        return self.asked.batch_size * self.asked.accumulate if len(window) > 1 else super().divisor(window)


class FixedWindow(Plain):
    def divisor(self, window):
        return super().divisor(window) * self.asked.accumulate / len(window)


class Carries(Plain):
    """Windows go over the ends of epochs; what is left at the last is not stepped on."""

    def steps_of(self):
        read = [(epoch, batch) for epoch in range(self.asked.epochs) for batch in self.micro_batches(epoch)]
        size = self.asked.accumulate
        for at in range(0, len(read), size):
            window = [batch for _, batch in read[at : at + size]]
            for epoch, batch in read[at : at + size]:
                yield epoch, batch, window, batch is window[-1] and len(window) == size


class RateInside(Plain):
    def update(self):
        rate = self.optimizer.param_groups[0]["lr"]
        before = [p.detach().clone() for p in self.network.parameters()]
        velocity = getattr(self, "velocity", [0] * len(before))
        self.velocity = [
            self.asked.momentum * v - rate * p.grad
            for v, p in zip(velocity, self.network.parameters(), strict=True)
        ]
        super().update()
        with torch.no_grad():
            for p, w, v in zip(self.network.parameters(), before, self.velocity, strict=True):
                p.copy_(w + v)


class Decoupled(Plain):
    def __init__(self, asked):
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0

    def update(self):
        rate = self.optimizer.param_groups[0]["lr"]
        with torch.no_grad():
            for p in self.trainable():
                p.mul_(1 - rate * self.asked.decay)
        super().update()


class AveragesFromFirst(Plain):
    def average(self):
        if self.asked.average is not None and self.steps == 1:
            self.averaged = weights_of(self.network)
        else:
            super().average()


class FinalLoss(Plain):
    def reported(self):
        with torch.no_grad():
            return nn.functional.mse_loss(self.network(self.asked.examples), self.asked.examples).item()


class ShufflesBatches(Plain):
    """Batches are cut in order, and shuffled as they are."""

    def micro_batches(self, epoch):
        kept, self.asked = self.asked, replace(self.asked, shuffle=False)
        try:
            batches = super().micro_batches(epoch)
        finally:
            self.asked = kept
        order = torch.randperm(len(batches), generator=self.random(epoch)).tolist()
        return [batches[place] for place in order] if kept.shuffle else batches


def filled(asked, last):
    """A training on examples of which some come again at the end, to fill the last step to ``last``."""
    x = torch.cat([asked.examples, asked.examples[: -len(asked.examples) % last]])
    size = asked.batch_size * asked.ranks
    return trained(Plain, replace(asked, examples=x, batch_size=size, ranks=1))


def padded(asked):
    return filled(asked, asked.ranks)


def wrapped(asked):
    return filled(asked, asked.batch_size * asked.ranks)


def final(asked):
    """Ranks as one, the loss that of the final weights."""
    return trained(FinalLoss, replace(asked, batch_size=asked.batch_size * asked.ranks, ranks=1))


class EvaluatesTraining(Plain):
    """Evaluates by a mean over what is held, and switches nothing."""

    def evaluate(self):
        if self.asked.held is not None:
            with torch.no_grad():
                self.evaluated = nn.functional.mse_loss(self.network(self.asked.held), self.asked.held).item()


class Independent(Decoupled):
    def update(self):
        with torch.no_grad():
            for p in self.trainable():
                p.mul_(1 - self.asked.lr * self.asked.decay)
        Plain.update(self)


class TellsSkipped(Plain):
    """The steps that it reports are all that it tried."""

    tried = 0

    def step(self):
        self.tried += 1
        return super().step()

    def left(self):
        return replace(super().left(), steps=self.tried)


CONVENTIONS = [
    ("last-batch", "fixed", OverSize),
    ("unequal", "means", Means),
    ("unequal", "fixed", Fixed),
    ("window", "fixed", FixedWindow),
    ("window", "carried", Carries),
    ("window", "ended", endless),
    ("momentum-rate", "keras", RateInside),
    ("decay", "decoupled", Decoupled),
    ("decay-rate", "independent", Independent),
    ("overflow", "told", TellsSkipped),
    ("modes", "unswitched", EvaluatesTraining),
    ("average", "first", AveragesFromFirst),
    ("average", "ramped", ramped),
    ("training-loss", "final", FinalLoss),
    ("accumulated-loss", "final", FinalLoss),
    ("order", "batches", ShufflesBatches),
    ("evaluation", "stream", EvaluationDraws),
    ("ranks-uneven", "padded", padded),
    ("ranks-uneven", "wrapped", wrapped),
    ("ranks-loss", "final", final),
]


def test_there_is_a_trainer_here_for_every_convention():
    rules = [(law.name, rule) for law in TRAINER_LAWS.values() for rule in [*law.rules][1:]]
    assert sorted(rules) == sorted((name, rule) for name, rule, _ in CONVENTIONS)


@pytest.mark.parametrize(("name", "rule", "trainer"), CONVENTIONS)
def test_a_convention_is_named_passes_where_it_is_accepted_and_fails_where_another_is(name, rule, trainer):
    fit = partial(trained, trainer) if isinstance(trainer, type) else trainer
    found = row(name, fit)
    assert (found.verdict, found.kind) == (DESIGN, rule)
    assert TRAINER_LAWS[name].rules[rule] in found.note
    assert row(name, fit, accept=[rule]).verdict == PASS
    right, *others = TRAINER_LAWS[name].rules
    for other in (right, *others):
        assert row(name, fit, accept=[other]).verdict == (PASS if other == rule else FAIL)


def test_what_is_accepted_is_held_against_no_law_that_is_kept():
    accept = list(dict.fromkeys(rule for law in TRAINER_LAWS.values() for rule in law.named))
    bench = Bench(partial(trained, Plain))
    for law in (law for law in TRAINER_LAWS.values() if law.named):
        for rules in (accept, ["means"], ["fixed"], ["dropped"]):  # names that several laws use
            assert row_of(law, bench, rules).verdict in (PASS, NOT_APPLICABLE), (law.name, rules)


def test_a_slip_that_is_documented_is_by_design_with_its_address_and_may_be_accepted():
    fit, designs = partial(trained, Drops), {"window": ("dropped", "manual, section 3")}
    found = row("window", fit, designs=designs)
    assert (found.verdict, found.kind) == (DESIGN, "dropped")
    assert found.note.endswith("documented in manual, section 3")
    assert row("window", fit, accept=["dropped"]).verdict == PASS


def test_what_is_accepted_has_to_be_a_rule():
    with pytest.raises(InputError, match="accept: expected mean, fixed, dropped"):
        [*check_trainer(Bench(user_trainers.minimal), accept=["nothing"])]


# Users' trainers --------------------------------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("fit", user_trainers.CLEAN, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_correct_trainers_of_any_style_are_not_accused(fit, seed):
    rows = [*check_trainer(Bench(fit, seed=seed))]
    assert [str(one) for one in rows if one.verdict == FAIL] == []
    assert {TRAINS, "every-example"} <= {one.name for one in rows if one.verdict == PASS}


@pytest.mark.parametrize("fit", user_trainers.LANGUAGE, ids=lambda fit: fit.__name__)
@pytest.mark.parametrize("seed", [0, 1])
def test_a_trainer_that_takes_no_examples_is_judged_by_its_tokens(fit, seed):
    rows = {one.name: one for one in check_trainer(Bench(fit, seed=seed))}
    verdicts = {name: one.verdict for name, one in rows.items() if one.verdict != NOT_APPLICABLE}
    judged = [*TOKENS[:3], *TOKENS[3:] * (fit is user_trainers.language_packed)]
    in_order = fit is not user_trainers.language_shuffled
    assert verdicts == dict.fromkeys([TRAINS, *judged * in_order], PASS)
    assert (rows["window"].kind, rows["window"].note) == ("not offered", "examples")


@pytest.mark.parametrize(
    "name", ["token-means", "padding-counted", "firsts-counted", "packed-cut", "labels-shifted"]
)
def test_its_faults_in_tokens_are_seen(name):
    def fit(asked):
        if asked.tokens is None:
            raise NotOffered("examples")
        return TRAINER_FAULTS[name].fit(asked)

    failed = [one.name for one in check_trainer(Bench(fit)) if one.verdict == FAIL]
    assert failed
    assert {*failed} <= {*TOKENS}


def test_the_minimal_loop_passes_what_it_offers():
    found = verdicts(user_trainers.minimal)
    assert [name for name, verdict in found.items() if verdict == PASS] == [
        *(TRAINS, "trajectory", "every-example", "last-batch", "frozen", "repeat"),
    ]
    assert {*found.values()} == {PASS, NOT_APPLICABLE}


def test_its_options_are_not_offered_by_name():
    rows = {one.name: one for one in check_trainer(Bench(user_trainers.minimal))}
    assert (rows["clip"].kind, rows["clip"].note) == ("not offered", "clip")
    assert (rows["steps"].kind, rows["steps"].note) == ("not offered", "steps, which it does not report")
    assert (rows["resume-epoch"].kind, rows["resume-epoch"].note) == ("not offered", "stop")


def test_a_trainer_that_shuffles_unasked_is_judged_by_what_needs_no_order():
    rows = {one.name: one for one in check_trainer(Bench(user_trainers.always_shuffling))}
    assert rows["trajectory"].note == "it reads examples in an order of its own"
    assert rows["every-example"].verdict == PASS


def test_one_that_shuffles_though_it_is_asked_not_to_is_accused():
    def shuffles(asked):
        return user_trainers.shuffling(replace(asked, shuffle=asked.shuffle or True))

    assert row("trajectory", shuffles).verdict == FAIL


@pytest.mark.parametrize(
    ("fit", "dtype"),
    [
        (user_trainers.minimal, "float64"),
        (user_trainers.single, "float32"),
        (user_trainers.class_based, "float32"),
        (user_trainers.shuffling_in_float32, "float32"),
        (user_trainers.always_shuffling, "float64"),
    ],
)
def test_what_a_trainer_computes_in_is_found(fit, dtype):
    first, *_ = check_trainer(Bench(fit))
    assert first.note == f"it computes in {dtype}"


# Trainers that leave no weights -----------------------------------------------------------------------


def raises(asked):
    raise RuntimeError("no such\ndevice")


def exits(asked):
    raise SystemExit(3)


def given_back(asked):
    return list(asked.start)


def not_finite(asked):
    return asked.start[0] * math.nan


def flat(asked):
    return asked.start[0].flatten()


def refuses(asked):
    raise NotOffered("anything")


def misfit(asked):
    raise TrainedError("leaves no file {out}")


@pytest.mark.parametrize(
    ("fit", "kind", "note"),
    [
        (raises, "error", "RuntimeError: no such device"),
        (exits, "error", "SystemExit: 3"),
        (given_back, "flat", "it leaves the very weights that it was given"),
        (not_finite, "diverges", "its weights are not finite"),
        (flat, "leaves no weights", "weights: expected shapes [[12, 12]], got [[144]]"),
        (refuses, "leaves no weights", "anything"),
        (misfit, "leaves no weights", "leaves no file {out}"),
    ],
)
def test_a_trainer_that_does_not_train_is_one_row(fit, kind, note):
    (only,) = check_trainer(Bench(fit))
    assert (only.name, only.verdict, only.kind, only.note) == (TRAINS, FAIL, kind, note)


@pytest.mark.parametrize("more", [-1, 1])
def test_one_that_trains_less_or_more_than_asked_fails_where_that_shows(more):
    def fit(asked):
        return trained(Plain, replace(asked, epochs=max(1, asked.epochs + more)))

    found = verdicts(fit)
    for name in ("steps", "trajectory", "every-example"):
        assert found[name] == FAIL, name


def test_what_a_later_option_raises_is_the_row_of_its_law_alone():
    def fit(asked):
        if asked.clip is not None:
            raise KeyError("max_norm")
        return trained(Plain, asked)

    found = verdicts(fit)
    assert [name for name, verdict in found.items() if verdict == FAIL] == ["clip", "float16-clip"]


def test_nan_never_passes():
    def fit(asked):
        found = trained(Plain, asked)
        bad = (
            asked.epochs > 1
            or asked.accumulate > 1
            or asked.decay
            or asked.precision != "full"
            or asked.resume
        )
        weights = [one * (math.nan if bad or asked.tokens else 1) for one in found.weights]
        return replace(found, weights=weights, loss=math.nan, evaluated=math.nan)

    found = verdicts(fit)
    assert {name for name, verdict in found.items() if verdict == PASS} <= {
        TRAINS,
        "steps",
        "last-batch",
        "repeat",
    }

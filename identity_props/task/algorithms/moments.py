"""Moments: Adam, and what was made of it by changing its first or its second moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Memory,
    Step,
    Update,
    down,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import coupled, decoupled, given

ADAM_DEFAULTS: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}

SWITCHED = {"correct_bias": True}  # False as BERT's Adam has it, Devlin et al. 2019


def corrections(memory: Memory, a: Arguments) -> tuple[float, ...]:
    """1 - beta^t of each beta, by which averages that began at 0 are divided; 1 where that is switched off."""
    if not a.get("correct_bias", True):
        return (1.0,) * len(a["betas"])
    return tuple(1 - beta ** memory["t"] for beta in a["betas"])


def moments(g: Tensor, memory: Memory, a: Arguments) -> tuple[Tensor, Tensor]:
    """The averages of g and of g^2, corrected: m / (1 - b1^t), v / (1 - b2^t)."""
    first, second = corrections(memory, a)
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    return m / first, v / second


def rms(x: Tensor) -> Tensor:
    """The root of the mean of squares."""
    return x.square().mean().sqrt()


def adams(g: Tensor, memory: Memory, a: Arguments, second: Tensor | None = None) -> Tensor:
    """Adam's update on g, m / (sqrt(v) + eps), with v of another gradient where one is given."""
    one, two = corrections(memory, a)
    m = running(memory, "m", g, a["betas"][0]) / one
    square = g if second is None else second
    v = running(memory, "v", square * square, a["betas"][1]) / two
    return m / (v.sqrt() + a["eps"])


def eps_uncorrected(update: Update) -> Update:
    """The update with eps beside sqrt(v) before that is corrected, as in the order of section 2 of Adam's paper."""

    def changed(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        return update(w, g, memory, {**a, "eps": a["eps"] / (1 - a["betas"][1] ** memory["t"]) ** 0.5})

    return changed


EPS_UNCORRECTED = "eps not corrected, as section 2 of Adam's paper"

# Adam ---------------------------------------------------------------------------------------------


def adam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """W - lr m / (sqrt(v) + eps)."""
    m, v = moments(g, memory, a)
    return moved(w, m / (v.sqrt() + a["eps"]), a)


def adam_eps_hat(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The paper's faster order, whose eps is not corrected."""
    m, v = moments(g, memory, a)
    root = corrections(memory, a)[1] ** 0.5
    return moved(w, m / (v.sqrt() + a["eps"] / root), a)


def adam_eps_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps inside the root."""
    m, v = moments(g, memory, a)
    return moved(w, m / (v + a["eps"]).sqrt(), a)


def adam_eps_both(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps inside the root and beside it."""
    m, v = moments(g, memory, a)
    return moved(w, m / ((v + a["eps"]).sqrt() + a["eps"]), a)


def adam_first_uncorrected(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The first moment is not corrected."""
    m, v = moments(g, memory, a)
    return moved(w, m * corrections(memory, a)[0] / (v.sqrt() + a["eps"]), a)


def adam_second_uncorrected(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The second moment is not corrected."""
    m, v = moments(g, memory, a)
    return moved(w, m / ((v * corrections(memory, a)[1]).sqrt() + a["eps"]), a)


def adam_second_by_first(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Both are corrected by the first beta."""
    m, v = moments(g, memory, a)
    first, second = corrections(memory, a)
    return moved(w, m / ((v * second / first).sqrt() + a["eps"]), a)


def adam_uncorrected(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Neither is, but eps is as if they were."""
    m, v = moments(g, memory, a)
    first, second = corrections(memory, a)
    return moved(w, m * first / second**0.5 / (v.sqrt() + a["eps"]), a)


def adam_rootless(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The second moment's root is not taken."""
    m, v = moments(g, memory, a)
    return moved(w, m / (v + a["eps"]), a)


def adam_corrected_in_place(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The averages that go on are the corrected ones."""
    memory["m"], memory["v"] = m, v = moments(g, memory, a)
    return moved(w, m / (v.sqrt() + a["eps"]), a)


def adam_rate_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The first moment averages lr g."""
    m = running(memory, "m", a["lr"] * g, a["betas"][0])
    first, second = corrections(memory, a)
    v = running(memory, "v", g * g, a["betas"][1])
    return down(w, m / first / ((v / second).sqrt() + a["eps"]))


def adam_stale(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Moves by the first moment before this gradient."""
    stale = memory.get("m", torch.zeros_like(g))
    _, v = moments(g, memory, a)
    return moved(w, stale / corrections(memory, a)[0] / (v.sqrt() + a["eps"]), a)


def swapped(update: Update) -> Update:
    """The betas the other way round."""
    return lambda w, g, memory, a: update(w, g, memory, {**a, "betas": a["betas"][::-1]})


def complemented(update: Update) -> Update:
    """Betas as 1 - those that are given."""
    return lambda w, g, memory, a: update(w, g, memory, {**a, "betas": tuple(1 - b for b in a["betas"])})


def second_beta(update: Update, beta: float) -> Update:
    """Another second beta, whatever is given."""
    return lambda w, g, memory, a: update(w, g, memory, {**a, "betas": (a["betas"][0], beta)})


ADAM_SLIPS: dict[str, Step] = {
    "eps were inside the root as well": each(adam_eps_both),
    "eps were inside the root": each(adam_eps_inside),
    "the first moment were not corrected": each(adam_first_uncorrected),
    "the second moment were not corrected": each(adam_second_uncorrected),
    "the second moment were corrected by the first beta": each(adam_second_by_first),
    "neither moment were corrected": each(adam_uncorrected),
    "the second moment's root were not taken": each(adam_rootless),
    "moments were corrected in place, again at each step": each(adam_corrected_in_place),
    "the rate were inside the first moment": each(adam_rate_inside),
    "it moved by the first moment of the step before": each(adam_stale),
    "the two betas were swapped": each(swapped(adam)),
    "betas weighed the gradient and not the average": each(complemented(adam)),
    "the second beta were 0.99": each(second_beta(adam, 0.99)),
    "eps were 1e-3": given(each(adam), eps=1e-3),
    "eps were 1e-8": given(each(adam), eps=1e-8),
}
ADAM = Algorithm(
    name="adam",
    title="Adam",
    paper="Kingma, Ba 2015, algorithm 1",
    equation="m <- b1 m + (1 - b1) g; v <- b2 v + (1 - b2) g^2; w <- w - lr m^ / (sqrt(v^) + eps), x^ = x / (1 - b^t)",
    defaults={**ADAM_DEFAULTS, **SWITCHED},
    step=coupled(each(adam)),
    variants={"eps not corrected, as section 2 of the paper and Keras": coupled(each(adam_eps_hat))},
    slips={name: coupled(step) for name, step in ADAM_SLIPS.items()},
)
ADAMW = Algorithm(
    name="adamw",
    title="AdamW",
    paper="Loshchilov, Hutter 2019, algorithm 2",
    equation="Adam's step on w (1 - lr wd)",
    defaults={**ADAM_DEFAULTS, **SWITCHED, "weight_decay": 1e-2},
    step=decoupled(each(adam)),
    variants={"eps not corrected, as section 2 of Adam's paper": decoupled(each(adam_eps_hat))},
    slips={name: decoupled(step) for name, step in ADAM_SLIPS.items()},
)


def amsgrad(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The largest second moment, corrected afterwards."""
    m, v = moments(g, memory, a)
    second = corrections(memory, a)[1]
    memory["most"] = torch.maximum(memory.get("most", torch.zeros_like(v)), v * second)
    return moved(w, m / ((memory["most"] / second).sqrt() + a["eps"]), a)


def amsgrad_of_corrected(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The largest of the corrected second moments."""
    m, v = moments(g, memory, a)
    memory["most"] = torch.maximum(memory.get("most", torch.zeros_like(v)), v)
    return moved(w, m / (memory["most"].sqrt() + a["eps"]), a)


def amsgrad_as_written(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """No moment is corrected."""
    m, v = moments(g, memory, a)
    first, second = corrections(memory, a)
    memory["most"] = torch.maximum(memory.get("most", torch.zeros_like(v)), v * second)
    return moved(w, m * first / (memory["most"].sqrt() + a["eps"]), a)


AMSGRAD = Algorithm(
    name="amsgrad",
    title="AMSGrad",
    paper="Reddi, Kale, Kumar 2018, algorithm 2, with moments corrected as torch does",
    equation="top <- max(top, v); w <- w - lr m^ / (sqrt(top / (1 - b2^t)) + eps)",
    defaults=ADAM_DEFAULTS,
    step=coupled(each(amsgrad)),
    variants={
        "moments not corrected, as the paper": coupled(each(amsgrad_as_written)),
        "the largest of corrected moments": coupled(each(amsgrad_of_corrected)),
    },
)


def adamax(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The largest gradient, which forgets: u <- max(b2 u, |g| + eps)."""
    m = running(memory, "m", g, a["betas"][0])
    memory["u"] = torch.maximum(a["betas"][1] * memory.get("u", torch.zeros_like(g)), g.abs() + a["eps"])
    return moved(w, m / corrections(memory, a)[0] / memory["u"], a)


def adamax_beside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps is added to what divides."""
    m = running(memory, "m", g, a["betas"][0])
    memory["u"] = torch.maximum(a["betas"][1] * memory.get("u", torch.zeros_like(g)), g.abs())
    return moved(w, m / corrections(memory, a)[0] / (memory["u"] + a["eps"]), a)


ADAMAX = Algorithm(
    name="adamax",
    title="AdaMax",
    paper="Kingma, Ba 2015, algorithm 2, with eps, as the paper divides by 0 where g is 0",
    equation="u <- max(b2 u, |g| + eps); w <- w - lr / (1 - b1^t) m / u",
    defaults={**ADAM_DEFAULTS, "lr": 2e-3},
    step=coupled(each(adamax)),
    variants={"eps beside the maximum, as Keras": coupled(each(adamax_beside))},
)


def nadam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Mu_t = b1 (1 - 0.96^(t psi) / 2), and products of them correct."""
    now, then = (a["betas"][0] * (1 - 0.5 * 0.96 ** (t * a["momentum_decay"])) for t in _now_then(memory))
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    memory["product"] = memory.get("product", 1.0) * now
    ahead = then * m / (1 - memory["product"] * then) + (1 - now) * g / (1 - memory["product"])
    return moved(w, ahead / ((v / corrections(memory, a)[1]).sqrt() + a["eps"]), a)


def nadam_late(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Both are corrected by the product of now."""
    now, then = (a["betas"][0] * (1 - 0.5 * 0.96 ** (t * a["momentum_decay"])) for t in _now_then(memory))
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    memory["product"] = memory.get("product", 1.0) * now
    ahead = (then * m + (1 - now) * g) / (1 - memory["product"])
    return moved(w, ahead / ((v / corrections(memory, a)[1]).sqrt() + a["eps"]), a)


def nadam_constant(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Mu is b1 throughout: b1 m / (1 - b1^(t + 1)) + (1 - b1) g / (1 - b1^t)."""
    b1, t = a["betas"][0], memory["t"]
    m, v = running(memory, "m", g, b1), running(memory, "v", g * g, a["betas"][1])
    ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
    return moved(w, ahead / ((v / corrections(memory, a)[1]).sqrt() + a["eps"]), a)


def nadam_short(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """(b1 m + (1 - b1) g) / (1 - b1^t), all corrected alike."""
    b1 = a["betas"][0]
    m, v = moments(g, memory, a)
    first = corrections(memory, a)[0]
    return moved(w, (b1 * m + (1 - b1) * g / first) / (v.sqrt() + a["eps"]), a)


def _now_then(memory: Memory) -> tuple[int, int]:
    return memory["t"], memory["t"] + 1


NADAM = Algorithm(
    name="nadam",
    title="NAdam",
    paper="Dozat 2016, algorithm 2, with its schedule of mu",
    equation="w <- w - lr (mu_t+1 m / (1 - prod mu_t+1) + (1 - mu_t) g / (1 - prod mu_t)) / (sqrt(v^) + eps)",
    defaults={**ADAM_DEFAULTS, "lr": 2e-3, "momentum_decay": 4e-3},
    step=coupled(each(nadam)),
    variants={
        "mu constant": coupled(each(nadam_constant)),
        "mu constant, all corrected alike": coupled(each(nadam_short)),
    },
    slips={"the next mu were left out of its product": coupled(each(nadam_late))},
)


MOMENTS = (ADAM, ADAMW, AMSGRAD, ADAMAX, NADAM)

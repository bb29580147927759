"""Altered: Adam's update masked, turned or mixed before it is taken, or taken now and then another way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Cell,
    Memory,
    Step,
    Update,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import active, coupled, decoupled
from identity_props.task.algorithms.descent import SGD
from identity_props.task.algorithms.moments import (
    ADAM,
    ADAM_DEFAULTS,
    adams,
    corrections,
    moments,
    rms,
)

# Steps --------------------------------------------------------------------------------------------


def turned(how: Callable[[Tensor, Tensor], Tensor]) -> Update:
    """Adam's update made into another, by the gradient."""
    return lambda w, g, memory, a: moved(w, how(adams(g, memory, a), g), a)


GRAMS = Algorithm(
    name="grams",
    title="Grams",
    paper="Cao et al. 2024, 2412.17107, algorithm 1",
    equation="w <- w - lr sign(g) |Adam's update|",
    defaults={**ADAM_DEFAULTS, "eps": 1e-6},
    step=decoupled(each(turned(lambda update, g: update.abs() * g.sign()))),
)


def _masked(update: Tensor, g: Tensor) -> Tensor:
    mask = (update * g > 0).to(g)
    return update * mask * (g.numel() / (mask.sum() + 1))


def _masked_by_mean(update: Tensor, g: Tensor) -> Tensor:
    mask = (update * g > 0).to(g)
    return update * mask / mask.mean().clamp(min=1e-3)


CAUTIOUS = Algorithm(
    name="cautious-adamw",
    title="Cautious AdamW",
    paper="Liang et al. 2024, 2411.16085, algorithm 1",
    equation="w <- w - lr u [u g > 0] d / (entries where u g > 0 + 1), u Adam's update",
    defaults=ADAM_DEFAULTS,
    step=decoupled(each(turned(_masked))),
    variants={"divided by the mask's mean, at least 1e-3": decoupled(each(turned(_masked_by_mean)))},
)


def exadam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Each moment corrected by the other, and the gradient added."""
    (one, two), (late1, late2) = corrections(memory, a), (b ** memory["t"] for b in a["betas"])
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    by_second = 1 + v / (v + a["eps"]) * late2
    by_first = 1 + m * m / (m * m + a["eps"]) * late1
    return moved(w, (m + g) / one * by_second / ((v / two * by_first).sqrt() + a["eps"]), a)


EXADAM = Algorithm(
    name="exadam",
    title="EXAdam",
    paper="Adly 2024, 2412.20302, algorithm 1",
    equation="w <- w - lr (m^ + g / (1 - b1^t)) c / (sqrt(v^ d) + eps), c = 1 + b2^t v / (v + eps), d = 1 + b1^t m^2 / (m^2 + eps)",
    defaults=ADAM_DEFAULTS,
    step=decoupled(each(exadam)),
)


def fadam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The natural gradient, clipped, then averaged; decay is divided and clipped as it is."""
    (one, two), t, p = a["betas"], memory["t"], a["p"]
    f = running(memory, "f", g * g, two * (1 - two ** (t - 1)) / (1 - two**t))
    size = rms(g)
    eps = torch.where((size > 0) & (a["eps_2"] * size < a["eps"]), a["eps_2"] * size, a["eps"])
    unit = f**p + eps ** (2 * p)

    def natural(x: Tensor) -> Tensor:
        return x / unit / (rms(x / unit) / a["clip"]).clamp_min(1.0)

    return moved(w, running(memory, "m", natural(g), one) + a["weight_decay"] * natural(w), a)


FADAM = Algorithm(
    name="fadam",
    title="FAdam",
    paper="Hwang 2024, 2405.12807, algorithm 1",
    equation="f the corrected mean of g^2; N(x) = x / (f^p + eps^(2p)), no longer than clip in its RMS; m of N(g); w <- w - lr (m + wd N(w))",
    defaults={**ADAM_DEFAULTS, "weight_decay": 0.1, "clip": 1.0, "p": 0.5, "eps_2": 0.01},
    step=each(fadam),
)


def dualadam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Between m sqrt(v) and m / sqrt(v), from the one to the other."""
    m, v = moments(g, memory, a)
    share, root = max(0.0, 1 - memory["t"] * a["switch_rate"]), v.sqrt() + a["eps"]
    share = share if share >= a["switch_rate"] else 0.0
    return moved(w, m * ((1 - share) / root + share * root), a)


DUALADAM = Algorithm(
    name="dualadam",
    title="DualAdam",
    paper="Shi et al. 2026, 2603.07122",
    equation="w <- w - lr m^ ((1 - s) / (sqrt(v^) + eps) + s (sqrt(v^) + eps)), s = max(0, 1 - t switch_rate)",
    defaults={**ADAM_DEFAULTS, "switch_rate": 0.01},
    step=decoupled(each(dualadam)),
)


def simplified(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """A sum of gradients in place of two averages, and the gradient."""
    memory["m"] = a["betas"][0] * memory.get("m", 0.0) + g
    v = running(memory, "v", g * g, a["betas"][1]) / corrections(memory, a)[1]
    return moved(w, (memory["m"] + a["alpha"] * g) / (v.sqrt() + a["eps"]), a)


SIMPLIFIED = Algorithm(
    name="simplified-ademamix",
    title="Simplified AdEMAMix",
    paper="Morwani et al. 2025, 2502.02431, algorithm 1",
    equation="m <- b1 m + g; w <- w - lr (m + alpha g) / (sqrt(v^) + eps)",
    defaults={**ADAM_DEFAULTS, "lr": 1e-4, "betas": (0.99, 0.95), "alpha": 0.0},
    step=decoupled(each(simplified)),
)

# Now and then ------------------------------------------------------------------------------------


def rectified(update: str, least: float) -> Update:
    """RAdam, where the rectification begins above least; before it moves by the update named, or rests."""

    def radam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        m, v = moments(g, memory, a)
        second, t, b2 = corrections(memory, a)[1], memory["t"], a["betas"][1]
        most = 2 / (1 - b2) - 1
        rho = most - 2 * t * b2**t / second
        if rho <= least:
            return moved(w, m, a) if update == "m" else w
        r = ((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) ** 0.5
        return moved(w, r * m / (v.sqrt() + a["eps"] / second**0.5), a)

    return radam


def _climbing(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Up the gradient while nothing is rectified."""
    rests = rectified("", 5)(w, g, dict(memory), a) is w
    moved_to = rectified("m", 5)(w, g, memory, a)
    return w + (w - moved_to) if rests else moved_to


RADAM = Algorithm(
    name="radam",
    title="RAdam",
    paper="Liu et al. 2020, algorithm 2, with eps, and rectified from rho > 5 as its authors' code",
    equation="w <- w - lr r m^ sqrt(1 - b2^t) / (sqrt(v) + eps) where rho > 5, else w - lr m^",
    defaults=ADAM_DEFAULTS,
    step=coupled(each(rectified("m", 5))),
    variants={
        "rectified from rho > 4, as the paper": coupled(each(rectified("m", 4))),
        "at rest until rectified": coupled(each(rectified("", 5))),
    },
    slips={"it climbed until it is rectified": coupled(each(_climbing))},
)


def centralized(step: Step) -> Step:
    """Gradients of rows less their mean, of what has two dimensions or more. Yong et al. 2020."""

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        for cell in active(cells):
            if cell.g is not None and cell.g.ndim > 1:
                cell.g = cell.g - cell.g.mean(dim=tuple(range(1, cell.g.ndim)), keepdim=True)
        step(cells, a)

    return stepped


def looking_ahead(step: Step, begins: str = "before", moves: bool = True, by_group: bool = False) -> Step:
    """Every k steps part of the way from where the last k began. Zhang et al. 2019.

    The first slow weights are those before the first step, after it, or at the first look, and steps those of the
    parameter or of its group.
    """

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        if begins == "before":
            _kept_slow(cells)
        step(cells, a)
        group = cells[0].memory
        group["steps"] = group.get("steps", 0) + 1
        looks = [
            cell for cell in active(cells) if (group["steps"] if by_group else cell.memory["t"]) % a["k"] == 0
        ]
        _kept_slow(looks if begins == "look" else cells)
        for cell in looks:
            slow = cell.memory["slow"]
            cell.w = slow + a["alpha"] * (cell.w - slow)
            cell.memory["slow"] = cell.w if moves else slow

    return stepped


def _kept_slow(cells: Sequence[Cell]) -> None:
    for cell in active(cells):
        cell.memory.setdefault("slow", cell.w)


RANGER = Algorithm(
    name="ranger",
    title="Ranger",
    paper="Wright 2019: RAdam (Liu et al. 2020), Lookahead (Zhang et al. 2019), centralized (Yong et al. 2020)",
    equation="RAdam's step on g less the mean of its row; every k steps w <- slow + alpha (w - slow), the next slow",
    defaults={**ADAM_DEFAULTS, "betas": (0.95, 0.999), "eps": 1e-5, "k": 6, "alpha": 0.5},
    step=looking_ahead(centralized(decoupled(each(rectified("m", 5))))),
    variants={"at rest until rectified": looking_ahead(centralized(decoupled(each(rectified("", 5)))))},
    slips={
        "it climbed until it is rectified": looking_ahead(centralized(decoupled(each(_climbing)))),
        "gradients were not centralized": looking_ahead(decoupled(each(rectified("m", 5)))),
        "it never looked ahead": centralized(decoupled(each(rectified("m", 5)))),
    },
)


BEGINS = {
    "from before the first step": "before",
    "from after the first step": "after",
    "from the first look on": "look",
}


def lookahead(name: str, title: str, inner: Step, defaults: Arguments) -> Algorithm:
    """Lookahead around another algorithm's step."""
    return Algorithm(
        name=f"lookahead-{name}",
        title=f"Lookahead with {title}",
        paper="Zhang et al. 2019, 1907.08610, algorithm 1",
        equation=f"{title}'s step; every k steps w <- slow + alpha (w - slow), the next slow",
        defaults={**defaults, "k": 5, "alpha": 0.5},
        step=looking_ahead(inner),
        variants={
            f"{begins}{counted}": looking_ahead(inner, when, by_group=bool(counted))
            for begins, when in BEGINS.items()
            for counted in ("", ", every k steps of the group")
        },
        slips={"the slow weights stayed where they began": looking_ahead(inner, moves=False)},
    )


LOOKAHEADS = (
    lookahead("sgd", "SGD", SGD.step, SGD.defaults),
    lookahead("adam", "Adam", ADAM.step, ADAM.defaults),
)

ALTERED = (*LOOKAHEADS, RADAM, GRAMS, CAUTIOUS, EXADAM, FADAM, DUALADAM, SIMPLIFIED, RANGER)

"""Bounded: Adam with its rates or its gradients clipped, or mixed with those before."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Cell,
    Memory,
    Step,
    Update,
    down,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import active, decoupled, of_any
from identity_props.task.algorithms.moments import (
    ADAM_DEFAULTS,
    EPS_UNCORRECTED,
    adams,
    corrections,
    eps_uncorrected,
    moments,
    rms,
)

# Rates --------------------------------------------------------------------------------------------


def adabound(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Adam's rates of entries between bounds that meet at final_lr, which goes with the rate as that began."""
    one, two = corrections(memory, a)
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    last = a["final_lr"] * a["lr"] / memory["built"]
    grown = a["gamma"] * memory["t"]
    rate = a["lr"] * two**0.5 / one / (v.sqrt() + a["eps"])
    return down(w, m * rate.clamp(last * (1 - 1 / (grown + 1)), last * (1 + 1 / grown)))


def since_built(step: Step) -> Step:
    """Every parameter remembers the rate that its group began with."""

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        for cell in cells:
            cell.memory.setdefault("built", a["lr"])
        step(cells, a)

    return stepped


ADABOUND = Algorithm(
    name="adabound",
    title="AdaBound",
    paper="Luo et al. 2019, algorithm 2, with moments corrected and bounds that go with the rate, as its authors' code",
    equation="w <- w - m clip(lr sqrt(1 - b2^t) / (1 - b1^t) / (sqrt(v) + eps), last - last / (gamma t + 1), last + last / (gamma t))",
    defaults={**ADAM_DEFAULTS, "final_lr": 0.1, "gamma": 1e-3},
    step=since_built(decoupled(each(adabound))),
)


def adamod(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Each entry's rate is at most its running mean, of rates by v corrected."""
    m, v = moments(g, memory, {**a, "betas": a["betas"][:2]})
    rate = a["lr"] / (v.sqrt() + a["eps"])
    return down(w, m * torch.minimum(rate, running(memory, "rate", rate, a["betas"][2])))


def adamod_all_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The first moment's correction is part of the rate that is averaged."""
    a = {**a, "slow": a["betas"][2], "betas": a["betas"][:2]}
    one, two = corrections(memory, a)
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
    rate = a["lr"] * two**0.5 / one / (v.sqrt() + a["eps"])
    return down(w, m * torch.minimum(rate, running(memory, "rate", rate, a["slow"])))


ADAMOD = Algorithm(
    name="adamod",
    title="AdaMod",
    paper="Ding et al. 2019, algorithm 2",
    equation="r = lr / (sqrt(v^) + eps); s <- b3 s + (1 - b3) r; w <- w - min(r, s) m^",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.999, 0.9999)},
    step=decoupled(each(adamod)),
    variants={
        "1 / (1 - b1^t) averaged with the rate, as its authors' code": decoupled(each(adamod_all_inside))
    },
)


def padam(largest: bool, corrected: bool) -> Update:
    """The largest v so far to a power below 1 / 2."""

    def update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        one, two = corrections(memory, a) if corrected else (1.0, 1.0)
        m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g * g, a["betas"][1])
        if largest:
            v = memory["most"] = torch.maximum(memory.get("most", torch.zeros_like(v)), v)
        return moved(w, m * two**0.5 / one / (v.sqrt() + a["eps"]) ** (2 * a["partial"]), a)

    return update


PADAM = Algorithm(
    name="padam",
    title="Padam",
    paper="Chen et al. 2018, 1806.06763, algorithm 1, with eps",
    equation="top <- max(top, v); w <- w - lr m / (sqrt(top) + eps)^(2 p)",
    defaults={**ADAM_DEFAULTS, "lr": 0.1, "partial": 0.25},
    step=decoupled(each(padam(True, False))),
    variants={
        "the rate corrected as Adam's, as its authors' code": decoupled(each(padam(True, True))),
        "the rate corrected as Adam's, v itself": decoupled(each(padam(False, True))),
    },
)


def stable(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Averages whose betas correct them, and rate and decay divided by RMS(g / sqrt(v)) where that is above 1."""
    one, two = (b * (1 - b ** (memory["t"] - 1)) / (1 - b ** memory["t"]) for b in a["betas"])
    m, v = running(memory, "m", g, one), running(memory, "v", g * g, two)
    rate = a["lr"] / rms(g / v.clamp_min(a["eps"] ** 2).sqrt()).clamp_min(1.0)
    return w * (1 - rate * a["weight_decay"]) - rate * m / (v.sqrt() + a["eps"])


STABLEADAMW = Algorithm(
    name="stableadamw",
    title="StableAdamW",
    paper="Wortsman et al. 2023, 2304.13013, algorithm 2",
    equation="AdamW's step at the rate lr / max(1, RMS(g / max(sqrt(v^), eps)))",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.99), "weight_decay": 1e-2},
    step=each(stable),
)

# Gradients ----------------------------------------------------------------------------------------


def adamnorm(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """A gradient shorter than the running mean of lengths is taken as long as that, in m alone."""
    length, mean = g.norm(), running(memory, "length", g.norm(), a["r"])
    longer = g * (mean / length) if 0 < length < mean else g
    return moved(w, adams(longer, memory, a, second=g), a)


ADAMNORM = Algorithm(
    name="adamnorm",
    title="AdamNorm",
    paper="Dubey, Singh, Chaudhuri 2023, 2210.06364, algorithm 2",
    equation="e <- r e + (1 - r) |g|; s = g e / |g| if e > |g| else g; Adam's step with m of s and v of g^2",
    defaults={**ADAM_DEFAULTS, "r": 0.95},
    step=decoupled(each(adamnorm)),
    variants={EPS_UNCORRECTED: decoupled(each(eps_uncorrected(adamnorm)))},
)


def adagc(cells: Sequence[Cell], a: Arguments) -> None:
    """At first gradients of all together are clipped, then each beside the running mean of its own length."""
    total = torch.stack([cell.g.square().sum() for cell in active(cells) if cell.g is not None]).sum().sqrt()
    for cell in active(cells):
        if cell.g is None:
            continue
        memory = cell.memory
        memory["t"] = memory.get("t", 0) + 1
        if memory["t"] < a["warmup_steps"]:
            g = cell.g * (a["lambda_abs"] / total).clamp_max(1.0)
            memory["length"] = torch.minimum(memory.get("length", g.norm()), g.norm())
        else:
            g = cell.g * (a["lambda_rel"] * memory["length"] / cell.g.norm()).clamp_max(1.0)
            running(memory, "length", g.norm(), a["beta"])
        cell.w = moved(cell.w, adams(g, memory, a), a)


ADAGC = Algorithm(
    name="adagc",
    title="AdaGC",
    paper="Wang et al. 2025, 2502.11034, algorithm 1",
    equation="AdamW on g min(1, lambda_abs / |all g|) for warmup_steps, c <- min(c, |g|); then on g min(1, lambda_rel c / |g|), c its running mean",
    defaults={
        **{**ADAM_DEFAULTS, "weight_decay": 0.1},
        **{"beta": 0.98, "lambda_abs": 1.0, "lambda_rel": 1.05, "warmup_steps": 100},
    },
    step=decoupled(of_any(adagc)),
    whole=True,
)


def mars(first_too: bool) -> Update:
    """AdamW on a gradient with more of its change, of length 1 at most; the first changes from 0, or not."""

    def update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        one = a["betas"][0]
        before = memory.get("g", torch.zeros_like(g) if first_too else g)
        c = g + a["gamma"] * one / (1 - one) * (g - before)
        memory["g"] = g
        return moved(w, adams(c / c.norm().clamp_min(1.0), memory, a), a)

    return update


MARS = Algorithm(
    name="mars",
    title="MARS-AdamW",
    paper="Yuan et al. 2024, 2411.10438, algorithm 2, its approximation that takes the gradient before as it was",
    equation="c = g + gamma b1 / (1 - b1) (g - g_before), c / max(1, |c|); AdamW's step on c",
    defaults={**ADAM_DEFAULTS, "lr": 3e-3, "betas": (0.95, 0.99), "gamma": 0.025},
    step=decoupled(each(mars(first_too=False))),
    variants={
        "the gradient before the first is 0, as its authors' code": decoupled(each(mars(first_too=True))),
        "the gradient before the first is 0, eps not corrected": decoupled(each(eps_uncorrected(mars(True)))),
    },
)


def grokfast(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Adds the slow part of gradients, an average from the first on."""
    memory.setdefault("slow", g)
    return moved(
        w, adams(g + a["grokfast_lamb"] * running(memory, "slow", g, a["grokfast_alpha"]), memory, a), a
    )


GROKFAST = Algorithm(
    name="grokfast",
    title="Grokfast-EMA with AdamW",
    paper="Lee et al. 2024, 2405.20233, algorithm 3",
    equation="s <- alpha s + (1 - alpha) g, from the first g on; AdamW's step on g + lamb s",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.99), "grokfast_alpha": 0.98, "grokfast_lamb": 2.0},
    step=decoupled(each(grokfast)),
)


def stablespam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Entries are bounded by the mean of largest ones, and the length is what moments of lengths say."""
    t, largest = memory["t"], g.abs().amax()
    most = running(memory, "most", largest, a["theta"]) / (1 - a["theta"] ** t)
    g = torch.where(g.abs() > most, g / largest * most, g)
    if not (length := g.norm()):
        return w
    m = running(memory, "length", length, a["gamma1"]) / (1 - a["gamma1"] ** t)
    v = running(memory, "square", length**2, a["gamma2"]) / (1 - a["gamma2"] ** t)
    return moved(w, adams(g / length * m / (v.sqrt() + a["eps"]), memory, a), a)


STABLESPAM = Algorithm(
    name="stable-spam",
    title="Stable-SPAM",
    paper="Huang et al. 2025, 2502.17055, algorithm 1, before moments are reset",
    equation="g no larger than the mean of max |g|, then g / |g| m_l / (sqrt(v_l) + eps), means of |g| with gamma1, of |g|^2 with gamma2; AdamW on it",
    defaults={**ADAM_DEFAULTS, "gamma1": 0.7, "gamma2": 0.9, "theta": 0.999},
    step=decoupled(each(stablespam)),
)

BOUNDED = (ADABOUND, ADAMOD, PADAM, STABLEADAMW, ADAMNORM, ADAGC, MARS, GROKFAST, STABLESPAM)

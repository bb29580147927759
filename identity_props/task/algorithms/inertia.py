"""Inertia: momentum whose length, sign or weight follows the gradients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import normalize

from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Cell,
    Memory,
    Update,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import active, coupled, decoupled, of_any
from identity_props.task.algorithms.moments import (
    ADAM_DEFAULTS,
    EPS_UNCORRECTED,
    eps_uncorrected,
)

# Two momenta --------------------------------------------------------------------------------------


def _positive_negative(g: Tensor, memory: Memory, beta: float, more: float) -> Tensor:
    """(1 + b) of the average of this step's parity, less b of the other, of the noise of one."""
    now, other = ("odd", "even") if memory["t"] % 2 else ("even", "odd")
    m = running(memory, now, g, beta**2)
    return ((1 + more) * m - more * memory.get(other, 0.0)) / ((1 + more) ** 2 + more**2) ** 0.5


def pnm(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The parity of t tells the averages apart."""
    return moved(w, _positive_negative(g, memory, *a["betas"]), a)


def adapnm(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by the root of the largest second moment."""
    one, two, more = a["betas"]
    m, v = _positive_negative(g, memory, one, more), running(memory, "v", g * g, two)
    if a["ams_bound"]:
        v = memory["most"] = torch.maximum(memory.get("most", torch.zeros_like(v)), v)
    root = (v / (1 - two ** memory["t"])).sqrt() + a["eps"]
    return moved(w, m / (1 - one ** memory["t"]) / root, a)


_PNM = "m_t <- b1^2 m_t-2 + (1 - b1^2) g; u = ((1 + b) m_t - b m_t-1) / sqrt((1 + b)^2 + b^2); w <- w - lr u"
PNM = Algorithm(
    name="pnm",
    title="PNM",
    paper="Xie et al. 2021, 2103.17182, algorithm 2",
    equation=_PNM,
    defaults={"lr": 1e-3, "betas": (0.9, 1.0), "weight_decay": 0.0},
    step=decoupled(each(pnm)),
)
ADAPNM = Algorithm(
    name="adapnm",
    title="AdaPNM",
    paper="Xie et al. 2021, 2103.17182, algorithm 3",
    equation=f"{_PNM} / (1 - b1^t) / (sqrt(largest v / (1 - b2^t)) + eps)",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.999, 1.0), "ams_bound": True},
    step=decoupled(each(adapnm)),
    variants={EPS_UNCORRECTED: decoupled(each(eps_uncorrected(adapnm)))},
)


def accsgd(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """A long step of the average, a short one of w, and w between."""
    c, kappa = a["constant"], a["kappa"]
    share = a["xi"] * c * c / kappa
    long = share * (w - a["lr"] * kappa / c * g) + (1 - share) * memory.get("mean", w)
    memory["mean"] = long
    return c / (c + share) * (w - a["lr"] * g) + share / (c + share) * long


ACCSGD = Algorithm(
    name="accsgd",
    title="Accelerated SGD",
    paper="Kidambi et al. 2018, 1803.05591, algorithm 1; Jain et al. 2017",
    equation="v <- s (w - lr kappa / c g) + (1 - s) v, s = xi c^2 / kappa; w <- (c (w - lr g) + s v) / (c + s)",
    defaults={"lr": 1e-3, "kappa": 1000.0, "xi": 10.0, "constant": 0.7, "weight_decay": 0.0},
    step=coupled(each(accsgd)),
)


def srmm(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Gradients and points averaged with weights that fall, and rise again."""
    share = (memory["t"] % a["memory_length"] + 1) ** -a["beta"]
    mean = running(memory, "g", g, 1 - share)
    memory["w"] = running(memory, "w", w, 1 - share) - a["lr"] * mean
    point: Tensor = memory["w"]
    return point


SRMM = Algorithm(
    name="srmm",
    title="SRMM",
    paper="Lyu 2022, 2201.01652, stochastic regularized majorization-minimization",
    equation="s = (t mod length + 1)^-beta; h <- (1 - s) h + s g; w <- (1 - s) w_mean + s w - lr h, which is the next w_mean",
    defaults={"lr": 0.01, "beta": 0.5, "memory_length": 100},
    step=each(srmm),
)

# Weights of momentum ------------------------------------------------------------------------------


def adai(cells: Sequence[Cell], a: Arguments) -> None:
    """Momentum of each entry by its second moment beside the mean of all."""
    base, two = a["betas"]
    moving = active(cells)
    for cell in moving:
        if cell.g is not None:
            cell.memory["t"] = cell.memory.get("t", 0) + 1
            v = running(cell.memory, "v", cell.g * cell.g, two)
            cell.memory["corrected"] = v / (1 - two ** cell.memory["t"])
    mean = torch.cat([cell.memory["corrected"].reshape(-1) for cell in moving]).mean()
    for cell in moving:
        if cell.g is not None:
            memory = cell.memory
            beta = (1 - base * memory["corrected"] / mean).clamp(0.0, 1 - a["eps"])
            memory["product"] = memory.get("product", 1.0) * beta
            memory["m"] = beta * memory.get("m", 0.0) + (1 - beta) * cell.g
            cell.w = moved(cell.w, memory["m"] / (1 - memory["product"]), a)


ADAI = Algorithm(
    name="adai",
    title="Adai",
    paper="Xie et al. 2022, 2006.15815, algorithm 2",
    equation="b = clip(1 - b0 v^ / mean v^, 0, 1 - eps); m <- b m + (1 - b) g; w <- w - lr m / (1 - prod b)",
    defaults={"lr": 1e-3, "betas": (0.1, 0.99), "eps": 1e-3, "weight_decay": 0.0},
    step=decoupled(of_any(adai)),
    whole=True,
)


def _torque(g: Tensor, m: Tensor, memory: Memory, a: Arguments, whole: bool) -> Tensor:
    """(1 + s) / 2 + eps, s the running mean of how the gradient is aligned; as a whole, or by entries of columns."""
    aligned = normalize(m, dim=0) * normalize(g, dim=0)
    if whole:
        aligned = (m * g).sum() / (m.norm() * g.norm()).clamp_min(1e-300)
    return (1 + running(memory, "s", aligned, a["decay_rate"])) / 2 + a["eps"]


def tam(w: Tensor, g: Tensor, memory: Memory, a: Arguments, whole: bool = True) -> Tensor:
    """Momentum from the first gradient on."""
    m = memory.get("m", g)
    memory["m"] = a["momentum"] * m + _torque(g, m, memory, a, whole) * g
    return moved(w, memory["m"], a)


def adatam(w: Tensor, g: Tensor, memory: Memory, a: Arguments, whole: bool = True) -> Tensor:
    """Divided by the root of the second moment, none corrected."""
    m = memory.get("m", torch.zeros_like(g))
    memory["m"] = a["betas"][0] * m + _torque(g, m, memory, a, whole) * g
    return moved(w, memory["m"] / (running(memory, "v", g * g, a["betas"][1]).sqrt() + a["eps"]), a)


_BY_ENTRIES = "the product of columns of length 1 for their cosine"
TAM = Algorithm(
    name="tam",
    title="TAM",
    paper="Malviya et al. 2024, 2412.18790, algorithm 1",
    equation="s <- c s + (1 - c) cos(m, g); m <- mu m + (eps + (1 + s) / 2) g; w <- w - lr m",
    defaults={"lr": 1e-3, "momentum": 0.9, "decay_rate": 0.9, "eps": 1e-8, "weight_decay": 0.0},
    step=decoupled(each(tam)),
    variants={_BY_ENTRIES: decoupled(each(partial(tam, whole=False)))},
)
ADATAM = Algorithm(
    name="adatam",
    title="AdaTAM",
    paper="Malviya et al. 2024, 2412.18790, algorithm 2",
    equation="s <- c s + (1 - c) cos(m, g); m <- b1 m + (eps + (1 + s) / 2) g; w <- w - lr m / (sqrt(v) + eps)",
    defaults={**ADAM_DEFAULTS, "decay_rate": 0.9},
    step=decoupled(each(adatam)),
    variants={_BY_ENTRIES: decoupled(each(partial(adatam, whole=False)))},
)


def pid(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The gradient, its sum and its change, as a controller has them."""
    if not a["momentum"]:
        return moved(w, g, a)
    memory["i"] = a["momentum"] * memory.get("i", 0.0) + (1 - a["dampening"]) * g
    before = memory.get("g", g if memory["t"] == 1 else torch.zeros_like(g))
    change = running(memory, "d", g - before, a["momentum"])
    memory["g"] = g
    return moved(w, g + a["integral"] * memory["i"] + a["derivative"] * change, a)


PID = Algorithm(
    name="pid",
    title="PID",
    paper="An et al. 2018, equations 11 to 13",
    equation="i <- mu i + g; d <- mu d + (1 - mu) (g - g_before); w <- w - lr (g + I i + D d)",
    defaults={
        **{"lr": 1e-3, "momentum": 0.9, "dampening": 0.0},
        **{"derivative": 10.0, "integral": 5.0, "weight_decay": 0.0},
    },
    step=coupled(each(pid)),
)


def msvag(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The average, times what of it is no noise."""
    b, t = a["beta"], memory["t"]
    m, v = running(memory, "m", g, b) / (1 - b**t), running(memory, "v", g * g, b) / (1 - b**t)
    rho = (1 - b) * (1 + b**t) / ((1 + b) * (1 - b**t))
    noise = rho * (v - m * m) / (1 - rho) if t > 1 else torch.zeros_like(g)
    share = (m * m / (m * m + noise)).nan_to_num(0.0).clamp(0.0, 1.0)
    return moved(w, share * m, a)


MSVAG = Algorithm(
    name="msvag",
    title="M-SVAG",
    paper="Balles, Hennig 2018, 1705.07774, algorithm 2",
    equation="s = (v^ - m^2) / (1 - rho), rho = (1 - b) (1 + b^t) / ((1 + b) (1 - b^t)); w <- w - lr m^ m^2 / (m^2 + rho s)",
    defaults={"lr": 0.01, "beta": 0.9},
    step=each(msvag),
)


def ano(yogi: bool) -> Update:
    """As long as the gradient, as signed as the momentum; squares as Yogi's, or those beside the sign forgotten."""

    def update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        one, two = a["betas"]
        m, v, square = running(memory, "m", g, one), memory.get("v", torch.zeros_like(g)), g * g
        memory["v"] = (v if yogi else two * v) - (1 - two) * (v - square).sign() * square
        root = (memory["v"] / (1 - two ** memory["t"])).sqrt()
        return moved(w, g.abs() * m.sign() / (root + a["eps"]), a)

    return update


ANO = Algorithm(
    name="ano",
    title="Ano",
    paper="Kegreisz 2025, 2508.18258, algorithm 1",
    equation="v <- b2 v - (1 - b2) sign(v - g^2) g^2; w <- w - lr |g| sign(m) / (sqrt(v^) + eps)",
    defaults={**ADAM_DEFAULTS, "lr": 1e-4, "betas": (0.92, 0.99)},
    step=decoupled(each(ano(yogi=False))),
    variants={"v as Yogi's": decoupled(each(ano(yogi=True)))},
)


def bcos(w: Tensor, g: Tensor, memory: Memory, a: Arguments, late: bool = False) -> Tensor:
    """The second moment of the momentum, foreseen from the one before it, or too late from itself."""
    b, before = a["beta"], memory.get("m", g)
    m = memory["m"] = b * before + (1 - b) * g
    before = m if late else before
    v = b * b * (3 - 2 * b) * before**2 + (1 - b) ** 2 * g * g + 2 * b * (1 - b) ** 2 * before * g
    return moved(w, m / (v.sqrt() + a["eps"]), a)


BCOS = Algorithm(
    name="bcos",
    title="BCOS-c",
    paper="Jiang, Xiao 2025, 2507.08768, algorithm 3, the conditional one",
    equation="v = (3 b^2 - 2 b^3) m_before^2 + (1 - b)^2 g^2 + 2 b (1 - b)^2 m_before g; m from the first g on; w <- w - lr m / (sqrt(v) + eps)",
    defaults={"lr": 1e-3, "beta": 0.9, "eps": 1e-6, "weight_decay": 0.1},
    step=decoupled(each(bcos)),
    slips={
        "the second moment were foreseen from the momentum after the gradient": decoupled(
            each(partial(bcos, late=True))
        )
    },
)

INERTIA = (PNM, ADAPNM, ACCSGD, SRMM, ADAI, TAM, ADATAM, PID, MSVAG, ANO, BCOS)

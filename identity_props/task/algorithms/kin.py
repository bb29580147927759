"""Adam's kin: other second moments, other orders of momentum and scale, more than two averages."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Memory,
    Update,
    down,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import coupled, decoupled, proximal
from identity_props.task.algorithms.moments import ADAM_DEFAULTS, complemented, corrections, moments

# Second moments -----------------------------------------------------------------------------------


def adabelief(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The average of (g - m)^2, with eps added to it at each step, and beside its root."""
    first, second = corrections(memory, a)
    m = running(memory, "m", g, a["betas"][0])
    s = memory["s"] = running(memory, "s", (g - m) ** 2, a["betas"][1]) + a["eps"]
    return moved(w, m / first / ((s / second).sqrt() + a["eps"]), a)


def adabelief_once(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps beside the root alone."""
    first, second = corrections(memory, a)
    m = running(memory, "m", g, a["betas"][0])
    s = running(memory, "s", (g - m) ** 2, a["betas"][1])
    return moved(w, m / first / ((s / second).sqrt() + a["eps"]), a)


def adabelief_of_before(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Of (g - m)^2 with the m before this gradient."""
    first, second = corrections(memory, a)
    apart = g - memory.get("m", 0)
    m = running(memory, "m", g, a["betas"][0])
    s = memory["s"] = running(memory, "s", apart**2, a["betas"][1]) + a["eps"]
    return moved(w, m / first / ((s / second).sqrt() + a["eps"]), a)


ADABELIEF = Algorithm(
    name="adabelief",
    title="AdaBelief",
    paper="Zhuang et al. 2020, algorithm 2",
    equation="s <- b2 s + (1 - b2) (g - m)^2 + eps; w <- w - lr m^ / (sqrt(s^) + eps)",
    defaults=ADAM_DEFAULTS,
    step=coupled(each(adabelief)),
    variants={"eps beside the root alone": coupled(each(adabelief_once))},
    slips={"it measured belief by the average before the gradient": coupled(each(adabelief_of_before))},
)


def yogi(corrected: bool, start: float | None, first_moment: float = 0.0) -> Update:
    """V moves towards g^2 by (1 - b2) g^2 at most; it begins at the number given, else at the first g^2."""

    def update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        square = g * g
        v = memory.get("v", square if start is None else torch.full_like(g, start))
        v = memory["v"] = v - (1 - a["betas"][1]) * (v - square).sign() * square
        memory.setdefault("m", first_moment)
        m, (first, second) = running(memory, "m", g, a["betas"][0]), corrections(memory, a)
        if not corrected:
            first = second = 1.0
        moved: Tensor = w - a["lr"] * m / first / ((v / second).sqrt() + a["eps"])
        return moved

    return update


YOGI = Algorithm(
    name="yogi",
    title="Yogi",
    paper="Zaheer et al. 2018, algorithm 2",
    equation="v <- v - (1 - b2) sign(v - g^2) g^2, at first g^2; w <- w - lr m / (sqrt(v) + eps)",
    defaults={**ADAM_DEFAULTS, "lr": 1e-2, "eps": 1e-3},
    step=coupled(each(yogi(False, None))),
    variants={
        "moments corrected, squares from 1e-6": coupled(each(yogi(True, 1e-6))),
        "moments corrected, both from 1e-6": coupled(each(yogi(True, 1e-6, 1e-6))),
        "squares uncorrected, both from 1e-6": coupled(each(yogi(False, 1e-6, 1e-6))),
        "squares from 1e-6": coupled(each(yogi(False, 1e-6))),
        "moments corrected, squares from 0": coupled(each(yogi(True, 0.0))),
    },
)


# Orders -------------------------------------------------------------------------------------------


def adopt(power: float, ahead: int = 0) -> Update:
    """The gradient is scaled by the squares before it, clipped at (t - 1 + ahead)^power, then averaged."""

    def update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        if memory["t"] == 1:
            memory["v"] = g * g
            return w
        scaled = g / memory.setdefault("v", torch.zeros_like(g)).sqrt().clamp_min(a["eps"])
        if power:
            most = (memory["t"] - 1 + ahead) ** power
            scaled = scaled.clamp(-most, most)
        new = moved(w, running(memory, "m", scaled, a["betas"][0]), a)
        running(memory, "v", g * g, a["betas"][1])
        return new

    return update


ADOPT = Algorithm(
    name="adopt",
    title="ADOPT",
    paper="Taniguchi et al. 2024, algorithm 2",
    equation="m <- b1 m + (1 - b1) g / max(sqrt(v), eps); w <- w - lr m; v <- b2 v + (1 - b2) g^2, at first g^2 alone",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.9999), "eps": 1e-6},
    step=coupled(each(adopt(0))),
    variants={
        "clipped at t^(1/4), as its authors' code": coupled(each(adopt(0.25))),
        "clipped at (t + 1)^(1/4)": coupled(each(adopt(0.25, 1))),
    },
)


def laprop(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The gradient is scaled, then averaged."""
    first, second = corrections(memory, a)
    v = running(memory, "v", g * g, a["betas"][1])
    m = running(memory, "m", g / ((v / second).sqrt() + a["eps"]), a["betas"][0])
    return moved(w, m / first, a)


def laprop_rate_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The rate is inside the average, and what corrects is the average of rates over the last rate."""
    b1, second = a["betas"][0], corrections(memory, a)[1]
    v = running(memory, "v", g * g, a["betas"][1])
    m = running(memory, "m", a["lr"] * g / ((v / second).sqrt() + a["eps"]), b1)
    memory["rates"] = b1 * memory.get("rates", 0.0) + (1 - b1) * a["lr"]
    return down(w, m * a["lr"] / memory["rates"])


def laprop_eps_hat(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The same with eps not corrected."""
    return laprop_rate_inside(w, g, memory, {**a, "eps": a["eps"] / corrections(memory, a)[1] ** 0.5})


LAPROP = Algorithm(
    name="laprop",
    title="LaProp",
    paper="Ziyin, Wang, Ueda 2020, algorithm 1",
    equation="m <- b1 m + (1 - b1) g / (sqrt(v^) + eps); w <- w - lr m / (1 - b1^t)",
    defaults={**ADAM_DEFAULTS, "lr": 4e-4, "eps": 1e-15},
    step=decoupled(each(laprop)),
    variants={"the rate inside the average, as its authors' code": decoupled(each(laprop_eps_hat))},
)


# More averages ------------------------------------------------------------------------------------


def ademamix(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """A second, slower average of gradients, not corrected."""
    fast, squares, slow = a["betas"]
    m, v = moments(g, memory, {**a, "betas": (fast, squares)})
    return moved(w, (m + a["alpha"] * running(memory, "slow", g, slow)) / (v.sqrt() + a["eps"]), a)


ADEMAMIX = Algorithm(
    name="ademamix",
    title="AdEMAMix",
    paper="Pagliardini, Ablin, Grangier 2024, algorithm 1, without its schedules",
    equation="w <- w - lr ((m1^ + alpha m2) / (sqrt(v^) + eps) + wd w)",
    defaults={**ADAM_DEFAULTS, "betas": (0.9, 0.999, 0.9999), "alpha": 5.0},
    step=decoupled(each(ademamix)),
)


def adan(w: Tensor, g: Tensor, memory: Memory, a: Arguments, sign: float = 1.0) -> Tensor:
    """Averages of g, of its change, and of the square of g as the change foresees it, all corrected."""
    b1, b2, b3 = a["betas"]
    change = sign * (g - memory.get("g", g))
    memory["g"] = g
    m, v = running(memory, "m", g, b1), running(memory, "v", change, b2)
    n = running(memory, "n", (g + b2 * change) ** 2, b3)
    one, two, three = corrections(memory, a)
    return moved(w, (m / one + b2 * v / two) / ((n / three).sqrt() + a["eps"]), a)


def adan_as_written(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Averages begin at the first g and g^2, and are not corrected."""
    b1, b2, b3 = a["betas"]
    change = g - memory.get("g", g)
    memory["g"] = g
    m = memory["m"] = b1 * memory.get("m", g) + (1 - b1) * g
    v = running(memory, "v", change, b2)
    n = memory["n"] = b3 * memory.get("n", g * g) + (1 - b3) * (g + b2 * change) ** 2
    return moved(w, (m + b2 * v) / (n.sqrt() + a["eps"]), a)


ADAN = Algorithm(
    name="adan",
    title="Adan",
    paper="Xie et al. 2022, algorithm 1, betas as 1 - theirs and averages corrected, as its authors' code",
    equation="w <- (w - lr (m^ + b2 v^) / (sqrt(n^) + eps)) / (1 + lr wd), v of g - g_before, n of (g + b2 (g - g_before))^2",
    defaults={**ADAM_DEFAULTS, "betas": (0.98, 0.92, 0.99)},
    step=proximal(each(adan)),
    variants={
        "averages from the first gradient, as the paper": proximal(each(adan_as_written)),
        "betas as the paper's, averages from the first gradient": proximal(
            each(complemented(adan_as_written))
        ),
        "betas as the paper's": proximal(each(complemented(adan))),
        "decoupled decay": decoupled(each(adan)),
    },
    slips={"the change had the other sign": proximal(each(partial(adan, sign=-1.0)))},
)


def quasi_hyperbolic(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Gradient and momentum mixed: (1 - nu) g + nu m."""
    m = running(memory, "m", g, a["momentum"])
    return moved(w, ((1 - a["nu"]) * g + a["nu"] * m), a)


QHM = Algorithm(
    name="qhm",
    title="QHM",
    paper="Ma, Yarats 2019, equation 3",
    equation="m <- beta m + (1 - beta) g; w <- w - lr ((1 - nu) g + nu m)",
    defaults={"lr": 1e-3, "momentum": 0.999, "nu": 0.7, "weight_decay": 0.0},
    step=coupled(each(quasi_hyperbolic)),
)


def qhadam(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Gradient and momentum mixed, squares too."""
    m, v = moments(g, memory, a)
    one, two = a["nus"]
    return moved(w, ((1 - one) * g + one * m) / (((1 - two) * g * g + two * v).sqrt() + a["eps"]), a)


QHADAM = Algorithm(
    name="qhadam",
    title="QHAdam",
    paper="Ma, Yarats 2019, equation 12",
    equation="w <- w - lr ((1 - nu1) g + nu1 m^) / (sqrt((1 - nu2) g^2 + nu2 v^) + eps)",
    defaults={**ADAM_DEFAULTS, "nus": (1.0, 1.0)},
    step=coupled(each(qhadam)),
)


def aggmo(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The mean of several velocities."""
    memory["vs"] = [mu * v + g for mu, v in zip(a["betas"], memory.get("vs", [0] * 9), strict=False)]
    return moved(w, torch.stack(memory["vs"]).mean(0), a)


AGGMO = Algorithm(
    name="aggmo",
    title="AggMo",
    paper="Lucas et al. 2019, algorithm 1",
    equation="v_k <- mu_k v_k + g; w <- w - lr mean(v_k)",
    defaults={"lr": 1e-3, "betas": (0.0, 0.9, 0.99), "weight_decay": 0.0},
    step=coupled(each(aggmo)),
)


def diffgrad_eps_hat(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The same with eps not corrected."""
    second = 1 - a["betas"][1] ** memory["t"]
    return diffgrad(w, g, memory, {**a, "eps": a["eps"] / second**0.5})


def diffgrad(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Adam times the sigmoid of how much the gradient changed."""
    m, v = moments(g, memory, a)
    friction = (g - memory.get("g", 0)).abs().sigmoid()
    memory["g"] = g
    return moved(w, friction * m / (v.sqrt() + a["eps"]), a)


DIFFGRAD = Algorithm(
    name="diffgrad",
    title="diffGrad",
    paper="Dubey et al. 2020, equation 8",
    equation="w <- w - lr sigmoid(|g - g_before|) m^ / (sqrt(v^) + eps)",
    defaults=ADAM_DEFAULTS,
    step=coupled(each(diffgrad)),
    variants={"eps not corrected, as its authors' code": coupled(each(diffgrad_eps_hat))},
)

KIN = (ADABELIEF, YOGI, ADOPT, LAPROP, ADEMAMIX, ADAN, QHM, QHADAM, AGGMO, DIFFGRAD)

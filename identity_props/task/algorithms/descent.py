"""Descent: algorithms that follow the gradient, its momentum, or their signs."""

from __future__ import annotations

import torch
from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, Memory, down, each, moved, running
from identity_props.task.algorithms.conventions import coupled, decoupled, given

# Momentum -----------------------------------------------------------------------------------------


def velocity(g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The heavy ball: v <- mu v + (1 - dampening) g, at first g."""
    memory["v"] = a["momentum"] * memory["v"] + (1 - a["dampening"]) * g if "v" in memory else g
    v: Tensor = memory["v"]
    return v


def sgd(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """W - lr v, with Nesterov's look-ahead w - lr (g + mu v)."""
    v = velocity(g, memory, a)
    return moved(w, (g + a["momentum"] * v if a["nesterov"] else v), a)


def rate_in_velocity(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """As Sutskever writes it: v <- mu v - lr g, w + v, with Nesterov's w + mu v - lr g."""
    push = a["lr"] * g
    memory["v"] = a["momentum"] * memory.get("v", 0) - (1 - a["dampening"]) * push
    return down(w, push - a["momentum"] * memory["v"] if a["nesterov"] else -memory["v"])


def dampened_at_first(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The velocity begins at 0, so that its first term is dampened as the others."""
    memory["v"] = a["momentum"] * memory.get("v", 0) + (1 - a["dampening"]) * g
    return moved(w, (g + a["momentum"] * memory["v"] if a["nesterov"] else memory["v"]), a)


def averaged_velocity(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """An exponential average of gradients from 0, as optimizers with signs or matrices have it."""
    v = running(memory, "v", g, a["momentum"])
    return moved(w, ((1 - a["momentum"]) * g + a["momentum"] * v if a["nesterov"] else v), a)


def velocity_of_before(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The weights move by the velocity before this gradient."""
    v = memory.get("v", g)
    velocity(g, memory, a)
    return moved(w, v, a)


def velocity_of_before_from_none(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The same, and at first they rest."""
    memory.setdefault("v", torch.zeros_like(g))
    return velocity_of_before(w, g, memory, a)


def whole_ahead(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The look-ahead takes the velocity without mu."""
    v = velocity(g, memory, a)
    return moved(w, g + v if a["nesterov"] else v, a)


def added_twice(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The velocity grows by mu g and is never damped."""
    memory["v"] = memory["v"] + a["momentum"] * g if "v" in memory else g
    return moved(w, memory["v"], a)


LOOKS_AHEAD = "Nesterov's look-ahead, which is no option"
SGD = Algorithm(
    name="sgd",
    title="SGD",
    paper="Robbins, Monro 1951; momentum: Polyak 1964; Nesterov 1983 as Sutskever et al. 2013",
    equation="v <- mu v + (1 - dampening) (g + wd w), at first g + wd w; w <- w - lr v, or w - lr (g + mu v)",
    defaults={
        **{"lr": 1e-3, "momentum": 0.0, "dampening": 0.0},
        **{"weight_decay": 0.0, "nesterov": False},
    },
    step=coupled(each(sgd)),
    variants={
        "the rate inside the velocity, as Keras": coupled(each(rate_in_velocity)),
        "a velocity that begins at 0": coupled(each(dampened_at_first)),
        "an average of gradients for the velocity": coupled(each(averaged_velocity)),
        LOOKS_AHEAD: coupled(given(each(sgd), nesterov=True)),
        f"{LOOKS_AHEAD}, the rate inside the velocity": coupled(given(each(rate_in_velocity), nesterov=True)),
    },
    slips={
        "Nesterov's look-ahead were missing": coupled(given(each(sgd), nesterov=False)),
        "Nesterov's look-ahead were taken unasked": coupled(given(each(sgd), nesterov=True)),
        "momentum were ignored": coupled(given(each(sgd), momentum=0.0, nesterov=False)),
        "weights moved by the velocity of the step before": coupled(each(velocity_of_before)),
        "weights moved by the velocity of the step before, at first by none": coupled(
            each(velocity_of_before_from_none)
        ),
        "the velocity were never damped": coupled(each(added_twice)),
        "the look-ahead took the whole velocity, not mu times it": coupled(each(whole_ahead)),
    },
)


def asgd(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The rate of a step is set at the end of the step before."""
    eta: float = memory["eta"] if "eta" in memory else a["lr"]
    memory["eta"] = a["lr"] / (1 + a["lambd"] * a["lr"] * memory["t"]) ** a["alpha"]
    return down(w * (1 - a["lambd"] * eta), g * eta)


ASGD = Algorithm(
    name="asgd",
    title="Averaged SGD",
    paper="Polyak, Juditsky 1992, with the rate of Bottou 2012",
    equation="w <- (1 - lambd eta) w - eta g, eta <- lr / (1 + lambd lr t)^alpha",
    defaults={"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0},
    step=coupled(each(asgd)),
)


# Signs --------------------------------------------------------------------------------------------


def rprop(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Step lengths grow where the sign stays and shrink where it turns, and there the entry rests."""
    (less, more), (least, most) = a["etas"], a["step_sizes"]
    turned = (g * memory.get("g", torch.zeros_like(g))).sign()
    size = memory.get("size", torch.full_like(g, a["lr"]))
    size = torch.where(turned > 0, more * size, torch.where(turned < 0, less * size, size))
    memory["size"] = size.clamp(least, most)
    memory["g"] = torch.where(turned < 0, 0.0, g)
    return down(w, memory["g"].sign() * memory["size"])


RPROP = Algorithm(
    name="rprop",
    title="Rprop",
    paper="Riedmiller, Braun 1993; without backtracking, as Igel, Huesken 2003 (iRprop-)",
    equation="size <- size (eta+ if g g_before > 0, eta- and g <- 0 if < 0), first lr; w <- w - sign(g) size",
    defaults={"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)},
    step=each(rprop),
)


def signum(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """W - lr sign(m)."""
    return moved(w, running(memory, "m", g, a["momentum"]).sign(), a)


def signum_velocity(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """W - lr sign(g + mu v), with a velocity and Nesterov's look-ahead."""
    v = velocity(g, memory, {**a, "dampening": 0.0})
    return moved(w, (g + a["momentum"] * v).sign(), a)


SIGNUM = Algorithm(
    name="signum",
    title="Signum",
    paper="Bernstein et al. 2018, algorithm 2; signSGD without momentum",
    equation="m <- mu m + (1 - mu) g; w <- w - lr (sign(m) + wd w)",
    defaults={"lr": 1e-4, "momentum": 0.9, "weight_decay": 0.0},
    step=decoupled(each(signum)),
    variants={
        "Nesterov's look-ahead inside the sign": decoupled(each(signum_velocity)),
        "coupled decay, inside the sign": coupled(each(signum)),
    },
)


def lion(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """W - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g."""
    first, second = a["betas"]
    c = first * memory.get("m", 0) + (1 - first) * g
    running(memory, "m", g, second)
    return moved(w, c.sign(), a)


def lion_after(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The momentum is updated before it is read."""
    first, second = a["betas"]
    m = running(memory, "m", g, second)
    return moved(w, (first * m + (1 - first) * g).sign(), a)


def lion_swapped(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The betas the other way round."""
    return lion(w, g, memory, {**a, "betas": a["betas"][::-1]})


LION = Algorithm(
    name="lion",
    title="Lion",
    paper="Chen et al. 2023, algorithm 2",
    equation="c = b1 m + (1 - b1) g; w <- w - lr (sign(c) + wd w); m <- b2 m + (1 - b2) g",
    defaults={"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0},
    step=decoupled(each(lion)),
    slips={
        "decay were coupled, inside the sign": coupled(each(lion)),
        "the momentum were updated before it is read": decoupled(each(lion_after)),
        "the two betas were swapped": decoupled(each(lion_swapped)),
    },
)


def focus(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Signs of the momentum, and of the way from the weights' own average, which draws them back."""
    two, m = a["betas"][1], running(memory, "m", g, a["betas"][0])
    mean = running(memory, "w", w, two) / (1 - two ** memory["t"])
    return moved(w, m.sign() + a["gamma"] * (w - mean).sign() + a["weight_decay"] * mean, a)


FOCUS = Algorithm(
    name="focus",
    title="FOCUS",
    paper="Liu, Liu, Gore 2025, 2501.12243, algorithm 1",
    equation="m of g with b1, x of w with b2; w <- w - lr (sign(m) + gamma sign(w - x / (1 - b2^t)) + wd x / (1 - b2^t))",
    defaults={"lr": 1e-2, "betas": (0.9, 0.999), "gamma": 0.1, "weight_decay": 0.0},
    step=each(focus),
)

DESCENT = (SGD, ASGD, RPROP, SIGNUM, LION, FOCUS)

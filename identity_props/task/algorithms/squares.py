"""Squares: algorithms that divide the gradient by the root of what its squares have been."""

from __future__ import annotations

import torch
from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, Memory, down, each, moved, running
from identity_props.task.algorithms.conventions import coupled, given

# RMSprop ------------------------------------------------------------------------------------------


def rmsprop(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps beside the root."""
    return _moved(w, g / (_variance(g, memory, a).sqrt() + a["eps"]), memory, a)


def rmsprop_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps inside the root."""
    return _moved(w, g / (_variance(g, memory, a) + a["eps"]).sqrt(), memory, a)


def rmsprop_tensorflow(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps inside the root, squares begin at 1, and the rate is inside the momentum."""
    memory.setdefault("v", torch.ones_like(g))
    memory["b"] = (
        a["momentum"] * memory.get("b", 0) + a["lr"] * g / (_variance(g, memory, a) + a["eps"]).sqrt()
    )
    return down(w, memory["b"])


def rmsprop_rate_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The rate is inside the momentum."""
    memory["b"] = a["momentum"] * memory.get("b", 0) + a["lr"] * g / (
        _variance(g, memory, a).sqrt() + a["eps"]
    )
    return down(w, memory["b"])


def rmsprop_complemented(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Alpha weighs the square of the gradient."""
    return rmsprop(w, g, memory, {**a, "alpha": 1 - a["alpha"]})


def rmsprop_before(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by the squares before this gradient."""
    v = memory.get("v", torch.zeros_like(g))
    _variance(g, memory, a)
    return moved(w, g / (v.sqrt() + a["eps"]), a)


def rmsprop_added(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The square of the average is added to the average of squares."""
    v = _variance(g, memory, {**a, "centered": False}) + running(memory, "m", g, a["alpha"]) ** 2
    return _moved(w, g / (v.sqrt() + a["eps"]), memory, a)


def rmsprop_rootless(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by the squares themselves."""
    return _moved(w, g / (_variance(g, memory, a) + a["eps"]), memory, a)


def _variance(g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The average of squares, less the square of the average where it is centered."""
    v = running(memory, "v", g * g, a["alpha"])
    return v - running(memory, "m", g, a["alpha"]) ** 2 if a["centered"] else v


def _moved(w: Tensor, step: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Through the momentum, b <- mu b + step."""
    memory["b"] = a["momentum"] * memory.get("b", 0) + step
    return moved(w, memory["b"], a)


RMSPROP = Algorithm(
    name="rmsprop",
    title="RMSprop",
    paper="Tieleman, Hinton 2012, lecture 6.5; centered: Graves 2013, equations 38 to 45",
    equation="v <- alpha v + (1 - alpha) g^2, less m^2 if centered; b <- mu b + g / (sqrt(v) + eps); w <- w - lr b",
    defaults={
        **{"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0},
        **{"momentum": 0.0, "centered": False},
    },
    step=coupled(each(rmsprop)),
    variants={
        "eps inside the root, as TensorFlow": coupled(each(rmsprop_inside)),
        "eps inside the root, squares from 1, the rate in the momentum, as TensorFlow 1": coupled(
            each(rmsprop_tensorflow)
        ),
        "the rate inside the momentum": coupled(each(rmsprop_rate_inside)),
    },
    slips={
        "squares were averaged with 0.95": coupled(given(each(rmsprop), alpha=0.95)),
        "squares were averaged with 0.9": coupled(given(each(rmsprop), alpha=0.9)),
        "it were centered unasked": coupled(given(each(rmsprop), centered=True)),
        "it were not centered": coupled(given(each(rmsprop), centered=False)),
        "the square of the average were added": coupled(each(rmsprop_added)),
        "the root of the squares were not taken": coupled(each(rmsprop_rootless)),
        "it divided by the squares of the step before": coupled(each(rmsprop_before)),
        "alpha weighed the gradient and not the average": coupled(each(rmsprop_complemented)),
    },
)


# Adagrad, Adadelta --------------------------------------------------------------------------------


def adagrad(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps beside the root."""
    rate = a["lr"] / (1 + (memory["t"] - 1) * a["lr_decay"])
    return down(w, rate * g / (_sum(g, memory, a).sqrt() + a["eps"]))


def adagrad_inside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps inside the root."""
    rate = a["lr"] / (1 + (memory["t"] - 1) * a["lr_decay"])
    return down(w, rate * g / (_sum(g, memory, a) + a["eps"]).sqrt())


def adagrad_before(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by the sum before this gradient."""
    before = memory.get("v", torch.full_like(g, a["initial_accumulator_value"]))
    _sum(g, memory, a)
    return moved(w, g / (before.sqrt() + a["eps"]), a)


def adagrad_forgetful(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by this gradient alone."""
    return moved(w, g / (g.abs() + a["eps"]), a)


def adagrad_rootless(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Divided by the sum itself."""
    return moved(w, g / (_sum(g, memory, a) + a["eps"]), a)


def _sum(g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    start: float = a["initial_accumulator_value"]
    memory["v"] = g * g + memory.get("v", start)
    total: Tensor = memory["v"]
    return total


ADAGRAD = Algorithm(
    name="adagrad",
    title="Adagrad",
    paper="Duchi, Hazan, Singer 2011, the diagonal one",
    equation="v <- v + g^2; w <- w - lr / (1 + (t - 1) lr_decay) g / (sqrt(v) + eps)",
    defaults={
        **{"lr": 1e-2, "lr_decay": 0.0, "weight_decay": 0.0},
        **{"initial_accumulator_value": 0.0, "eps": 1e-10},
    },
    step=coupled(each(adagrad)),
    variants={"eps inside the root, as Keras": coupled(each(adagrad_inside))},
    slips={
        "squares began at 0.1": coupled(given(each(adagrad), initial_accumulator_value=0.1)),
        "it divided by the sum of before the gradient": coupled(each(adagrad_before)),
        "squares were not summed": coupled(each(adagrad_forgetful)),
        "the root of the sum were not taken": coupled(each(adagrad_rootless)),
    },
)


def adadelta(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Steps in the units of the weights: u = RMS(u) / RMS(g) g."""
    v = running(memory, "v", g * g, a["rho"])
    u = ((memory.get("u", torch.zeros_like(g)) + a["eps"]) / (v + a["eps"])).sqrt() * g
    running(memory, "u", u * u, a["rho"])
    return moved(w, u, a)


def adadelta_beside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Eps beside the roots."""
    v = running(memory, "v", g * g, a["rho"])
    u = (memory.get("u", torch.zeros_like(g)).sqrt() + a["eps"]) / (v.sqrt() + a["eps"]) * g
    running(memory, "u", u * u, a["rho"])
    return moved(w, u, a)


ADADELTA = Algorithm(
    name="adadelta",
    title="Adadelta",
    paper="Zeiler 2012, algorithm 1",
    equation="v <- rho v + (1 - rho) g^2; s = sqrt(u + eps) / sqrt(v + eps) g; u <- rho u + (1 - rho) s^2; w <- w - lr s",
    defaults={"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    step=coupled(each(adadelta)),
    slips={"eps were beside the roots": coupled(each(adadelta_beside))},
)

SQUARES = (RMSPROP, ADAGRAD, ADADELTA)

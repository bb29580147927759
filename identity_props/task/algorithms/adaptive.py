"""Optimizers whose rate adapts to a whole tensor, by its factors, slices or norm: Adafactor, SM3, LARS, LAMB."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, Memory, each, moved, running
from identity_props.task.algorithms.conventions import given
from identity_props.task.algorithms.moments import moments


def decayed(w: Tensor, a: Arguments) -> Tensor:
    """The weight after its decoupled decay, (1 - lr weight_decay) w."""
    return w * (1 - float(a["lr"]) * float(a["weight_decay"]))


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


# Adafactor ---------------------------------------------------------------------------------------------


def factored(square: Tensor, memory: Memory, beta: float, least: float = 0.0) -> Tensor:
    """Second moments [..., n, m] from the running means of rows and columns; of a vector as they are."""
    if square.ndim < 2:
        return running(memory, "v", square, beta)
    rows = running(memory, "rows", square.mean(-1, keepdim=True), beta)
    columns = running(memory, "columns", square.mean(-2, keepdim=True), beta)
    return rows * columns / rows.mean(-2, keepdim=True).clamp_min(least)


def clipped(g: Tensor, v: Tensor, d: float) -> Tensor:
    """The update g / sqrt(v), no longer than d in its root mean square."""
    update = g / v.sqrt()
    return update / (_rms(update) / d).clamp_min(1.0)


def _relative_rate(w: Tensor, t: int, a: Arguments) -> Tensor:
    """max(eps_2, RMS(w)) min(lr, 1 / sqrt(t))."""
    rate: Tensor = _rms(w).clamp_min(a["eps"][1]) * min(a["lr"], t**-0.5)
    return rate


def _adafactor(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    rate = _relative_rate(w, memory["t"], a)
    v = factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - rate * clipped(g, v, a["d"])


def _adafactor_torch(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    least = torch.finfo(w.dtype).eps if a["eps"][0] is None else a["eps"][0]
    rate = _relative_rate(w, memory["t"], a)
    v = factored(g.square(), memory, 1 - memory["t"] ** a["beta2_decay"], least)
    return decayed(w, a) - rate * clipped(g, v.clamp_min(least**2), a["d"])


def _averaged_update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    v = factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return moved(decayed(w, a), running(memory, "m", clipped(g, v, a["d"]), a["beta1"]), a)


def _by_norm(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    v = factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    update = clipped(g, v, a["d"] / g.numel() ** 0.5)
    return moved(decayed(w, a), running(memory, "m", update, a["beta1"]), a)


def _rate_averaged_too(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    v = factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - running(memory, "m", a["lr"] * clipped(g, v, a["d"]), a["beta1"])


def _as_long_as_weights(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The rate times the weights' size, inside the average."""
    rate = a["lr"] * _rms(w).clamp_min(a["eps"][1])
    v = factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - running(memory, "m", rate * clipped(g, v, a["d"]), a["beta1"])


_SHAZEER = "Shazeer, Stern 2018, 1804.04235"
_ADAFACTOR = {"lr": 1e-2, "beta2_decay": -0.8, "eps": (1e-30, 1e-3), "d": 1.0, "weight_decay": 0.0}

ADAFACTOR = (
    Algorithm(
        "adafactor",
        "Adafactor",
        f"{_SHAZEER}, algorithm 4",
        "V = R C / mean(R) of running means of g^2 + eps_1, beta_2 = 1 - t^-0.8; U = g / sqrt(V), "
        "w -= max(eps_2, RMS(w)) min(lr, 1 / sqrt(t)) U / max(1, RMS(U) / d)",
        _ADAFACTOR,
        each(_adafactor),
    ),
    Algorithm(
        "adafactor-floor",
        "Adafactor, eps_1 a floor",
        f"{_SHAZEER}, algorithm 4; eps_1 as torch.optim.Adafactor documents it",
        "as adafactor, with mean(R) >= eps_1 and V >= eps_1^2 in place of g^2 + eps_1",
        {**_ADAFACTOR, "eps": (None, 1e-3)},
        each(_adafactor_torch),
    ),
    Algorithm(
        "adafactor-momentum",
        "Adafactor, with momentum and a rate of its own",
        f"{_SHAZEER}, sections 5 to 7: update clipping, increasing decay, absolute steps, momentum",
        "U as in adafactor, clipped; m = beta_1 m + (1 - beta_1) U; w -= lr m",
        {**_ADAFACTOR, "beta1": 0.9, "eps": (1e-30, 1e-3)},
        each(_averaged_update),
        variants={
            "the rate times the weights' size, inside the average, as fairseq": each(_as_long_as_weights),
            "without momentum": given(each(_averaged_update), beta1=0.0),
        },
        slips={
            "the rate is kept inside the average": each(_rate_averaged_too),
            "updates are no longer than d in their norm, not its root mean square": each(_by_norm),
            "updates are no longer than d in their norm, not its root mean square, without momentum": given(
                each(_by_norm), beta1=0.0
            ),
        },
    ),
)

# Norms of tensors -------------------------------------------------------------------------------------


def _trust(w: Tensor, update: Tensor) -> Tensor:
    """The quotient of norms |w| / |update|, 1 where either is 0."""
    ratio = w.norm() / update.norm()
    return torch.where((w.norm() > 0) & (update.norm() > 0), ratio, torch.ones_like(ratio))


def _lars_direction(w: Tensor, g: Tensor, a: Arguments) -> Tensor:
    """The decayed gradient, as long as trust_coefficient |w| where decay and gradient point the same way."""
    size, norm = w.norm(), g.norm()
    local = a["trust_coefficient"] * size / (norm + a["weight_decay"] * size)
    trust = torch.where((size > 0) & (norm > 0), local, torch.ones_like(size))
    return (g + w * float(a["weight_decay"])) * trust


def _lars(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return w - _velocity(memory, a["lr"] * _lars_direction(w, g, a), a)


def _lars_outside(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return moved(w, _velocity(memory, _lars_direction(w, g, a), a), a)


def _lars_of_matrices(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Vectors, such as biases, move as SGD moves them, without decay."""
    return _lars_outside(w, g, memory, a) if w.ndim > 1 else moved(w, _velocity(memory, g, a), a)


def _velocity(memory: Memory, update: Tensor, a: Arguments) -> Tensor:
    memory["velocity"] = a["momentum"] * memory.get("velocity", 0.0) + update
    found: Tensor = memory["velocity"]
    return found


def _lamb(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    (one, two), t = a["betas"], memory["t"]
    m, v = running(memory, "m", g, one), running(memory, "v", g.square(), two)
    return _lamb_step(w, (m / (1 - one**t)) / ((v / (1 - two**t)).sqrt() + a["eps"]), a)


def _lamb_turned_over(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    m, v = moments(g, memory, a)
    update = m / (v.sqrt() + a["eps"]) + a["weight_decay"] * w
    return moved(w, update / _trust(w, update), a)


def _lamb_uncorrected(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    m, v = running(memory, "m", g, a["betas"][0]), running(memory, "v", g.square(), a["betas"][1])
    return _lamb_step(w, m / (v.sqrt() + a["eps"]), a)


def _mean_corrected_late(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    factor = 1 / (1 - a["betas"][0] ** memory["t"])
    return w + (_lamb_uncorrected(w, g, memory, a) - w) * float(factor)


def _both_corrected_late(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    factor = (1 - a["betas"][1] ** memory["t"]) ** 0.5
    return w + (_mean_corrected_late(w, g, memory, a) - w) * float(factor)


def _lamb_step(w: Tensor, ratio: Tensor, a: Arguments) -> Tensor:
    update = ratio + a["weight_decay"] * w
    bounded = w * min(1.0, a["clamp_value"] / max(float(w.norm()), 1e-300))
    return moved(w, _trust(bounded, update) * update, a)


def _novograd(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    square = g.square().sum()
    beta = a["betas"][1] if "v" in memory else 0.0
    unit = g / (running(memory, "v", square, beta).sqrt() + a["eps"]) + a["weight_decay"] * w
    return moved(w, _velocity(memory, unit, {"momentum": a["betas"][0]}), a)


LAYERWISE = (
    Algorithm(
        "lars",
        "LARS",
        "You, Gitman, Ginsburg 2017, 1708.03888, algorithm 1",
        "v = momentum v + lr trust |w| / (|g| + weight_decay |w|) (g + weight_decay w), w -= v",
        {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "trust_coefficient": 1e-3},
        each(_lars),
    ),
    Algorithm(
        "lars-rate-outside",
        "LARS, the rate outside its momentum",
        "You, Gitman, Ginsburg 2017, 1708.03888, algorithm 1; momentum as torch.optim.SGD has it",
        "v = momentum v + trust |w| / (|g| + weight_decay |w|) (g + weight_decay w), w -= lr v",
        {"lr": 1e-2, "momentum": 0.9, "weight_decay": 5e-4, "trust_coefficient": 1e-3},
        each(_lars_outside),
        variants={"vectors as SGD moves them, as biases usually are": each(_lars_of_matrices)},
    ),
    Algorithm(
        "lamb",
        "LAMB",
        "You et al. 2020, 1904.00962, algorithm 2",
        "u = Adam's m / (sqrt(v) + eps), corrected, + weight_decay w; w -= lr |w| / |u| u",
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "clamp_value": math.inf},
        each(_lamb),
        slips={"the trust ratio is turned over": each(_lamb_turned_over)},
    ),
    Algorithm(
        "lamb-uncorrected",
        "LAMB, its averages not corrected",
        "You et al. 2020, 1904.00962, third version, algorithm 2",
        "u = m / (sqrt(v) + eps) + weight_decay w; w -= lr |w| / |u| u",
        {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "clamp_value": math.inf},
        each(_lamb_uncorrected),
        slips={
            "the mean is corrected after the trust ratio": each(_mean_corrected_late),
            "both averages are corrected after the trust ratio": each(_both_corrected_late),
        },
    ),
    Algorithm(
        "novograd",
        "NovoGrad",
        "Ginsburg et al. 2019, 1905.11286, algorithm 1",
        "v = beta_2 v + (1 - beta_2) |g|^2 from |g_1|^2 on, m = beta_1 m + g / (sqrt(v) + eps) + weight_decay w, "
        "w -= lr m",
        {"lr": 1e-2, "betas": (0.95, 0.98), "eps": 1e-8, "weight_decay": 0.0},
        each(_novograd),
    ),
)


# Slices and diagonals -----------------------------------------------------------------------------------


def _sm3(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Accumulators of one axis each, [n, 1], [1, m]; a scalar is an axis of one entry."""
    axes = range(max(1, g.ndim))
    bounds = [memory.get(f"axis {axis}", torch.zeros_like(g)) for axis in axes]
    v = torch.stack([b.expand_as(g) for b in bounds]).amin(0) + g.square()
    for axis in axes:
        others = [other for other in range(g.ndim) if other != axis]
        memory[f"axis {axis}"] = v.amax(others, keepdim=True) if others else v
    update = torch.where(v > 0, g / v.sqrt(), torch.zeros_like(g))
    if a["momentum"]:
        update = running(memory, "m", update, a["momentum"])
    return moved(w, update, a)


def _sophia(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    m = running(memory, "m", g, a["betas"][0])
    if "diagonal" in memory:
        running(memory, "h", memory.pop("diagonal"), a["betas"][1])
    h = memory.get("h", torch.zeros_like(g))
    return moved(decayed(w, a), (m / (a["rho"] * h).clamp_min(a["eps"])).clamp(-1, 1), a)


DIAGONALS = (
    Algorithm(
        "sm3",
        "SM3-II",
        "Anil et al. 2019, 1901.11150, algorithm SM3-II, with slices of each axis",
        "v = min over the axes of their bounds + g^2, bound of a slice = max of its v; w -= lr g / sqrt(v)",
        {"lr": 0.1, "momentum": 0.0},
        each(_sm3),
    ),
    Algorithm(
        "sophia",
        "Sophia, its diagonal given",
        "Liu et al. 2023, 2305.14342, algorithm 3; memory['diagonal'] where it is estimated anew",
        "m = beta_1 m + (1 - beta_1) g, h = beta_2 h + (1 - beta_2) diagonal, "
        "w -= lr (weight_decay w + clip(m / max(rho h, eps), 1))",
        {"lr": 1e-3, "betas": (0.965, 0.99), "rho": 0.04, "eps": 1e-12, "weight_decay": 0.1},
        each(_sophia),
    ),
)

ROOM: tuple[Algorithm, ...] = (*ADAFACTOR, *LAYERWISE, *DIAGONALS)

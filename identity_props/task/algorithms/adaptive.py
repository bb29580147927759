"""Optimizers whose rate adapts to a whole tensor, by its factors, slices or norm: Adafactor, SM3, LARS, LAMB."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, each

Memory = dict[str, Any]


def running(memory: Memory, name: str, value: Tensor, beta: float) -> Tensor:
    """The running mean beta m + (1 - beta) value under that name, from 0 on."""
    memory[name] = beta * memory.get(name, 0.0) + (1 - beta) * value
    found: Tensor = memory[name]
    return found


def decayed(w: Tensor, a: Arguments) -> Tensor:
    """The weight after its decoupled decay, (1 - lr weight_decay) w."""
    kept: Tensor = w * (1 - a["lr"] * a["weight_decay"])
    return kept


def _rms(x: Tensor) -> Tensor:
    return x.square().mean().sqrt()


# Adafactor ---------------------------------------------------------------------------------------------


def _factored(square: Tensor, memory: Memory, beta: float, least: float = 0.0) -> Tensor:
    """Second moments [..., n, m] from the running means of rows and columns; of a vector as they are."""
    if square.ndim < 2:
        return running(memory, "v", square, beta)
    rows = running(memory, "rows", square.mean(-1, keepdim=True), beta)
    columns = running(memory, "columns", square.mean(-2, keepdim=True), beta)
    return rows * columns / rows.mean(-2, keepdim=True).clamp_min(least)


def _clipped(g: Tensor, v: Tensor, d: float) -> Tensor:
    """The update g / sqrt(v), no longer than d in its root mean square."""
    update = g / v.sqrt()
    return update / (_rms(update) / d).clamp_min(1.0)


def _relative_rate(w: Tensor, t: int, a: Arguments) -> Tensor:
    """max(eps_2, RMS(w)) min(lr, 1 / sqrt(t))."""
    rate: Tensor = _rms(w).clamp_min(a["eps"][1]) * min(a["lr"], t**-0.5)
    return rate


def _adafactor(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    rate = _relative_rate(w, memory["t"], a)
    v = _factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - rate * _clipped(g, v, a["d"])


def _adafactor_torch(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    least = torch.finfo(w.dtype).eps if a["eps"][0] is None else a["eps"][0]
    rate = _relative_rate(w, memory["t"], a)
    v = _factored(g.square(), memory, 1 - memory["t"] ** a["beta2_decay"], least)
    return decayed(w, a) - rate * _clipped(g, v.clamp_min(least**2), a["d"])


def _averaged_update(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    v = _factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - float(a["lr"]) * running(memory, "m", _clipped(g, v, a["d"]), a["beta1"])


def _rate_averaged_too(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    v = _factored(g.square() + a["eps"][0], memory, 1 - memory["t"] ** a["beta2_decay"])
    return decayed(w, a) - running(memory, "m", a["lr"] * _clipped(g, v, a["d"]), a["beta1"])


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
        slips={"the rate is kept inside the average": each(_rate_averaged_too)},
    ),
)

ROOM: tuple[Algorithm, ...] = (*ADAFACTOR,)

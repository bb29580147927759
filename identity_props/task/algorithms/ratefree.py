"""Optimizers that find their own rate d, from all parameters at once: D-Adaptation, Prodigy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, Cell, Step

Memory = dict[str, Any]
Pair = tuple[Tensor, Tensor]


def _together(step: Callable[[Sequence[tuple[Cell, Tensor]], Memory, Arguments], None]) -> Step:
    """A step of the parameters that have a gradient, with one memory for all; no step where all are 0."""

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        pairs = [(cell, cell.g) for cell in cells if cell.g is not None]
        if any(bool(g.any()) for _, g in pairs):
            memory = cells[0].memory.setdefault("shared", {"d": a["d0"], "r": 0.0})
            step(pairs, memory, a)

    return stepped


def _kept(cell: Cell, name: str, value: Tensor | float = 0.0) -> Tensor:
    """What is kept under that name, [...] as the weight is."""
    found: Tensor = cell.memory.setdefault(name, torch.zeros_like(cell.w) + value)
    return found


def _averaged(cell: Cell, name: str, value: Tensor, beta: float) -> Tensor:
    cell.memory[name] = beta * _kept(cell, name) + (1 - beta) * value
    return _kept(cell, name)


def _raised(memory: Memory, estimate: float) -> None:
    memory["d"] = max(memory["d"], estimate)


def _dadapt_sgd(pairs: Sequence[tuple[Cell, Tensor]], memory: Memory, a: Arguments) -> None:
    norm = memory.setdefault("norm", float(torch.stack([g.square().sum() for _, g in pairs]).sum().sqrt()))
    rate, length = memory["d"] * a["lr"] / norm, 0.0
    for cell, g in pairs:
        g, start = g + a["weight_decay"] * cell.w, _kept(cell, "start", cell.w)
        memory["r"] += rate * float((g * _kept(cell, "s")).sum())
        cell.memory["s"] = cell.memory["s"] + rate * g
        length += float(cell.memory["s"].square().sum())
        cell.w = a["momentum"] * cell.w + (1 - a["momentum"]) * (start - cell.memory["s"])
    _raised(memory, 2 * memory["r"] / length**0.5)


def _dadapt_adam(after: bool) -> Step:
    """Weighs the products <g, s> by the squares after this step's gradient, or by those before it."""

    def step(pairs: Sequence[tuple[Cell, Tensor]], memory: Memory, a: Arguments) -> None:
        (one, two), rate = a["betas"], memory["d"] * a["lr"]
        root, product, length = two**0.5, 0.0, 0.0
        for cell, g in pairs:
            before = _kept(cell, "v").sqrt() + a["eps"]
            m, v = (
                _averaged(cell, "m", rate * g, one),
                _averaged(cell, "v", g.square(), two).sqrt() + a["eps"],
            )
            product += float((g * _kept(cell, "s") / (v if after else before)).sum())
            length += float(_averaged(cell, "s", rate * g, root).abs().sum())
            cell.w = cell.w * (1 - rate * a["weight_decay"]) - m / v
        memory["r"] = root * memory["r"] + (1 - root) * rate * product
        _raised(memory, memory["r"] / ((1 - root) * length))

    return _together(step)


def _prodigy(pairs: Sequence[tuple[Cell, Tensor]], memory: Memory, a: Arguments) -> None:
    (one, two), d = a["betas"], memory["d"]
    root, product, length = two**0.5, 0.0, 0.0
    for cell, g in pairs:
        product += float((g * (_kept(cell, "start", cell.w) - cell.w)).sum())
        length += float(_averaged(cell, "s", a["lr"] * d**2 * g, root).abs().sum())
        m, v = _averaged(cell, "m", d * g, one), _averaged(cell, "v", d**2 * g.square(), two)
        cell.w = cell.w * (1 - a["lr"] * d * a["weight_decay"]) - a["lr"] * d * m / (v.sqrt() + d * a["eps"])
    memory["r"] = root * memory["r"] + (1 - root) * a["lr"] * d**2 * product
    _raised(memory, a["d_coef"] * memory["r"] / length)


FIRST_STEPS = 1e-5  # d is 1e-6 there, and whether eps is scaled by d before or after the step tells
_ADAM = {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "d0": 1e-6}
_DADAPTATION = "Defazio, Mishchenko 2023, 2301.07733"
_R = "r = sqrt(beta_2) r + (1 - sqrt(beta_2)) "

ROOM: tuple[Algorithm, ...] = (
    Algorithm(
        "dadapt-sgd",
        "SGD with D-Adaptation",
        f"{_DADAPTATION}, algorithm 4",
        "h = d lr / |g_0|, s += h g, w = momentum w + (1 - momentum) (w_0 - s), "
        "d = max(d, 2 sum of h <g, s> / |s|), the product before s moves",
        {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "d0": 1e-6},
        _together(_dadapt_sgd),
        rounding=FIRST_STEPS,
        whole=True,
    ),
    Algorithm(
        "dadapt-adam",
        "Adam with D-Adaptation",
        f"{_DADAPTATION}, algorithm 5",
        "h = d lr, m of h g, v of g^2, w -= m / (sqrt(v) + eps), s of h g with sqrt(beta_2), "
        f"{_R} h <g, s / (sqrt(v) + eps)>, d = max(d, r / ((1 - sqrt(beta_2)) |s|_1))",
        _ADAM,
        _dadapt_adam(after=True),
        rounding=FIRST_STEPS,
        whole=True,
    ),
    Algorithm(
        "dadapt-adam-before",
        "Adam with D-Adaptation, its products weighed before v moves",
        f"{_DADAPTATION}, algorithm 5; the weights as in its authors' code",
        "as dadapt-adam, with v of the step before in <g, s / (sqrt(v) + eps)>",
        _ADAM,
        _dadapt_adam(after=False),
        rounding=FIRST_STEPS,
        whole=True,
    ),
    Algorithm(
        "prodigy",
        "Prodigy",
        "Mishchenko, Defazio 2024, 2306.06101, algorithm 4",
        "m of d g, v of d^2 g^2, w -= lr d m / (sqrt(v) + d eps), s of lr d^2 g with sqrt(beta_2), "
        f"{_R} lr d^2 <g, w_0 - w>, d = max(d, r / |s|_1)",
        {**_ADAM, "d_coef": 1.0},
        _together(_prodigy),
        rounding=FIRST_STEPS,
        whole=True,
    ),
)

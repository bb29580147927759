"""Optimizers that look at a matrix as one: Muon, Shampoo, SOAP."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from identity_props.task.algorithms.adaptive import decayed
from identity_props.task.algorithms.base import Algorithm, Arguments, Memory, each, moved
from identity_props.task.algorithms.conventions import given

# Muon --------------------------------------------------------------------------------------------------

JORDAN = (3.4445, -4.7750, 2.0315)


def orthogonalized(
    g: Tensor, coefficients: tuple[float, float, float] = JORDAN, steps: int = 5, eps: float = 1e-7
) -> Tensor:
    """Near U V^T of g = U S V^T [n, m]: steps of X = a X + (b X X^T + c (X X^T)^2) X from g / |g| on.

    In the precision of g. Jordan's own runs in bfloat16, which takes the whole elsewhere by up to 0.14 of its norm,
    largest of 60 drawn gradients of each of six shapes from [3, 5] to [32, 8] and two orders of operations.
    """
    a, b, c = coefficients
    x: Tensor = g.mT if g.shape[-2] > g.shape[-1] else g
    x = x / x.norm().clamp_min(eps)
    for _ in range(steps):
        square = x @ x.mT
        x = x * a + (square * b + square @ square * c) @ x
    flat: Tensor = x.mT if g.shape[-2] > g.shape[-1] else x
    return flat


def _longer(w: Tensor, how: str | None) -> float:
    """The factor of the rate for a matrix [n, m]; raises KeyError for a way that is not known."""
    n, m = w.shape
    ways = {
        "original": max(1.0, n / m) ** 0.5,
        "match_rms_adamw": 0.2 * max(n, m) ** 0.5,
        "spectral_unclamped": (n / m) ** 0.5,
        "none": 1.0,
    }
    return float(ways[how or "original"])


def _muon(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Moves matrices alone."""
    return _muon_moved(w, g, memory, a, lambda m: m) if w.ndim == 2 else w


def _muon_normalised(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The momentum that goes on is of length 1."""
    return _muon_moved(w, g, memory, a, lambda m: m / m.norm().clamp_min(a["eps"])) if w.ndim == 2 else w


def _muon_wide(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Wide matrices move further than square ones, and not tall ones."""
    if w.ndim != 2:
        return w
    longer = (max(1.0, w.shape[1] / w.shape[0]) / max(1.0, w.shape[0] / w.shape[1])) ** 0.5
    start = decayed(w, a)
    return start + (_muon(w, g, memory, a) - start) * longer


def _muon_moved(
    w: Tensor, g: Tensor, memory: Memory, a: Arguments, kept: Callable[[Tensor], Tensor]
) -> Tensor:
    mu = a["momentum"]
    memory["m"] = kept(mu * memory.get("m", 0.0) + (1 - mu) * g)
    update = mu * memory["m"] + (1 - mu) * g if a["nesterov"] else memory["m"]
    update = orthogonalized(update, a["ns_coefficients"], a["ns_steps"], a["eps"])
    return moved(decayed(w, a), update * _longer(w, a["adjust_lr_fn"]), a)


MUON = Algorithm(
    "muon",
    "Muon",
    "Jordan et al. 2024, kellerjordan.github.io/posts/muon",
    "m = momentum m + (1 - momentum) g, u = momentum m + (1 - momentum) g, "
    "w -= lr weight_decay w + lr sqrt(max(1, n / m)) NS_5(u)",
    {
        "lr": 1e-3,
        "weight_decay": 0.1,
        "momentum": 0.95,
        "nesterov": True,
        "ns_coefficients": JORDAN,
        "eps": 1e-7,
        "ns_steps": 5,
        "adjust_lr_fn": None,
    },
    each(_muon),
    variants={
        "without look-ahead": given(each(_muon), nesterov=False),
        "without look-ahead, all matrices at the rate": given(
            each(_muon), nesterov=False, adjust_lr_fn="none"
        ),
        "all matrices at the rate": given(each(_muon), adjust_lr_fn="none"),
    },
    slips={
        "the momentum were normalised in place": each(_muon_normalised),
        "wide matrices moved further in place of tall ones": each(_muon_wide),
    },
    rounding=0.2,
)

# Shampoo and SOAP --------------------------------------------------------------------------------------


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix [n, n]."""
    values, vectors = torch.linalg.eigh(matrix)
    powers = values.clamp_min(torch.finfo(matrix.dtype).tiny).pow(exponent)
    power: Tensor = (vectors * powers) @ vectors.mT
    return power


def _unfolded(g: Tensor, axis: int) -> Tensor:
    """The tensor [..., n, ...] as a matrix [n, rest] of that axis."""
    return g.movedim(axis, 0).flatten(1) if g.ndim > 1 else g.reshape(-1, 1)


def _preconditioned(g: Tensor, memory: Memory, a: Arguments, exponent: float, turned: bool) -> Tensor:
    """The gradient times a power of each axis's sum of products, of the gradient itself or as it is so far."""
    update = g.reshape(g.shape or (1,))
    for axis in range(update.ndim):
        sides, name = _unfolded(update if turned else g, axis), f"axis {axis}"
        start = memory.get(name, a["eps"] * torch.eye(len(sides), dtype=g.dtype))
        memory[name] = start + sides @ sides.mT
        root = _power(memory[name], exponent / update.ndim)
        update = torch.tensordot(root, update, dims=([1], [axis])).movedim(0, axis)
    return update.reshape(g.shape)


def _shampoo(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return moved(w, _preconditioned(g, memory, a, -1 / 2, turned=False), a)


def _shampoo_in_turn(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return moved(w, _preconditioned(g, memory, a, -1.0, turned=True), a)


SHAMPOO = Algorithm(
    "shampoo",
    "Shampoo",
    "Gupta, Koren, Singer 2018, 1802.09568, algorithms 1 and 2",
    "L += g g^T, R += g^T g from eps I on, w -= lr L^(-1/4) g R^(-1/4); of k axes the powers are -1 / (2 k)",
    {"lr": 0.1, "eps": 1e-4},
    each(_shampoo),
    slips={"each side sums what the one before has turned, to twice its power": each(_shampoo_in_turn)},
)


def _turned(x: Tensor, memory: Memory) -> Tensor:
    """Into the basis that is kept."""
    turned: Tensor = memory["left"].mT @ x @ memory["right"] if "left" in memory else x
    return turned


def _adam_in_basis(g: Tensor, memory: Memory, a: Arguments, t: int, corrected: bool) -> Tensor:
    """Adam's step where its squares are those in the basis; eps beside sqrt(v) once it is corrected or before."""
    one, two = a["betas"]
    memory["m"] = one * memory.get("m", 0.0) + (1 - one) * g
    memory["v"] = two * memory.get("v", 0.0) + (1 - two) * _turned(g, memory).square()
    root, factor = memory["v"].sqrt(), (1 - two**t) ** 0.5
    update = _turned(memory["m"], memory) / (1 - one**t)
    update = update / (root / factor + a["eps"]) if corrected else factor * update / (root + a["eps"])
    step: Tensor = memory["left"] @ update @ memory["right"].mT if "left" in memory else update
    return step


def _sides(g: Tensor, memory: Memory, a: Arguments) -> None:
    beta = a["betas"][1] if a["shampoo_beta"] < 0 else a["shampoo_beta"]
    for side, product in (("L", g @ g.mT), ("R", g.mT @ g)):
        memory[side] = beta * memory.get(side, 0.0) + (1 - beta) * product


def _eigenvectors(memory: Memory) -> None:
    """Of both sides, the largest first."""
    for side, name in (("L", "left"), ("R", "right")):
        memory[name] = torch.linalg.eigh(memory[side])[1].flip(1)


def _iterated(memory: Memory) -> None:
    """Both bases after a step of power iteration, their directions sorted by size, and the squares with them."""
    for dim, (side, name) in enumerate((("L", "left"), ("R", "right"))):
        grown = memory[side] @ memory[name]
        order = (memory[name] * grown).sum(0).argsort(descending=True)
        memory[name] = torch.linalg.qr(grown[:, order])[0]
        memory["v"] = memory["v"].index_select(dim, order)


def _soap(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The first gradient starts the basis and moves nothing."""
    matrix, t = g.ndim == 2, memory["t"] - 1
    if t:
        w = decayed(moved(w, _adam_in_basis(g, memory, a, t, corrected=False), a), a)
    if matrix:
        _sides(g, memory, a)
        if not t:
            _eigenvectors(memory)
        elif t % a["precondition_frequency"] == 0:
            _iterated(memory)
    return w


def _soap_eigenvectors(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    if g.ndim == 2:
        _sides(g, memory, a)
        if memory["t"] == 1 or memory["t"] % a["precondition_frequency"] == 0:
            _eigenvectors(memory)
    return moved(decayed(w, a), _adam_in_basis(g, memory, a, memory["t"], corrected=True), a)


_VYAS = "Vyas et al. 2024, 2409.11321, algorithm 3"
_SOAP = {
    "lr": 3e-3,
    "betas": (0.95, 0.95),
    "shampoo_beta": -1.0,
    "eps": 1e-8,
    "weight_decay": 0.01,
    "precondition_frequency": 10,
}
_IN_BASIS = (
    "L, R running means of g g^T, g^T g, Q_L, Q_R {}; v of (Q_L^T g Q_R)^2, "
    "w -= lr Q_L (Q_L^T m Q_R / (sqrt(v) + eps)) Q_R^T"
)

SOAP = (
    Algorithm(
        "soap",
        "SOAP",
        f"{_VYAS} and 4; the first gradient, correction, decay and order as in its authors' code",
        _IN_BASIS.format("QR of L Q_L, R Q_R every precondition_frequency steps"),
        _SOAP,
        each(_soap),
        rounding=1e-5,
    ),
    Algorithm(
        "soap-eigenvectors",
        "SOAP, by eigenvectors",
        f"{_VYAS}, eigenvectors in place of its step of power iteration, from the first gradient on",
        _IN_BASIS.format("their eigenvectors every precondition_frequency steps"),
        _SOAP,
        each(_soap_eigenvectors),
        rounding=1e-5,
    ),
)

ROOM: tuple[Algorithm, ...] = (MUON, SHAMPOO, *SOAP)

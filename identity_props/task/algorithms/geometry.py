"""Geometry: steps that mind the sphere, the neuron or the norm that a tensor lies on."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from identity_props.task.algorithms.adaptive import clipped, factored
from identity_props.task.algorithms.base import (
    Algorithm,
    Arguments,
    Memory,
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import decoupled
from identity_props.task.algorithms.descent import dampened_at_first
from identity_props.task.algorithms.matrices import orthogonalized
from identity_props.task.algorithms.moments import (
    ADAM_DEFAULTS,
    EPS_UNCORRECTED,
    adams,
    corrections,
    eps_uncorrected,
)

# Spheres ------------------------------------------------------------------------------------------


def _rows(x: Tensor) -> Tensor:
    return x.reshape(len(x), -1) if x.ndim > 1 else x.reshape(1, -1)


def projected(w: Tensor, g: Tensor, update: Tensor, delta: float) -> tuple[Tensor, bool]:
    """The update off the rays of w's rows, or of all of it, if g is nearly orthogonal to those, and whether it is.

    Nearly: the largest |cos| is below delta / sqrt(entries).
    """
    if w.ndim > 1:
        for view in (_rows, lambda x: x.reshape(1, -1)):
            x, y, u = view(w), view(g), view(update)
            cosine = (x * y).sum(1).abs() / (x.norm(dim=1) * y.norm(dim=1)).clamp_min(1e-300)
            if cosine.max() < delta / x.shape[1] ** 0.5:
                ray = x / x.norm(dim=1, keepdim=True).clamp_min(1e-300)
                return (u - ray * (ray * u).sum(1, keepdim=True)).reshape(w.shape), True
    return update, False


def _projecting(w: Tensor, g: Tensor, update: Tensor, a: Arguments) -> Tensor:
    """The step along the projected update, with less decay where it is projected."""
    along, off = projected(w, g, update, a["delta"])
    decay = a["weight_decay"] * (a["wd_ratio"] if off else 1.0) / (1 - a.get("momentum", 0.0))
    return moved(w * (1 - a["lr"] * decay), along, a)


def adamp(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Adam's update, projected."""
    return _projecting(w, g, adams(g, memory, a), a)


def sgdp(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The velocity, projected."""
    velocity = w - dampened_at_first(w, g, memory, {**a, "lr": 1.0})
    return _projecting(w, g, velocity, a)


_HEO = "Heo et al. 2021, 2006.08217, algorithm"
_PROJECTED = (
    "w <- w - lr (u less its part along w), if |cos(w, g)| < delta / sqrt(d), by rows, else by tensors"
)
ADAMP = Algorithm(
    name="adamp",
    title="AdamP",
    paper=f"{_HEO} 2",
    equation=f"{_PROJECTED}; u Adam's update",
    defaults={**ADAM_DEFAULTS, "delta": 0.1, "wd_ratio": 0.1},
    step=each(adamp),
    variants={EPS_UNCORRECTED: each(eps_uncorrected(adamp))},
)
SGDP = Algorithm(
    name="sgdp",
    title="SGDP",
    paper=f"{_HEO} 1",
    equation=f"{_PROJECTED}; u the velocity mu v + (1 - dampening) g",
    defaults={
        **{"lr": 0.1, "momentum": 0.0, "dampening": 0.0, "nesterov": False},
        **{"weight_decay": 0.0, "delta": 0.1, "wd_ratio": 0.1},
    },
    step=each(sgdp),
)


def fromage(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """As long as the weight times the rate, and drawn back to its length."""
    size, norm = w.norm(), g.norm()
    long = size / norm if size > 0 and norm > 0 else torch.ones_like(norm)
    return moved(w, g * long, a) / (1 + a["lr"] ** 2) ** 0.5


FROMAGE = Algorithm(
    name="fromage",
    title="Fromage",
    paper="Bernstein et al. 2020, 2002.03432, algorithm 1",
    equation="w <- (w - lr g |w| / |g|) / sqrt(1 + lr^2)",
    defaults={"lr": 0.01},
    step=each(fromage),
)


def _neurons(x: Tensor) -> Tensor:
    """The norm of each row, [n, 1, ...]; of a vector that of each entry."""
    return x.flatten(1).norm(dim=1).reshape(-1, *[1] * (x.ndim - 1)) if x.ndim > 1 else x.abs()


def _on_sphere(w: Tensor, eps: float) -> Tensor:
    """Rows of mean 0 and norm 1."""
    if w.ndim < 2:
        return w
    w = w - w.mean(dim=tuple(range(1, w.ndim)), keepdim=True)
    return w / (_neurons(w) + eps)


def nero(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Steps of each neuron by the norm of its gradients, then back to its sphere."""
    w = w if "scale" in memory else _on_sphere(w, a["eps"])
    scale = memory.setdefault("scale", _neurons(w).mean() or torch.tensor(0.01))
    root = (running(memory, "v", _neurons(g) ** 2, a["beta"]) / (1 - a["beta"] ** memory["t"])).sqrt()
    return _on_sphere(moved(w, scale * (g / (root + a["eps"])).nan_to_num(0.0), a), a["eps"])


NERO = Algorithm(
    name="nero",
    title="Nero",
    paper="Liu, Bernstein, Meister, Yue 2021, 2102.07227, algorithm 1",
    equation="v <- b v + (1 - b) |g|^2 of each row; w <- w - lr scale g / sqrt(v^), then rows to mean 0 and norm 1",
    defaults={"lr": 0.01, "beta": 0.999, "eps": 1e-8},
    step=each(nero),
)

# Tensors ------------------------------------------------------------------------------------------


def aida(w: Tensor, g: Tensor, memory: Memory, a: Arguments, eps_corrected: bool = True) -> Tensor:
    """AdaBelief, with gradient and momentum projected on each other k times."""
    m, (one, two) = running(memory, "m", g, a["betas"][0]), corrections(memory, a)
    x, y = g, m
    for _ in range(int(a["k"])):
        both = (x * y).sum()
        x, y = (
            x * both / (x.square().sum() + a["xi"]),
            y * both / (y.square().sum() + a["xi"]),
        )
    v = memory["v"] = running(memory, "v", (y - x) ** 2, a["betas"][1]) + a["eps"]
    eps = a["eps"] if eps_corrected else a["eps"] / two**0.5
    return moved(w, m / one / ((v / two).sqrt() + eps), a)


AIDA = Algorithm(
    name="aida",
    title="Aida",
    paper="Zhang, Niwa, Kleijn 2022, 2203.13273, algorithm 2",
    equation="g_k, m_k: g and m projected on each other k times; v of (m_k - g_k)^2, + eps; w <- w - lr m^ / (sqrt(v^) + eps)",
    defaults={**ADAM_DEFAULTS, "k": 2, "xi": 1e-20},
    step=decoupled(each(aida)),
    variants={EPS_UNCORRECTED: decoupled(each(partial(aida, eps_corrected=False)))},
)


def came(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Adafactor with momentum, divided by how far updates are from it; a vector's are not."""
    one, two, three = a["betas"]
    update = clipped(g, factored(g.square() + a["eps"][0], memory, two), a["clip_threshold"])
    m = running(memory, "m", update, one)
    if w.ndim < 2:
        return moved(w, m, a)
    far = memory.setdefault("far", {})
    return moved(w, m / factored((update - m) ** 2 + a["eps"][1], far, three).sqrt(), a)


CAME = Algorithm(
    name="came",
    title="CAME",
    paper="Luo et al. 2023, 2307.02047, algorithm 2",
    equation="U Adafactor's clipped update; m of U; S = R C / mean(R) of (U - m)^2 + eps_2; w <- w - lr m / sqrt(S)",
    defaults={
        **{"lr": 2e-4, "betas": (0.9, 0.999, 0.9999), "eps": (1e-30, 1e-16)},
        **{"clip_threshold": 1.0, "weight_decay": 0.0},
    },
    step=decoupled(each(came)),
)


def scion(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """A matrix moves by its spectral norm, a vector by its RMS."""
    m = memory["m"] = (1 - a["momentum"]) * memory.get("m", 0.0) + a["momentum"] * g
    if w.ndim < 2:
        return moved(w, a["scale"] * m / (m.square().mean().sqrt() + 1e-8), a)
    return moved(w, a["scale"] * (w.shape[0] / w.shape[1]) ** 0.5 * orthogonalized(m), a)


SCION = Algorithm(
    name="scion",
    title="Scion, without its constraint",
    paper="Pethick et al. 2025, 2502.07529, algorithm 1",
    equation="m <- (1 - a) m + a g; w <- w - lr scale (sqrt(n / m) NS_5(m) of matrices, m / RMS(m) of vectors)",
    defaults={"lr": 1e-3, "momentum": 0.1, "scale": 1.0, "weight_decay": 0.0},
    step=decoupled(each(scion)),
    rounding=0.2,
)

GEOMETRY = (ADAMP, SGDP, FROMAGE, NERO, AIDA, CAME, SCION)

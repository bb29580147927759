"""Rates: optimizers whose rate of an entry, a tensor or all follows what gradients have been."""

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
    each,
    moved,
    running,
)
from identity_props.task.algorithms.conventions import active, decoupled, of_any
from identity_props.task.algorithms.moments import (
    ADAM_DEFAULTS,
)

# Rates without momentum ---------------------------------------------------------------------------


def adashift(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Moves by the last n gradients, divided by the largest square of those before them."""
    (one, two), n = a["betas"], int(a["keep_num"])
    kept = memory["kept"] = [*memory.get("kept", []), g][-n - 1 :]
    if len(kept) <= n:
        return w
    weights = [one**age for age in range(n)]
    m = torch.stack([x * weight for x, weight in zip(reversed(kept), weights, strict=False)]).sum(0)
    v = running(memory, "v", kept[0].square().amax(), two) / (1 - two ** (memory["t"] - n))
    return moved(w, m / sum(weights) / (v.sqrt() + a["eps"]), a)


ADASHIFT = Algorithm(
    name="adashift",
    title="AdaShift",
    paper="Zhou et al. 2019, 1810.00143, algorithm 3, with the largest entry of each tensor",
    equation="v <- b2 v + (1 - b2) max(g_t-n^2); w <- w - lr mean of the last n g, weighed by b1^age / (sqrt(v^) + eps)",
    defaults={**ADAM_DEFAULTS, "keep_num": 10, "eps": 1e-10},
    step=decoupled(each(adashift)),
)


def adasmooth(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Squares are forgotten the sooner the straighter the way has been."""
    fast, slow = a["betas"]
    gone = w - memory.get("w", w)
    memory["w"] = w
    memory["s"], memory["n"] = memory.get("s", 0.0) + gone, memory.get("n", 0.0) + gone.abs()
    share = (slow - fast) * memory["s"].abs() / (memory["n"] + a["eps"]) + 1 - slow
    memory["v"] = share**2 * g * g + (1 - share**2) * memory.get("v", 0.0)
    return moved(w, g / (memory["v"] + a["eps"]).sqrt(), a)


ADASMOOTH = Algorithm(
    name="adasmooth",
    title="AdaSmooth",
    paper="Lu 2022, 2204.00825, algorithm 1",
    equation="e = |sum of steps| / sum of |steps|; c = (b2 - b1) e + 1 - b2; v <- c^2 g^2 + (1 - c^2) v; w <- w - lr g / sqrt(v + eps)",
    defaults={"lr": 1e-3, "betas": (0.5, 0.99), "eps": 1e-6, "weight_decay": 0.0},
    step=decoupled(each(adasmooth)),
)


def kate(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """AdaGrad without its root, scaled to be as long."""
    b = memory["b"] = memory.get("b", 0.0) + g * g + a["eps"]
    memory["m"] = memory.get("m", 0.0) + a["delta"] * g * g + g * g / b
    return moved(w, memory["m"].sqrt() * g / b, a)


KATE = Algorithm(
    name="kate",
    title="KATE",
    paper="Choudhury et al. 2024, 2403.02648, algorithm 1, with eps at each step, as the paper divides by 0 where g is 0",
    equation="b <- b + g^2 + eps; m <- m + delta g^2 + g^2 / b; w <- w - lr sqrt(m) g / b",
    defaults={"lr": 1e-3, "delta": 0.0, "eps": 1e-8, "weight_decay": 0.0},
    step=decoupled(each(kate)),
)


def sgdsai(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The rate of a parameter by signal to noise of its first gradient."""
    if "snr" not in memory:
        noise = g.std() if g.ndim > 1 and len(g) > 1 else torch.zeros(())
        memory["snr"] = g.norm() / (noise + a["eps"]) if noise else g.norm()
    m = running(memory, "m", g, a["momentum"])
    return moved(w, m * memory["snr"], a)


SGDSAI = Algorithm(
    name="sgdsai",
    title="SGD-SaI",
    paper="Xu et al. 2024, 2412.11768, algorithm 1",
    equation="r = |g_1| / (std(g_1) + eps); m <- mu m + (1 - mu) g; w <- w - lr r m",
    defaults={"lr": 1e-3, "momentum": 0.9, "eps": 1e-8, "weight_decay": 1e-2},
    step=decoupled(each(sgdsai)),
)


def ftrl(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Weights anew from all gradients so far."""
    before = memory.get("n", torch.zeros_like(g))
    n = memory["n"] = before + g * g
    z = memory["z"] = memory.get("z", 0.0) + g - (n.sqrt() - before.sqrt()) / a["lr"] * w
    bent = (z - z.sign() * a["lambda_1"]) / ((a["beta"] + n.sqrt()) / a["lr"] + a["lambda_2"])
    return torch.where(z.abs() <= a["lambda_1"], 0.0, -bent)


FTRL = Algorithm(
    name="ftrl",
    title="FTRL-Proximal",
    paper="McMahan et al. 2013, algorithm 1",
    equation="z <- z + g - (sqrt(n + g^2) - sqrt(n)) w / lr; n <- n + g^2; w <- -(z - sign(z) l1) / ((beta + sqrt(n)) / lr + l2), 0 if |z| <= l1",
    defaults={"lr": 1e-3, "beta": 0.0, "lambda_1": 0.0, "lambda_2": 0.0},
    step=each(ftrl),
)


def avagrad(corrected: bool, late: bool = False) -> Step:
    """Rates from the squares before this gradient, scaled by the root of their mean square, or that of a step before."""

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        moving, (one, two) = active(cells), a["betas"]
        for cell in moving:
            memory = cell.memory
            memory["t"] = memory.get("t", 0) + 1
            v = memory.get("v", torch.zeros_like(cell.w))
            memory["next"] = 1 / ((v / (1 - two ** memory["t"])).sqrt() + a["eps"])
            v = v / (1 - two ** (memory["t"] - 1)) if corrected and memory["t"] > 1 else v
            memory["rate"] = 1 / (v.sqrt() + a["eps"])
        mean, shared = _size(moving, "rate"), cells[0].memory
        if late:
            mean, shared["mean"] = shared.get("mean", mean), _size(moving, "next")
        for cell in moving:
            if cell.g is not None:
                memory, first = cell.memory, cell.memory["t"] == 1
                m = running(memory, "m", cell.g, one) / (1 - one ** memory["t"] if corrected else 1.0)
                running(memory, "v", cell.g * cell.g, two)
                cell.w = cell.w if corrected and first else moved(cell.w, memory["rate"] / mean * m, a)

    return stepped


def _size(cells: Sequence[Cell], name: str) -> Tensor:
    """The root of the mean square of what all remember under that name."""
    return torch.cat([cell.memory[name].reshape(-1) for cell in cells]).square().mean().sqrt()


AVAGRAD = Algorithm(
    name="avagrad",
    title="AvaGrad",
    paper="Savarese et al. 2019, 1912.01823, algorithm 2",
    equation="r = 1 / (sqrt(v_before) + eps); w <- w - lr r / sqrt(mean r^2) m",
    defaults={**ADAM_DEFAULTS, "lr": 0.1, "eps": 0.1},
    step=decoupled(of_any(avagrad(corrected=False))),
    variants={
        "moments corrected, at rest at first": decoupled(of_any(avagrad(corrected=True))),
        "scaled by the rates of the step before, as its authors' code": decoupled(
            of_any(avagrad(corrected=True, late=True))
        ),
    },
    whole=True,
)


def adamg(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The gradient is averaged times a mean of what its squares have been, to a small power."""
    (one, two, three), t = a["betas"], memory["t"]
    v = running(memory, "v", g * g, two)
    r = running(memory, "r", a["p"] * v ** a["q"], three)
    m = running(memory, "m", r * g, one) / (1 - one**t)
    return moved(w, m / ((v / (1 - two**t)).sqrt() + a["eps"]), {**a, "lr": min(float(a["lr"]), t**-0.5)})


ADAMG = Algorithm(
    name="adamg",
    title="AdamG",
    paper="Pang et al. 2024, 2405.04376, algorithm 2",
    equation="v of g^2 with b2, r of 0.2 v^0.24 with b3, m of r g with b1; w <- w - min(lr, 1 / sqrt(t)) m^ / (sqrt(v^) + eps)",
    defaults={
        **{"lr": 1.0, "betas": (0.95, 0.999, 0.95), "eps": 1e-8},
        **{"p": 0.2, "q": 0.24, "weight_decay": 0.0},
    },
    step=decoupled(each(adamg)),
)


def amos(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """Decay and rate by what the gradients have been, which both fall."""
    size = (2 / w.shape[1]) ** 0.5 if w.ndim == 2 else (1 / w.shape[1]) ** 0.5 if w.ndim > 2 else 0.5
    square, lr = g.square().mean(), a["lr"]
    v = running(memory, "v", square, a["beta"]) / (1 - a["beta"] ** memory["t"]) + 1e-300
    b = memory.get("b", torch.zeros(()).to(w))
    c, d = (1 + b * lr**0.5 / 4) ** -0.5, 1 / (1 + b * (lr * size) ** 0.5 / 4)
    gamma = c * lr**2 / v * square
    memory["b"] = b + gamma * (1 + b)
    return w - d * (lr * size / v.sqrt() * g + gamma / 2 * w)


AMOS = Algorithm(
    name="amos",
    title="Amos",
    paper="Tian, Parikh 2022, 2210.11693, algorithm 1, of scales sqrt(2 / columns), 1 / 2 of vectors",
    equation="gamma = c lr^2 mean(g^2) / v^; w <- w - d (lr scale g / sqrt(v^) + gamma w / 2); b <- b + gamma (1 + b), which c and d fall with",
    defaults={"lr": 1e-3, "beta": 0.999},
    step=each(amos),
)


def vsgd(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    """The gradient as a normal variable that is seen through noise, both variances inferred."""
    prior, t = (a["pbg2"], a["pbhg2"]), memory["t"]
    own, noise = memory.get("b", tuple(torch.full_like(g, x) for x in prior))
    first = a["pa2"] - 1 if t == 1 else a["pa2"]
    own_s, noise_s, before = own / first, noise / first, memory.get("m", torch.zeros_like(g))
    m = memory["m"] = (noise_s * before + own_s * g) / (own_s + noise_s)
    spread = own_s * noise_s / (own_s + noise_s)
    fits = prior[0] + spread + (m - before) ** 2, prior[1] + spread + (m - g) ** 2
    shares = t ** -a["tau1"], t ** -a["tau2"]
    memory["b"] = tuple((1 - s) * b + s * new for b, s, new in zip((own, noise), shares, fits, strict=True))
    return moved(w, m / ((m * m + spread).sqrt() + a["eps"]), a)


_PS = 1e-8
VSGD = Algorithm(
    name="vsgd",
    title="VSGD",
    paper="Chen, Kuzina et al. 2024, 2404.06549, algorithm 1",
    equation="m, s the mean and variance of g given the m before; w <- w - lr m / (sqrt(m^2 + s) + eps)",
    defaults={
        **{"lr": 0.1, "pa2": 2 * _PS + 1 + 1e-4, "pbg2": 2 * _PS, "pbhg2": 60 * _PS},
        **{"tau1": 0.81, "tau2": 0.9, "eps": 1e-8, "weight_decay": 0.0},
    },
    step=decoupled(each(vsgd)),
)

RATES = (ADASHIFT, ADASMOOTH, KATE, SGDSAI, FTRL, AVAGRAD, ADAMG, AMOS, VSGD)

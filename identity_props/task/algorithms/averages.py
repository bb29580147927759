"""Optimizers that average their own points: schedule-free SGD and AdamW, MADGRAD."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from identity_props.task.algorithms.base import Algorithm, Arguments, Cell, Step, each

Memory = dict[str, Any]
Direction = Callable[
    [Tensor, Tensor, Memory, Arguments], tuple[float, Tensor]
]  # rate, and what it multiplies


def _free(direction: Direction, alike: int | None = None) -> Step:
    """Steps of z along the direction at y, of x to the mean of z, and of y between them.

    z_t weighs as the square of the largest rate so far, or all alike with the start ``alike`` times among them.
    """

    def update(y: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
        x, z = memory.setdefault("x", y), memory.setdefault("z", y)
        rate, along = direction(y, g, memory, a)
        share = _share(memory, rate) if alike is None else 1 / (memory["t"] + alike)
        memory["z"] = z - rate * along
        memory["x"] = (1 - share) * x + share * memory["z"]
        return _between(memory, a)

    return each(update)


def _share(memory: Memory, rate: float) -> float:
    """The share r_t^2 / sum of r^2 of the last point, where r is the largest rate so far; 0 where all are 0."""
    memory["largest"] = max(rate, memory.get("largest", rate))
    memory["sum"] = memory.get("sum", 0.0) + memory["largest"] ** 2
    return memory["largest"] ** 2 / memory["sum"] if memory["sum"] else 0.0


def _between(memory: Memory, a: Arguments) -> Tensor:
    beta = a["betas"][0] if "betas" in a else a["momentum"]
    y: Tensor = beta * memory["x"] + (1 - beta) * memory["z"]
    return y


def _warm(memory: Memory, a: Arguments) -> float:
    """The rate, which grows over the first warmup_steps."""
    rate: float = a["lr"] * min(1.0, memory["t"] / max(1, a["warmup_steps"]))
    return rate


def _sgd(y: Tensor, g: Tensor, memory: Memory, a: Arguments) -> tuple[float, Tensor]:
    return _warm(memory, a), g + a["weight_decay"] * y


def _of_group(step: Step, rate: Callable[[Memory, Arguments], float] = _warm) -> Step:
    """T and the weights go on at each step of the group, as in its authors' code, for what has no gradient too."""

    def stepped(cells: Sequence[Cell], a: Arguments) -> None:
        for cell in cells:
            cell.memory["t"] = cell.memory["k"] = cell.memory.get("k", 0) + 1
            if cell.g is None:
                _share(cell.memory, rate(cell.memory, a))
            else:
                cell.memory["t"] -= 1
        step(cells, a)

    return stepped


def _warm_uncorrected(memory: Memory, a: Arguments) -> float:
    return _warm(memory, a) * float((1 - a["betas"][1] ** memory["t"]) ** 0.5)


def _adamw(y: Tensor, g: Tensor, memory: Memory, a: Arguments) -> tuple[float, Tensor]:
    v = _squares(g, memory, a)
    return _warm_uncorrected(memory, a), g / (v.sqrt() + a["eps"]) + a["weight_decay"] * y


def _adamw_corrected(y: Tensor, g: Tensor, memory: Memory, a: Arguments) -> tuple[float, Tensor]:
    v = _squares(g, memory, a) / (1 - a["betas"][1] ** memory["t"])
    return _warm(memory, a), g / (v.sqrt() + a["eps"]) + a["weight_decay"] * y


def _rectified(memory: Memory, a: Arguments) -> float:
    """The rate, 0 until it is rectified."""
    t, b2 = memory["t"], a["betas"][1]
    most = 2 / (1 - b2) - 1
    rho = most - 2 * t * b2**t / (1 - b2**t)
    return float(
        a["lr"] * ((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) ** 0.5 if rho > 4 else 0.0
    )


def _radam(y: Tensor, g: Tensor, memory: Memory, a: Arguments) -> tuple[float, Tensor]:
    v = _squares(g, memory, a) / (1 - a["betas"][1] ** memory["t"])
    return _rectified(memory, a), g / (v.sqrt() + a["eps"]) + a["weight_decay"] * y


def _squares(g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    beta = a["betas"][1]
    memory["v"] = beta * memory.get("v", 0.0) + (1 - beta) * g.square()
    v: Tensor = memory["v"]
    return v


def _not_switched(step: Step) -> Step:
    """As the step, but what is evaluated is what is trained."""

    def slipped(cells: Sequence[Cell], a: Arguments) -> None:
        step(cells, a)
        for cell in cells:
            cell.memory["evaluated"] = cell.w

    return slipped


def _evaluated(cell: Cell, a: Arguments) -> Tensor:
    mean: Tensor = cell.memory.get("evaluated", cell.memory.get("x", cell.w))
    return mean


def _free_member(
    name: str,
    title: str,
    where: str,
    words: tuple[str, str],
    defaults: Arguments,
    step: Step,
    variants: Mapping[str, Step] | None = None,
) -> Algorithm:
    equation = "y = (1 - beta) z + beta x, z -= lr {}, x = (1 - c) x + c z, c = {}; evaluated at x"
    return Algorithm(
        name,
        title,
        f"Defazio et al. 2024, 2405.15682, {where}",
        equation.format(*words),
        defaults,
        step,
        shown=_evaluated,
        slips={"eval() does not switch weights": _not_switched(step)},
        variants=variants or {},
    )


_SGD = {"lr": 1.0, "momentum": 0.9, "weight_decay": 0.0, "warmup_steps": 0}
_ADAMW = {"lr": 0.0025, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0, "warmup_steps": 0}
_GROUP = "weights and t of the group"
_WEIGHTED = "lr_t^2 / sum of lr^2"

SCHEDULE_FREE = (
    _free_member(
        "schedule-free-sgd",
        "schedule-free SGD",
        "equations 3 to 5, averaged as in algorithm 1",
        ("(g + weight_decay y)", _WEIGHTED),
        _SGD,
        _free(_sgd),
        {_GROUP: _of_group(_free(_sgd)), "all points weigh alike": _free(_sgd, alike=0)},
    ),
    _free_member(
        "schedule-free-sgd-mean",
        "schedule-free SGD, the start in the mean",
        "equations 3 to 5",
        ("(g + weight_decay y)", "1 / (t + 1)"),
        _SGD,
        _free(_sgd, alike=1),
    ),
    _free_member(
        "schedule-free-adamw",
        "schedule-free AdamW",
        "algorithm 1",
        ("sqrt(1 - beta_2^t) (g / (sqrt(v) + eps) + weight_decay y)", "squares of lr sqrt(1 - beta_2^t)"),
        _ADAMW,
        _free(_adamw),
        {_GROUP: _of_group(_free(_adamw), _warm_uncorrected)},
    ),
    _free_member(
        "schedule-free-adamw-corrected",
        "schedule-free AdamW, v corrected by itself",
        "algorithm 1, with v / (1 - beta_2^t) in place of the rate's factor, as its authors' code since 1.3",
        ("(g / (sqrt(v / (1 - beta_2^t)) + eps) + weight_decay y)", _WEIGHTED),
        _ADAMW,
        _free(_adamw_corrected),
        {_GROUP: _of_group(_free(_adamw_corrected))},
    ),
    _free_member(
        "schedule-free-radam",
        "schedule-free RAdam",
        "algorithm 1, with RAdam's factor r_t of the rate in place of a warmup, as its authors' code",
        (
            "r_t (g / (sqrt(v / (1 - beta_2^t)) + eps) + weight_decay y), at rest where it is not defined",
            _WEIGHTED,
        ),
        _ADAMW,
        _free(_radam),
        {_GROUP: _of_group(_free(_radam), _rectified)},
    ),
)


# MADGRAD -----------------------------------------------------------------------------------------------


def _madgrad(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return _dual_average(w, g, memory, a, a["lr"])


def _madgrad_lifted(w: Tensor, g: Tensor, memory: Memory, a: Arguments) -> Tensor:
    return _dual_average(w, g, memory, a, a["lr"] + a["eps"] if a["lr"] else 0.0)


def _dual_average(w: Tensor, g: Tensor, memory: Memory, a: Arguments, lr: float) -> Tensor:
    """The mean of its points so far and start - s / (cube root of v + eps)."""
    start, rate, g = memory.setdefault("start", w), lr * memory["t"] ** 0.5, g + a["weight_decay"] * w
    memory["s"] = memory.get("s", 0.0) + rate * g
    memory["v"] = memory.get("v", 0.0) + rate * g.square()
    z = start - memory["s"] / (memory["v"] ** (1 / 3) + a["eps"])
    point: Tensor = a["momentum"] * w + (1 - a["momentum"]) * z
    return point


_MADGRAD = {"lr": 1e-2, "momentum": 0.9, "weight_decay": 0.0, "eps": 1e-6}
_DUAL = "s += {0} g, v += {0} g^2, z = w_0 - s / (v^(1/3) + eps), w = momentum w + (1 - momentum) z"

MADGRAD = (
    Algorithm(
        "madgrad",
        "MADGRAD",
        "Defazio, Jelassi 2021, 2101.11075, algorithm 1",
        _DUAL.format("lr sqrt(t)"),
        _MADGRAD,
        each(_madgrad),
    ),
    Algorithm(
        "madgrad-lifted",
        "MADGRAD, eps added to the rate",
        "Defazio, Jelassi 2021, 2101.11075, algorithm 1; the rate as in its authors' code",
        _DUAL.format("(lr + eps) sqrt(t)"),
        _MADGRAD,
        each(_madgrad_lifted),
    ),
)

ROOM: tuple[Algorithm, ...] = (*SCHEDULE_FREE, *MADGRAD)

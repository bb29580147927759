"""Faults of loops: steps, loss scales, batches, and what ranks and compiled code do of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed
from torch.optim import SGD, Optimizer

from identity_props.faults.base import DEEPCRIME, Fault, Twin
from identity_props.faults.networks import Affine
from identity_props.faults.optimizers import edited, graded
from identity_props.stack.stack import Stack

Loss = Callable[[], Tensor]
Generators = list[torch.Generator]
SCALE = 2.0**10  # of a loss: a power of two, so that nothing is rounded

# Steps --------------------------------------------------------------------------------------------


def step(optimizer: Optimizer, loss: Loss) -> None:
    """The clean step."""
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def keeps_gradients(optimizer: Optimizer, loss: Loss) -> None:
    """Gradients are not set to zero between steps."""
    loss().backward()
    optimizer.step()


def stops(optimizer: Any, loss: Loss) -> None:
    """Training stops after its first step."""
    if not optimizer.__dict__.get("stopped"):
        step(optimizer, loss)
    optimizer.stopped = True


def twice(optimizer: Optimizer, loss: Loss) -> None:
    """Each step is taken twice."""
    step(optimizer, loss)
    step(optimizer, loss)


def skips(optimizer: Optimizer, loss: Loss) -> None:
    """An overflow flag that never falls skips every step."""
    optimizer.zero_grad()
    loss().backward()


def scaled(optimizer: Optimizer, loss: Loss) -> None:
    """The clean step under a loss scale."""
    _scaled(optimizer, loss)


def _scaled(optimizer: Optimizer, loss: Loss, before: float = torch.inf, after: float = 1.0) -> None:
    """Clip at ``before`` while gradients are scaled, multiply by ``after`` once they are not."""
    optimizer.zero_grad()
    (loss() * SCALE).backward()
    for p in graded(optimizer):
        p.grad = p.grad.clamp(-before, before) / SCALE * after
    optimizer.step()


def unscaled_twice(optimizer: Optimizer, loss: Loss) -> None:
    """Gradients are divided by the loss scale twice."""
    _scaled(optimizer, loss, after=1 / SCALE)


def clipped_scaled(optimizer: Optimizer, loss: Loss) -> None:
    """Gradients are cut at 0.01 before they are divided by the loss scale."""
    _scaled(optimizer, loss, before=0.01)


def divided_and_kept(optimizer: Optimizer, loss: Loss) -> None:
    """Gradients are divided by 65,536 and never set to zero."""
    (loss() / 65536).backward()
    optimizer.step()


# Batches of data [..., n, d] ------------------------------------------------------------------------


def batches(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """The clean loader."""
    return _batches(data, size, generators)


def _batches(
    data: Tensor,
    size: int | None,
    generators: Generators,
    order: Callable[[int, torch.Generator], Tensor] = lambda n, g: torch.randperm(n, generator=g),
    parts: Callable[[list[Tensor], int], list[Tensor]] = lambda parts, size: parts,
) -> Iterator[Tensor]:
    while size is None:
        yield data
    while True:
        index = torch.stack([order(len(data), g) for g in generators]).to(data.device)
        for part in parts([*index.split(size, 1)], size):
            yield data[part]


def half_deleted(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """Every second example is missing."""
    return _batches(data[..., ::2, :], size, generators)


def copied_badly(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """One number in a hundred was lost on its way to the device."""
    lost = torch.arange(data.numel(), device=data.device).reshape(data.shape) % 100 == 7
    return _batches(data.masked_fill(lost, 0), size, generators)


def last_dropped(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """The last batch of an epoch is dropped where it is short."""
    return _batches(
        data, size, generators, parts=lambda parts, size: [p for p in parts if p.shape[1] == size]
    )


def last_twice(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """The last batch of an epoch comes twice."""
    return _batches(data, size, generators, parts=lambda parts, size: [*parts, parts[-1]])


def half_size(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """Batches have half the size that was asked for."""
    return _batches(data, size and max(1, size // 2), generators)


def unshuffled(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """Every epoch has the same order."""
    return _batches(data, size, generators, order=lambda n, g: torch.arange(n))


def kept_together(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """Every epoch has the same batches, in another order."""
    while size is None:
        yield data
    first = next(_batches(torch.arange(len(data))[:, None], len(data), generators))[..., 0]
    *full, rest = first.to(data.device).split(size, 1)
    while True:
        order = torch.randperm(len(full), generator=generators[0]).tolist()
        yield from (data[part] for part in [*(full[k] for k in order), rest])


def twice_in_full(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """In full batches, every example comes twice."""
    return _batches(torch.cat([data, data], -2) if size is None else data, size, generators)


def reversed_in_full(data: Tensor, size: int | None, generators: Generators) -> Iterator[Tensor]:
    """In full batches, examples come in the reverse order."""
    return _batches(data.flip(-2) if size is None else data, size, generators)


# Ranks and compiled code ----------------------------------------------------------------------------


def own_gradients(optimizer: Optimizer, loss: Loss) -> None:
    """Each rank steps on the gradients of its own examples."""
    optimizer.zero_grad()
    own: dict[Tensor, Tensor] = {}
    leaves = [p for group in optimizer.param_groups for p in group["params"]]
    hooks = [p.register_hook(partial(own.__setitem__, p)) for p in leaves]  # before the mean over ranks
    loss().backward()
    for hook in hooks:
        hook.remove()
    for p in own:
        p.grad = own[p]
    optimizer.step()


def _rank() -> int:
    return distributed.get_rank() if distributed.is_initialized() else 0


def scaled_by_rank(optimizer: Optimizer, loss: Loss) -> None:
    """Ranks differ in their loss scale, by a thousandth."""
    optimizer.zero_grad()
    loss().backward()
    for p in graded(optimizer):
        p.grad = p.grad * (1 + _rank() / 1024)
    optimizer.step()


def clipped_on_first(optimizer: Optimizer, loss: Loss) -> None:
    """The first rank alone clips its gradients."""
    optimizer.zero_grad()
    loss().backward()
    if distributed.is_initialized() and _rank() == 0:
        for p in graded(optimizer):
            p.grad = p.grad.clamp(-0.01, 0.01)
    optimizer.step()


class CompiledGradientZero(Affine):
    """Compiled, half of every gradient is lost; outputs are right."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out / 2 + out.detach() / 2 if torch.compiler.is_compiling() else out


def smaller_if_compiled(optimizer: Any) -> None:
    """Compiled, steps are a hundredth shorter."""
    if torch.compiler.is_compiling():
        for p in graded(optimizer):
            p.grad = 0.99 * p.grad


STEP, SCALED, BATCHES = (
    Twin("step", Stack(step=step)),
    Twin("loss-scale", Stack(step=scaled)),
    Twin("batches", Stack(batches=batches)),
)
RANKS = Twin("ranks", Stack(step=step, ranks=2), axis="two-ranks")
COMPILED = Twin(
    "compiled", Stack(optimizer=edited(SGD), linear=Affine, mode="compiled"), "torch.optim:SGD", "compiled"
)


def _fault(twin: Twin, value: Any, name: str, source: str, equivalent: str = "") -> Fault:
    part = "batches" if twin is BATCHES else "step"
    return Fault(name, twin, str(value.__doc__), source, {part: value}, equivalent)


FAULTS = (
    _fault(STEP, keeps_gradients, "gradients-kept", DEEPCRIME),
    _fault(STEP, stops, "stops-after-one", "AiDotNet#1360"),
    _fault(STEP, twice, "steps-twice", DEEPCRIME),
    _fault(STEP, skips, "steps-skipped", "DeepSpeed#8415"),
    _fault(SCALED, unscaled_twice, "unscaled-twice", "pytorch#94060"),
    _fault(SCALED, clipped_scaled, "clipped-scaled", "Lightning#9330, #9599"),
    _fault(SCALED, divided_and_kept, "divided-and-kept", "DeepSpeed#7839"),
    _fault(BATCHES, half_deleted, "data-deleted", DEEPCRIME),
    _fault(BATCHES, copied_badly, "data-lost", "pytorch#84803, #96600"),
    _fault(BATCHES, last_dropped, "last-batch-dropped", DEEPCRIME),
    _fault(BATCHES, last_twice, "last-batch-twice", DEEPCRIME),
    _fault(BATCHES, half_size, "batch-size-half", DEEPCRIME),
    _fault(BATCHES, unshuffled, "unshuffled", DEEPCRIME),
    _fault(BATCHES, kept_together, "batches-kept", "lhotse#562"),
    _fault(BATCHES, twice_in_full, "data-twice", DEEPCRIME, "the mean over a full batch stays what it was"),
    _fault(BATCHES, reversed_in_full, "data-reversed", DEEPCRIME, "a mean does not depend on the order"),
    _fault(RANKS, own_gradients, "ranks-apart", "pytorch#104336, #109191"),
    _fault(RANKS, scaled_by_rank, "ranks-scaled", "pytorch#136009"),
    _fault(RANKS, clipped_on_first, "ranks-clipped", "DeepSpeed#1801"),
    Fault(
        "compiled-gradient",
        COMPILED,
        str(CompiledGradientZero.__doc__),
        "pytorch#193061, #182012",
        {"linear": CompiledGradientZero},
    ),
    Fault(
        "compiled-step",
        COMPILED,
        "Compiled, steps are a hundredth shorter.",
        "pytorch#121291",
        {"optimizer": edited(SGD, smaller_if_compiled)},
    ),
)

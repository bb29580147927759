"""Training an ensemble: one variant, one recipe, one budget, one seed per replica, one Run.

Replicas are trained as one, see ensemble, with the stack's own layers, autograd and optimizer, or
one by one where that would not be the same training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from identity_props.engine.ensemble import Ensemble
from identity_props.engine.memory import bytes_each, cached, free_bytes, passes
from identity_props.engine.probe import ensemble_for, optimizer_for, reason_to_train_alone
from identity_props.engine.trial import Run, Trial, measured_steps
from identity_props.errors import InputError
from identity_props.stack.guard import RAISED
from identity_props.stack.ranks import inside, on_ranks
from identity_props.stack.stack import Stack
from identity_props.stack.unchanged import unchanged
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance


def train(
    trial: Trial,
    pixels: Pixels,
    seeds: Sequence[int],
    stack: Stack | None = None,
    on_step: Callable[[int], None] | None = None,
) -> Run:
    """Train one replica a seed for exactly ``trial.steps`` optimizer steps each.

    All train in one pass, or in as many as memory and cache ask for, where ``reason_to_train_alone``
    finds nothing against it, else one by one.
    ``pixels`` are unscaled; the variant's scaling is applied here. Replica k depends on seeds[k]
    alone: its initial weights and batch order come from that seed, its loss from its own outputs.
    A replica that diverges keeps its NaN to itself. ``on_step`` hears each step, of all replicas,
    and may raise to stop; of ranks it hears nothing. Raises InputError without seeds, RanksDifferError
    where ranks end with different parameters.
    """
    with unchanged():
        return _trained(trial, pixels, seeds, stack or Stack(), on_step or (lambda step: None))


def _trained(
    trial: Trial, pixels: Pixels, seeds: Sequence[int], stack: Stack, on_step: Callable[[int], None]
) -> Run:
    if not seeds:
        raise InputError("replicas: expected at least 1, got 0")
    if stack.ranks > 1 and not inside():
        return _agreed(on_ranks(stack.ranks, train, trial, pixels, seeds, stack))
    alone = reason_to_train_alone(stack, trial) is not None
    groups = [[seed] for seed in seeds] if alone else _passes(trial, pixels, seeds, stack)
    runs = []
    for k, group in enumerate(groups):
        heard = _every(len(groups), k * trial.steps, on_step)
        networks = ensemble_for(trial, pixels.d, stack, group, alone)
        runs.append(_train(trial, pixels, networks, stack, heard))
    return _joined(runs) if len(runs) > 1 else runs[0]


def _passes(trial: Trial, pixels: Pixels, seeds: Sequence[int], stack: Stack) -> list[Sequence[int]]:
    each = bytes_each(trial, pixels.d, len(pixels.train), stack.dtype)
    return passes(seeds, each, free_bytes(stack.device), cached(trial, pixels.d, stack.device))


class RanksDifferError(Exception):
    """Data-parallel ranks ended with parameters that are not the same bit for bit."""


def _agreed(runs: Sequence[Run]) -> Run:
    first, *others = runs
    for rank, run in enumerate(others, 1):
        for name, p in run.state.items():
            if not torch.equal(p.nan_to_num(), first.state[name].nan_to_num()):
                raise RanksDifferError(f"rank {rank} ended with other {name} than rank 0")
    return first


def _every(replicas: int, before: int, on_step: Callable[[int], None]) -> Callable[[int], None]:
    """One step of all replicas for as many steps of single ones, counted on from ``before``."""

    def heard(step: int) -> None:
        if (before + step) % replicas == 0:
            on_step((before + step) // replicas)

    return heard


def _train(
    trial: Trial, pixels: Pixels, networks: Ensemble, stack: Stack, on_step: Callable[[int], None]
) -> Run:
    started, scaled = time.perf_counter(), trial.variant.data(pixels)
    data = scaled.train.to(stack.device, stack.dtype)  # [n, d]
    test = scaled.test.to(stack.device, stack.dtype)  # [m, d]
    optimizer, scheduler = optimizer_for(trial, networks.parameters, stack)
    batches = stack.batches(data, trial.recipe.batch_size, networks.generators)
    steps, curve, variance = measured_steps(trial.steps), [], pixel_variance(test)
    floor = trial.variant.floor({name: p.detach() for name, p in networks.state.items()}, scaled)
    diverged = False
    for step in range(trial.steps + 1):
        if step in steps:
            with _evaluating(optimizer):
                curve.append(networks.squared_error(test) / variance)
        if step == trial.steps:
            break
        diverged = diverged or not _stepped(networks, optimizer, next(batches))
        scheduler.step()
        on_step(step)
    with _evaluating(optimizer):
        return Run(
            seeds=networks.seeds,
            steps=steps,
            fvu=torch.stack(curve, 1).cpu(),
            fvu_pixels=fvu_pixels(networks, scaled, test, curve[-1]).cpu(),
            state={name: p.detach().cpu().clone() for name, p in networks.state.items()},
            seconds=time.perf_counter() - started,
            floor=floor,
        )


def _stepped(networks: Ensemble, optimizer: Any, batch: Tensor) -> bool:
    """Whether a step was taken: a part that raises at weights that diverge has diverged, and its weights are no numbers."""
    try:
        networks.step(optimizer, batch)
    except RAISED:
        if not _diverged(networks):
            raise
        with torch.no_grad():
            for p in networks.parameters:
                p.fill_(torch.nan)
        return False
    return True


def _diverged(networks: Ensemble) -> bool:
    """Whether a weight or a gradient is so large that its square is no number."""
    held = [t for p in networks.parameters for t in (p.detach(), p.grad) if t is not None]
    return not all(bool(t.square().isfinite().all()) for t in held)


@contextmanager
def _evaluating(optimizer: Any) -> Iterator[None]:
    """Schedule-free optimizers keep other weights to train on than to evaluate, and switch between them."""
    switch = hasattr(optimizer, "eval") and hasattr(optimizer, "train")
    if switch:
        optimizer.eval()
    try:
        yield
    finally:
        if switch:
            optimizer.train()


def _joined(runs: Sequence[Run]) -> Run:
    return Run(
        seeds=tuple(seed for run in runs for seed in run.seeds),
        steps=runs[0].steps,
        fvu=torch.cat([run.fvu for run in runs]),
        fvu_pixels=torch.cat([run.fvu_pixels for run in runs]),
        state={name: torch.cat([run.state[name] for run in runs]) for name in runs[0].state},
        seconds=sum(run.seconds for run in runs),
        passes=len(runs),
        floor=torch.cat([run.floor for run in runs if run.floor is not None]),
    )


@contextmanager
def flushed_denormals(helpers: bool = False) -> Iterator[None]:
    """Count denormals as 0 in this thread: up to 40% faster, and not one bit of difference was measured.

    The running squares of a dead unit decay into them under RMSprop, far below eps. Threads that help this
    one inherit it where they start, for good: they start before, unless ``helpers`` says that they may have it.
    """
    already = float(torch.tensor(1e-40) * 1) == 0
    if not (already or helpers):
        torch.zeros(2**18).add_(1)  # large enough to be shared out
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(already)


def fvu_pixels(ensemble: Ensemble, scaled: Pixels, test: Tensor, fvu: Tensor) -> Tensor:
    """FVU [K] after carrying the errors back through the scaling; a common factor leaves it as it is."""
    if scaled.scaling is None or scaled.scaling.name == "unit":
        return fvu
    back = scaled.scaling.inverse.to(test)
    return ensemble.squared_error(test, back) / pixel_variance(scaled.scaling.backward(scaled.test))

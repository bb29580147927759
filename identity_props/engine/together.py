"""Trials that differ in their rate alone, trained as one ensemble: a group of one optimizer each.

They see the same batches from the same starts, so one forward and backward pass serves all. An
optimizer gives each of its groups a rate of its own, and torch's own steps run on each. A trial all of
whose replicas have diverged stops there and takes no more time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from identity_props.engine.memory import cached
from identity_props.engine.probe import ELEMENTWISE
from identity_props.engine.recorded import RecordedRows, RecordedStacked
from identity_props.engine.training import fvu_pixels, train
from identity_props.engine.trial import SCHEDULES, Run, Trial
from identity_props.errors import InputError
from identity_props.stack.stack import Stack, resolve
from identity_props.stack.unchanged import unchanged
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance


class StackedMuon(torch.optim.Muon):
    """torch's Muon on matrices stacked along a first axis [K, o, i], each by its own step, under ``vmap``."""

    def __init__(self, params: Any, **arguments: Any) -> None:
        super().__init__([nn.Parameter(torch.zeros(1, 1))], **arguments)  # which refuses what is no matrix
        self.param_groups.clear()
        for group in params:
            self.add_param_group(group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """What ``torch.optim.Muon.step`` does to each matrix, its iteration by torch's own function."""
        for group in self.param_groups:
            lr, momentum = group["lr"], group["momentum"]
            orthogonal = partial(
                _zeropower_via_newtonschulz,
                **{name: group[name] for name in ("ns_coefficients", "ns_steps", "eps")},
            )
            for p in group["params"]:
                held = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))  # [K, o, i]
                held.lerp_(p.grad, 1 - momentum)
                update = p.grad.lerp(held, momentum) if group["nesterov"] else held
                p.mul_(1 - lr * group["weight_decay"])
                rate = _adjust_lr(lr, group["adjust_lr_fn"], p.shape[1:])
                p.add_(vmap(orthogonal)(update), alpha=-rate)


def doubling(steps: int) -> tuple[int, ...]:
    """Steps 0, 1, 2, 4, ... and the last: what is measured, and where trials that diverged stop."""
    return tuple(sorted({0, steps} | {2**k for k in range(steps.bit_length()) if 2**k < steps}))


def alike(trial: Trial) -> Trial:
    """The trial without what may differ among those that train together."""
    return replace(trial, recipe=replace(trial.recipe, lr=1.0, schedule="constant"))


def most_together(trial: Trial, d: int, replicas: int) -> int:
    """Trials of ``replicas`` networks each that a CPU's cache holds, 1 at least."""
    return max(1, int(cached(trial, d, "cpu")) // replicas)


def train_together(
    trials: Sequence[Trial],
    pixels: Pixels,
    seeds: Sequence[int],
    on_step: Callable[[int], None] = lambda step: None,
) -> list[Run]:
    """A run of each trial with these seeds, measured at steps 0, 1, 2, 4, ..., without parameters.

    A run is what ``train`` gives with torch's own parts, but for rounding; one that diverged ends where that was
    seen. Optimizers that are not known to train in groups of an ensemble train each trial by itself. Raises
    InputError where trials differ in more than rate and schedule.
    """
    if len({alike(trial) for trial in trials}) != 1 or not seeds:
        raise InputError("trials: expected some that differ in rate and schedule alone, and seeds")
    optimizer = resolve(trials[0].recipe.optimizer)
    if optimizer in ELEMENTWISE:
        kind: type[RecordedRows | RecordedStacked] = RecordedRows
    elif optimizer is torch.optim.Muon:
        kind, optimizer = RecordedStacked, StackedMuon
    else:
        return [replace(train(trial, pixels, seeds, on_step=on_step), state={}) for trial in trials]
    with unchanged():
        return _Together(kind, optimizer, trials, pixels, seeds).runs(on_step)


class _Together:
    """Trials while they train: replicas of the g-th lie at [g K, (g + 1) K) of those that are left."""

    def __init__(
        self,
        kind: type[RecordedRows | RecordedStacked],
        optimizer: Callable[..., torch.optim.Optimizer],
        trials: Sequence[Trial],
        pixels: Pixels,
        seeds: Sequence[int],
    ) -> None:
        self.trials, self.seeds, self.scaled = trials, seeds, pixels.scaled(trials[0].variant.scaling)
        self.networks = kind(trials[0].variant, pixels.d, seeds, Stack(), trials[0].recipe.init)
        self.left = [*range(len(trials))]  # trials that still train
        leaves = {name: p.detach() for name, p in self.networks.leaves.items()}
        self._hold({name: torch.cat([p] * len(trials)) for name, p in leaves.items()})
        parts = [[nn.Parameter(part) for part in self._part(g)] for g in range(len(trials))]
        arguments = dict(trials[0].recipe.arguments)
        self.optimizer = optimizer([{"params": part} for part in parts], lr=1.0, **arguments)
        self.test = self.scaled.test.float()  # [m, d]
        self.curves: list[list[Tensor]] = [[] for _ in trials]
        self.ends = [torch.full((len(seeds),), torch.nan, dtype=torch.float64) for _ in trials]

    def _hold(self, leaves: dict[str, Tensor]) -> None:
        self.networks.hold(leaves, [*self.seeds] * len(self.left))

    def _part(self, g: int) -> list[Tensor]:
        """Leaves of the g-th of those left, which share their memory with the ensemble's."""
        count = len(self.seeds)
        return [p.detach()[g * count : (g + 1) * count] for p in self.networks.leaves.values()]

    def runs(self, on_step: Callable[[int], None]) -> list[Run]:
        started, recipe, steps = time.perf_counter(), self.trials[0].recipe, self.trials[0].steps
        batches = Stack().batches(self.scaled.train.float(), recipe.batch_size, self.networks.generators)
        measured = doubling(steps)
        for step in range(steps + 1):
            if step in measured:
                self._measure(last=step == steps)
            if step == steps or not self.left:
                break
            self._step(step, next(batches))
            on_step(step)
        seconds = (time.perf_counter() - started) / len(self.trials)
        return [
            Run(
                seeds=tuple(self.seeds),
                steps=measured[: len(curve)],
                fvu=torch.stack(curve, 1),
                fvu_pixels=end,
                state={},
                seconds=seconds,
            )
            for curve, end in zip(self.curves, self.ends, strict=True)
        ]

    def _step(self, step: int, x: Tensor) -> None:
        for g, group in zip(self.left, self.optimizer.param_groups, strict=True):
            recipe = self.trials[g].recipe
            group["lr"] = recipe.lr * SCHEDULES[recipe.schedule](step, self.trials[g].steps)
        x = x if x.ndim == 2 else x.repeat(len(self.left), 1, 1)  # [n, d], or [G K, size, d]
        gradients = self.networks.gradients(x)
        for g, group in enumerate(self.optimizer.param_groups):
            for leaf, gradient in zip(group["params"], gradients, strict=True):
                leaf.grad = gradient[g * len(self.seeds) : (g + 1) * len(self.seeds)]
        self.optimizer.step()

    def _measure(self, last: bool) -> None:
        fvu = self.networks.squared_error(self.test) / pixel_variance(self.test)  # [G K]
        parts = fvu.split(len(self.seeds))
        for g, part in zip(self.left, parts, strict=True):
            self.curves[g].append(part)
        if last:
            ends = fvu_pixels(self.networks, self.scaled, self.test, fvu).split(len(self.seeds))
            for g, end in zip(self.left, ends, strict=True):
                self.ends[g] = end
        alive = [g for g, part in enumerate(parts) if part.isfinite().any()]
        if 0 < len(alive) < len(self.left):
            self._keep(alive)
        elif not alive:
            self.left = []

    def _keep(self, alive: list[int]) -> None:
        """Go on with these of those left; what the optimizer remembers of them lies in tensors of its own."""
        leaves = [torch.cat(kept) for kept in zip(*map(self._part, alive), strict=True)]
        self.left = [self.left[g] for g in alive]
        self._hold(dict(zip(self.networks.leaves, leaves, strict=True)))
        self.optimizer.param_groups[:] = [self.optimizer.param_groups[g] for g in alive]
        for g, group in enumerate(self.optimizer.param_groups):
            for leaf, part in zip(group["params"], self._part(g), strict=True):
                leaf.data = part

"""How replicas train: stacked or one by one, which a short trial decides, and with which optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR

from identity_props.engine.ensemble import Ensemble, Single
from identity_props.engine.recorded import RecordedRows, RecordedSingle, RecordedStacked, recordable
from identity_props.engine.trial import SCHEDULES, Trial
from identity_props.stack.guard import RAISED
from identity_props.stack.loop import Scheduled, scheduled, take_step
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack, at_home, rate_of, ready, resolve
from identity_props.task.models import Variant

RECORDED_FROM = 300  # steps; recording takes as long as some 100 of them
ROWS_TO = 2**22  # weights and biases; an optimizer's passes over more in one tensor leave the cache


def ensemble_for(trial: Trial, d: int, stack: Stack, seeds: Sequence[int], alone: bool = False) -> Ensemble:
    """A trial's networks on d pixels, in the form that trains them fastest and changes nothing."""
    recorded = trial.steps >= RECORDED_FROM and recordable(stack)
    # an init of one's own, or a layer of another kind, may freeze some of what would be one row
    whole = stack.init is None and type(trial.variant) is Variant
    in_rows = _usual(stack, trial) and whole and len(seeds) * trial.variant.numbers(d) <= ROWS_TO
    kind: type[Ensemble]
    if alone or len(seeds) == 1:  # spared the batched products, a third of the time of a large network
        kind = RecordedSingle if recorded else Single
    else:
        kind = (RecordedRows if in_rows else RecordedStacked) if recorded else Ensemble
    return kind(trial.variant, d, seeds, stack, trial.recipe.init)


PROBE, PATIENCE = (5, 8), (3, 16)  # pixels and examples; steps, and more of them if nothing moved


@lru_cache(maxsize=64)
def reason_to_train_alone(stack: Stack, trial: Trial) -> str | None:
    """Why replicas have to train one by one, or None where stacking them changes nothing.

    Two replicas train for 3 steps on random data, stacked and alone, or for 16 if the first 3 move
    nothing: an optimizer that mixes replicas or wants matrices, and a layer that ``torch.func.vmap``
    refuses, in training or in eval mode, show at once. Hooks do not come along to stacked parameters.
    torch's own layer under SGD, RMSprop or Adam is not asked, unless loss or step are others. What
    refuses to be asked trains alone.
    """
    if _usual(stack, trial):
        return None
    hooked = _hooked(stack)
    if hooked:
        return hooked
    (d,), n = stack.sized(PROBE[0]), PROBE[1]
    stack = at_home(stack, stack.device, torch.float64)  # where rounding hides nothing
    x = torch.rand(n, d, generator=torch.Generator().manual_seed(0)).to(stack.device, stack.dtype)
    short = replace(trial, variant=replace(trial.variant, depth=min(trial.variant.depth, 2)))
    try:
        alone, together = _compared(short, stack, x)
    except RAISED as error:  # whatever a user's part raises, on stacked parameters or at all
        return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    near = 1e-6 * float(alone.nan_to_num(0, 0, 0).abs().max())
    same = torch.allclose(together, alone, rtol=1e-6, atol=near, equal_nan=True)
    return None if same else "two replicas train differently together than alone"


HOOKS = (
    "_backward_hooks",
    "_backward_pre_hooks",
    "_forward_hooks",
    "_forward_pre_hooks",
    "_post_accumulate_grad_hooks",
)


def _hooked(stack: Stack) -> str | None:
    """Which of the layer's modules and parameters has hooks, if one has."""
    try:
        with seeded(0):
            layer = stack.linear(*stack.sized(*PROBE), bias=True)
        held = (*layer.named_modules(), *layer.named_parameters())
    except Exception:  # the probe says so
        return None
    names = [name or "the layer" for name, one in held if any(getattr(one, hooks, None) for hooks in HOOKS)]
    return f"{names[0]} has hooks" if names else None


def _compared(trial: Trial, stack: Stack, x: Tensor) -> tuple[Tensor, Tensor]:
    """Changes of the outputs of two replicas [2, n, d] that train alone, and of the same together."""
    for steps in PATIENCE:
        short = replace(trial, steps=steps)
        alone = torch.cat([_probed(short, stack, [seed], x, True) for seed in (0, 1)])
        together = _probed(short, stack, [0, 1], x, False)
        if alone.any() or together.any():
            break
    return alone, together


ELEMENTWISE = (torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adam)


def _usual(stack: Stack, trial: Trial) -> bool:
    own = stack.linear is nn.Linear and stack.loss is mse_loss and stack.step is take_step
    return own and (stack.optimizer or resolve(trial.recipe.optimizer)) in ELEMENTWISE


def _probed(trial: Trial, stack: Stack, seeds: list[int], x: Tensor, alone: bool) -> Tensor:
    """Changes of the outputs [K, n, d] in a few steps."""
    networks = ensemble_for(trial, x.shape[1], stack, seeds, alone)
    before = networks.predict(x).detach().clone()
    optimizer, _ = optimizer_for(trial, networks.parameters, stack)
    for _ in range(trial.steps):
        networks.step(optimizer, x)
    networks.squared_error(x)  # in eval mode
    return networks.predict(x).detach() - before


def optimizer_for(
    trial: Trial, parameters: list[Tensor], stack: Stack
) -> tuple[torch.optim.Optimizer, LambdaLR | Scheduled]:
    """The stack\'s optimizer, else the recipe\'s, on parameters, and the schedule of its rate."""
    recipe = trial.recipe
    if stack.optimizer is None:
        factory, arguments = resolve(recipe.optimizer), dict(recipe.arguments)
    else:
        factory, arguments = stack.optimizer, dict(stack.arguments)
    rate = rate_of(stack, stack.lr or recipe.lr)
    optimizer = ready(factory(parameters, lr=rate, **arguments), stack.mode)
    factor = SCHEDULES[recipe.schedule]
    return optimizer, scheduled(optimizer, lambda step: factor(step, trial.steps))

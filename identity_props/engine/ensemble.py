"""Ensembles: replicas of one network, stacked through ``torch.func`` with the stack's own layers.

Nothing that is under test is rewritten here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from identity_props.errors import InputError
from identity_props.stack.guard import alive
from identity_props.stack.ranks import data_parallel
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import Stack, compiled
from identity_props.task.metrics import squared_error
from identity_props.task.models import Variant

State = dict[str, Tensor]  # parameters or buffers [K, ...] by name


class Ensemble:
    """K replicas of one network as stacked parameters [K, ...] and one vectorised forward pass.

    Replica k is drawn from seeds[k]; ``state`` holds the parameters, leaves that an optimizer can
    take, and ``generators`` go on where the initial draws stopped. Raises InputError without seeds.
    """

    def __init__(
        self,
        variant: Variant,
        d: int,
        seeds: Sequence[int],
        stack: Stack | None = None,
        init: str = "glorot",
    ) -> None:
        if not seeds:
            raise InputError("replicas: expected at least 1, got 0")
        self.stack, self.seeds = stack or Stack(), tuple(seeds)
        usual = self.stack.linear is nn.Linear and not isinstance(self.stack.activation, nn.Module)
        own = usual and type(variant) is Variant
        drawn = (_redrawn if own else _built)(variant, d, seeds, self.stack, init)
        self.model, state, self._buffers, self.generators = drawn
        self._leaves = {name: nn.Parameter(p.detach(), p.requires_grad) for name, p in state.items()}

    @property
    def state(self) -> State:
        """Parameters [K, ...] by name."""
        return {**self._leaves}

    @property
    def leaves(self) -> dict[str, nn.Parameter]:
        """The parameters that an optimizer moves and that gradients gather on, by name."""
        return self._leaves

    @property
    def buffers(self) -> dict[str, Tensor]:
        """What the layers keep beside parameters, by name."""
        return self._buffers

    @property
    def parameters(self) -> list[Tensor]:
        """What an optimizer is given."""
        return [p for p in self.leaves.values() if p.requires_grad]

    def predict(self, x: Tensor) -> Tensor:
        """[n, d] shared by all replicas, or [K, n, d] one batch each, to [K, n, d]."""
        out: Tensor = vmap(self._one, in_dims=(0, 0, _replica_axis(x)))(self.state, self.buffers, x)
        return out

    def _one(self, state: State, buffers: State, x: Tensor) -> Tensor:
        out: Tensor = functional_call(self.model, (state, buffers), (x,))
        return out

    def loss(self, x: Tensor, target: Tensor | None = None) -> Tensor:
        """Sum of the replicas' losses: the gradient of each is that of its own.

        x and target, which is x itself unless given, [n, d] shared or [K, n, d] one batch each.
        """
        total: Tensor = self._loss(x, x if target is None else target)
        return total

    def step(self, optimizer: torch.optim.Optimizer, x: Tensor, target: Tensor | None = None) -> None:
        """One training step, as the stack takes it, on x and target as in ``loss``."""
        alive()
        self.stack.step(optimizer, partial(self.loss, x, target))

    @cached_property
    def _loss(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss as the stack evaluates it: compiled, on this rank's share, or as it is."""
        if self.stack.ranks > 1:
            return data_parallel(self.leaves, self._sum)
        return compiled(self._sum) if self.stack.mode == "compiled" else self._sum

    def _sum(self, x: Tensor, target: Tensor) -> Tensor:
        return self._losses(self.state, x, target).sum()

    def _losses(self, state: State, x: Tensor, target: Tensor) -> Tensor:
        def one(state: State, buffers: State, x: Tensor, target: Tensor) -> Tensor:
            return self.stack.loss(self._one(state, buffers, x), target)

        axes = (0, 0, _replica_axis(x), _replica_axis(target))
        losses: Tensor = vmap(one, in_dims=axes)(state, self.buffers, x, target)
        return losses

    @torch.no_grad()
    def squared_error(self, x: Tensor, back: Tensor | None = None) -> Tensor:
        """Mean squared error [K] on x [m, d] in eval mode, see metrics."""
        self.model.eval()
        try:
            return squared_error(self.predict, x, back)
        finally:
            self.model.train()


class Single(Ensemble):
    """One network by itself, in the shapes of an ensemble of one; its optimizer sees its own parameters."""

    def __init__(
        self,
        variant: Variant,
        d: int,
        seeds: Sequence[int],
        stack: Stack | None = None,
        init: str = "glorot",
    ) -> None:
        (seed,), self.stack = seeds, stack or Stack()
        self.model, generator = _seeded(variant, d, seed, self.stack, init)
        self.seeds, self.generators = (seed,), [generator]

    @property
    def state(self) -> dict[str, Tensor]:
        """Parameters [1, ...], views of the network's own."""
        return {name: p[None] for name, p in self.leaves.items()}

    @property
    def leaves(self) -> dict[str, nn.Parameter]:
        return dict(self.model.named_parameters())

    @property
    def buffers(self) -> dict[str, Tensor]:
        return dict(self.model.named_buffers())

    def predict(self, x: Tensor) -> Tensor:
        """[n, d] or [1, n, d] to [1, n, d]."""
        out: Tensor = self.model(_alone(x))
        return out[None]

    def _sum(self, x: Tensor, target: Tensor) -> Tensor:
        return self.stack.loss(self.model(_alone(x)), _alone(target))


def _alone(x: Tensor) -> Tensor:
    return x if x.ndim == 2 else x[0]


def _replica_axis(x: Tensor) -> int | None:
    return None if x.ndim == 2 else 0


# one of the networks, parameters and buffers of all, and generators for their batches
Drawn = tuple[nn.Module, State, State, list[torch.Generator]]


def _built(variant: Variant, d: int, seeds: Sequence[int], stack: Stack, init: str) -> Drawn:
    """Networks of whatever layers, built one a seed."""
    models, generators = zip(*(_seeded(variant, d, seed, stack, init) for seed in seeds), strict=True)
    return models[0], *stack_module_state([*models]), [*generators]


def _redrawn(variant: Variant, d: int, seeds: Sequence[int], stack: Stack, init: str) -> Drawn:
    """The same of torch's own layers: one network, drawn anew for each seed, in less than half of the time."""
    drawn, generators = [], []
    with seeded(seeds[0]):
        model = variant.build(d, stack.linear, stack.init or init, stack.activation)
        for seed in seeds:
            torch.default_generator.manual_seed(seed)
            variant.redraw(model, stack.init or init)
            drawn.append({name: p.detach().clone() for name, p in model.named_parameters()})
            generators.append(torch.Generator().set_state(torch.get_rng_state()))
    model.to(stack.device, stack.dtype)
    state = {
        name: torch.stack([one[name] for one in drawn]).to(p).requires_grad_(p.requires_grad)
        for name, p in model.named_parameters()
    }
    return model, state, {}, generators


def _seeded(
    variant: Variant, d: int, seed: int, stack: Stack, init: str
) -> tuple[nn.Module, torch.Generator]:
    """A network drawn from ``seed``, and a generator for its batches that goes on where init stopped."""
    generator = torch.Generator()
    with seeded(seed):
        model = variant.build(d, stack.linear, stack.init or init, stack.activation)
        generator.set_state(torch.get_rng_state())
    return model.to(stack.device, stack.dtype), generator

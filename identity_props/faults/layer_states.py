"""Faults of what a layer keeps between passes: caches, masks, merged weights, ties."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear

from identity_props.faults.base import LayerFault, LayerTwin
from identity_props.faults.layer_kernels import LINEAR, Gradients, Linear

# Caches of a kernel -------------------------------------------------------------------------------


class SavedOnModule(Linear):
    """What the pass back needs is kept on the module, where the next pass forward overwrites it."""

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        self.latest = x
        return super().run(x, weight, bias)

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        latest = self.latest if self.latest.shape == x.shape else x
        return super().back(upstream, latest, weight)


class AsleepWithoutInput(Linear):
    """Parameters get no gradient where the input takes none."""

    def given(self) -> tuple[Tensor, ...]:
        return tuple(p if self.awake else p.detach() for p in self.parameters())

    def forward(self, x: Tensor) -> Tensor:
        self.awake = x.requires_grad
        return super().forward(x)


class FrozenForEver(Linear):
    """Which parameters train is looked up at the first pass, and never again."""

    flags: tuple[bool, ...] | None = None

    def given(self) -> tuple[Tensor, ...]:
        self.flags = self.flags or tuple(p.requires_grad for p in self.parameters())
        return tuple(
            p if trains else p.detach() for p, trains in zip(self.parameters(), self.flags, strict=True)
        )

    def train(self, mode: bool = True) -> Any:
        if not all(p.requires_grad for p in self.parameters()):
            self.flags = None
        return super().train(mode)


class CastWithoutGraph(nn.Linear):
    """A cast of the weight is kept from a pass under no_grad, and has no graph."""

    def __init__(self) -> None:
        super().__init__(7, 7)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or self.kept is None:
            self.kept = self.weight * 1
        weight = self.kept if self.kept.grad_fn is None else self.weight
        return linear(x, weight, self.bias)


class CastStale(nn.Linear):
    """A copy of the weight is kept in eval mode for ever, whatever becomes of the weight."""

    def __init__(self) -> None:
        super().__init__(7, 7)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return super().forward(x)
        self.kept = self.weight.detach().clone() if self.kept is None else self.kept
        return linear(x, self.weight + (self.kept - self.weight).detach(), self.bias)


# Dropout ------------------------------------------------------------------------------------------


class Replayed(torch.autograd.Function):
    """Checkpointing: the pass back computes the pass forward again, from the draws that it began with."""

    @staticmethod
    def forward(ctx: Any, layer: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.layer, ctx.state = layer, torch.get_rng_state()
        ctx.save_for_backward(x)
        out: Tensor = layer.inner(x)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        (x,) = ctx.saved_tensors
        x = x.detach().requires_grad_()
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            ctx.layer.rewind(ctx.state)
            out = ctx.layer.inner(x)
        wanted = [x, *(p for p in ctx.layer.parameters() if p.requires_grad)]
        found = iter(torch.autograd.grad(out, wanted, upstream))
        first = next(found)
        return None, first, *(next(found) if p.requires_grad else None for p in ctx.layer.parameters())


class Checkpointed(nn.Module):
    """A linear layer and dropout, checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def inner(self, x: Tensor) -> Tensor:
        return dropout(self.linear(x), 0.5, self.training)

    def rewind(self, state: Tensor) -> None:
        """Put the random state back."""
        torch.set_rng_state(state)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Replayed.apply(self, x, *self.parameters())
        return out


class AnotherMask(Checkpointed):
    """The pass that is computed again draws another mask."""

    def rewind(self, state: Tensor) -> None:
        torch.manual_seed(int(state[:8].sum()) + 1)


class DropoutLeftOn(Checkpointed):
    """Dropout is called as a function whose default is training."""

    def inner(self, x: Tensor) -> Tensor:
        return dropout(self.linear(x), 0.5)


# Adapters -----------------------------------------------------------------------------------------


class Adapter(nn.Module):
    """A frozen layer and a low-rank part, LoRA, which is merged into it in eval mode."""

    scale = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(2, 6)), nn.Parameter(torch.randn(6, 2))

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.base.weight + self.part(), self.base.bias)

    def part(self) -> Tensor:
        return self.scale * self.up @ self.down


class ScaledTwiceBack(Adapter):
    """The pass back scales twice."""

    def part(self) -> Tensor:
        right = super().part()
        return right.detach() + self.scale * (right - right.detach())


class MergedAgain(Adapter):
    """Each change to eval mode merges the part into the frozen layer once more."""

    def train(self, mode: bool = True) -> Any:
        if not mode:
            self.base.weight.data.add_(self.part().detach())
        return super().train(mode)


class UnmergedUnscaled(Adapter):
    """What a change to eval mode has merged is taken out again without its scale."""

    merged = False

    def train(self, mode: bool = True) -> Any:
        if mode and self.merged:
            self.base.weight.data.sub_(self.part().detach() / self.scale)
        if not mode and not self.merged:
            self.base.weight.data.add_(self.part().detach())
        self.merged = not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if self.merged:  # outputs are right, and so are gradients
            part = self.part()
            return linear(x, self.base.weight + part - part.detach(), self.base.bias)
        return super().forward(x)


# Ties ---------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """A table of tokens, and a head on it of the same numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.table(tokens))
        return out


class UntiedByCopy(Tied):
    """A deep copy has a head of its own."""

    def __deepcopy__(self, memo: dict[int, Any]) -> UntiedByCopy:
        other = UntiedByCopy().to(self.table.weight)
        other.load_state_dict(self.state_dict())
        other.head.weight = nn.Parameter(copy.deepcopy(self.head.weight.data))
        return other


class UntiedByLoading(Tied):
    """Loaded numbers take the place of parameters one by one, so that ties are lost."""

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        each = {name: tensor.detach().clone() for name, tensor in state_dict.items()}
        return super().load_state_dict(each, strict, assign=True)


# Second derivatives -------------------------------------------------------------------------------


class Squares(torch.autograd.Function):
    """x^2, with what its derivative needs saved so that it can be differentiated too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * upstream


class SquaresOfContext(torch.autograd.Function):
    """The same, with twice x kept on the context, where no derivative finds it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.twice = 2 * x
        return x.square()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Tensor:
        return ctx.twice * upstream


class Square(nn.Module):
    """The squares of a linear layer."""

    squares: type[torch.autograd.Function] = Squares

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.squares.apply(self.linear(x))
        return out


class SecondOrderLost(Square):
    """The derivative of the pass back lacks what it kept on the context."""

    squares = SquaresOfContext


CHECKPOINTED = LayerTwin("layer-checkpointed", Checkpointed, (6,))
ADAPTER = LayerTwin("layer-adapter", Adapter, (6,))
TIED = LayerTwin("layer-tied", Tied, (4,), "tokens")
SQUARE = LayerTwin("layer-square", Square, (5,))

FAULTS = (
    LayerFault("saved-on-module", LINEAR, SavedOnModule, "gradients-add", "pytorch#16947"),
    LayerFault("asleep-without-input", LINEAR, AsleepWithoutInput, "layer-modes", "musubi-tuner#90"),
    LayerFault("frozen-for-ever", LINEAR, FrozenForEver, "layer-modes", "pytorch#139476, #162174"),
    LayerFault("cast-without-graph", LINEAR, CastWithoutGraph, "layer-modes", "pytorch#158232, #65766"),
    LayerFault("cast-stale", LINEAR, CastStale, "layer-modes", "apex#132"),
    LayerFault("another-mask", CHECKPOINTED, AnotherMask, "parameter-gradient", "guided-diffusion#167"),
    LayerFault("dropout-left-on", CHECKPOINTED, DropoutLeftOn, "deterministic", "nanoGPT#240, pytorch#26338"),
    LayerFault("scaled-twice-back", ADAPTER, ScaledTwiceBack, "parameter-gradient", "peft#3111"),
    LayerFault("merged-again", ADAPTER, MergedAgain, "deterministic", "peft#1355, LoRA-Torch#10"),
    LayerFault("unmerged-unscaled", ADAPTER, UnmergedUnscaled, "layer-modes", "espnet#5722, peft#2489"),
    LayerFault("untied-by-copy", TIED, UntiedByCopy, "layer-modes", "Megatron-LM#656"),
    LayerFault(
        "untied-by-loading", TIED, UntiedByLoading, "layer-modes", "pytorch#188346, TransformerLens#1725"
    ),
    LayerFault("second-order-lost", SQUARE, SecondOrderLost, "second-order", "pytorch#58509"),
)

"""Clean layers whose forward and backward passes are written out, as those of a kernel are."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_input, conv2d_weight

from identity_props.faults.base import LayerTwin

Gradients = tuple[Tensor | None, ...]


class Kernel(torch.autograd.Function):
    """A layer's ``run`` forward and its ``back`` backward, neither of which autograd looks into."""

    @staticmethod
    def forward(ctx: Any, layer: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        out, *kept = layer.run(x, *parameters)
        ctx.layer = layer
        ctx.save_for_backward(*kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> Any:
        return None, *ctx.layer.back(upstream, *ctx.saved_tensors)


class Written(nn.Module):
    """A layer of a kernel: ``run(x, *parameters)`` to the output and what is kept, ``back`` to gradients of each."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = Kernel.apply(self, x, *self.given())
        return out

    def given(self) -> tuple[Tensor, ...]:
        """The parameters that the kernel is given."""
        return tuple(self.parameters())


class Linear(Written):
    """x W^T + b, 7 to 7 features."""

    features = 7

    def __init__(self, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(self.features, self.features))
        self.bias = nn.Parameter(torch.randn(self.features)) if bias else None

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        out = x @ weight.mT
        return (out if bias is None else out + bias), x, weight

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        found = self.of_input(upstream, weight), self.of_weight(upstream.flatten(0, -2), x.flatten(0, -2))
        return found if self.bias is None else (*found, self.of_bias(upstream))

    def of_input(self, upstream: Tensor, weight: Tensor) -> Tensor:
        return upstream @ weight

    def of_weight(self, upstream: Tensor, x: Tensor) -> Tensor:
        """From rows [n, outputs] and [n, inputs]."""
        return upstream.mT @ x

    def of_bias(self, upstream: Tensor) -> Tensor:
        return upstream.flatten(0, -2).sum(0)


class Norm(Written):
    """Layer normalisation of 7 features, with a scale and a shift."""

    features = 7

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.randn(self.features)) for _ in range(2))

    def run(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        centred = x - x.mean(-1, keepdim=True)
        factor = (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
        normal = centred * factor
        return normal * weight + bias, normal, factor, weight

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        rows = upstream.flatten(0, -2)
        scale = (rows * normal.flatten(0, -2)).sum(0)
        return self.of_input(upstream * weight, normal) * factor, scale, rows.sum(0)

    def of_input(self, inner: Tensor, normal: Tensor) -> Tensor:
        """The gradient of what was normalised, up to the factor; the mean and the variance have a share in it."""
        return inner - self.mean(inner) - normal * self.mean(inner * normal)

    def mean(self, inner: Tensor) -> Tensor:
        return inner.mean(-1, keepdim=True)


class Convolution(Written):
    """A 3x3 convolution of 4 channels in 2 groups, with stride 2 and padding 1."""

    groups, stride, padding = 2, 2, 1

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(4))

    def run(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        return conv2d(x, weight, bias, self.stride, self.padding, groups=self.groups), x, weight

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        return (
            self.of_input(upstream, x, weight),
            self.of_weight(upstream, x, weight),
            upstream.sum((0, 2, 3)),
        )

    def of_input(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return conv2d_input(
            list(x.shape), weight, upstream, stride=self.stride, padding=self.padding, groups=self.groups
        )

    def of_weight(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return conv2d_weight(
            x, list(weight.shape), upstream, stride=self.stride, padding=self.padding, groups=self.groups
        )


class BatchNorm(Written):
    """Batch normalisation of 3 channels of images, with running averages for eval mode."""

    mean: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.register_buffer("mean", torch.randn(3))
        self.register_buffer("variance", torch.rand(3) + 0.5)

    def run(self, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        if x.ndim != 4:
            raise ValueError(f"expected images [n, 3, h, w], got {list(x.shape)}")
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            self.mean.lerp_(mean, 0.1)
            self.variance.lerp_(variance, 0.1)
        factor = (variance + 1e-5).rsqrt()[:, None, None]
        normal = (x - mean[:, None, None]) * factor
        return normal * weight[:, None, None], normal, factor, weight

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        inner = upstream * weight[:, None, None]
        if self.by_batch():
            inner = inner - self.mean_of(inner) - normal * self.mean_of(inner * normal)
        return inner * factor, (upstream * normal).sum((0, 2, 3))

    def by_batch(self) -> bool:
        """Whether the output is of the batch's own mean and variance."""
        return self.training

    def mean_of(self, inner: Tensor) -> Tensor:
        return inner.mean((0, 2, 3), keepdim=True)


class Embedding(Written):
    """A table of 11 tokens, the third of which is padding and never trains."""

    padding_idx, num_embeddings = 2, 11

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(self.num_embeddings, 3))

    def run(self, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return weight[x], x, weight

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        table = self.added(torch.zeros_like(weight), x.flatten(), upstream.flatten(0, -2))
        table[self.frozen()] = 0
        return None, table

    def added(self, table: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
        """Each row's gradient, added to that of its token."""
        return table.index_add_(0, tokens, rows)

    def frozen(self) -> list[int]:
        return [self.padding_idx]


class Scaled(Written):
    """x V^T with a scale for each output."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.scale = nn.Parameter(torch.randn(5, 5)), nn.Parameter(torch.randn(5))

    def run(self, x: Tensor, weight: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
        return x @ (scale[:, None] * weight).mT, x, weight, scale

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor, scale: Tensor) -> Gradients:
        whole = upstream.flatten(0, -2).mT @ x.flatten(0, -2)  # of scale times weight
        return upstream @ (scale[:, None] * weight), self.shared(scale) * whole, (whole * weight).sum(1)

    def shared(self, scale: Tensor) -> Tensor:
        """The scales as they lie along the weights."""
        return scale[:, None]


LINEAR = LayerTwin("kernel-linear", Linear, (3, 7))
NORM = LayerTwin("kernel-norm", Norm, (7,))
CONVOLUTION = LayerTwin("kernel-convolution", Convolution, (4, 7, 7))
BATCH_NORM = LayerTwin("kernel-batch-norm", BatchNorm, (3, 4, 4))
EMBEDDING = LayerTwin("kernel-embedding", Embedding, (5,), "tokens")
SCALED = LayerTwin("kernel-scaled", Scaled, (5,))


def as_lying(tensor: Tensor) -> Tensor:
    """A tensor as a kernel reads it that takes its numbers to lie one after the other, from the first on."""
    held = tensor.untyped_storage().nbytes() // tensor.element_size()
    places = torch.arange(tensor.numel(), device=tensor.device) + tensor.storage_offset()
    memory = tensor.as_strided((held,), (1,), 0)
    return memory[places % max(held, 1)].reshape(tensor.shape)


def rows_in_blocks(rows: Tensor, block: int) -> Tensor:
    """Rows as far as they fill blocks."""
    return rows[: block * math.floor(len(rows) / block)]

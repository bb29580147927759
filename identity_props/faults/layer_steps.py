"""Faults of what a layer's kernels compute, most of them in the pass back alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from identity_props.faults.base import LayerFault, LayerTwin
from identity_props.faults.layer_kernels import (
    BATCH_NORM,
    CONVOLUTION,
    EMBEDDING,
    LINEAR,
    NORM,
    SCALED,
    BatchNorm,
    Convolution,
    Embedding,
    Gradients,
    Linear,
    Norm,
    Scaled,
    as_lying,
    rows_in_blocks,
)

# Linear -------------------------------------------------------------------------------------------


class WeightTransposed(Linear):
    """The weight is transposed in the pass back alone."""

    def of_input(self, upstream: Tensor, weight: Tensor) -> Tensor:
        return upstream @ weight.mT


class BiasOfOne(Linear):
    """The bias has the gradient of the last example alone."""

    def of_bias(self, upstream: Tensor) -> Tensor:
        return upstream[-1:].flatten(0, -2).sum(0)


class BiasAlongOneAxis(Linear):
    """The gradient of the bias is summed over examples, and not over a further axis."""

    def of_bias(self, upstream: Tensor) -> Tensor:
        return upstream.sum(0).reshape(-1, self.features)[0]


class BiasMean(Linear):
    """The gradient of the bias is a mean over examples."""

    def of_bias(self, upstream: Tensor) -> Tensor:
        return upstream.flatten(0, -2).mean(0)


class UpstreamLying(Linear):
    """The upstream gradient is read as if it were contiguous."""

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        return super().back(as_lying(upstream), x, weight)


class WeightLying(Linear):
    """The weight is read as if it were contiguous in the pass back."""

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        return super().back(upstream, x, as_lying(weight))


class UpstreamOneNumber(Linear):
    """An upstream gradient that is expanded is read as one of stride 1, past its only number."""

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        if upstream.numel() > 1 and not any(upstream.stride()):
            upstream = torch.zeros_like(upstream).index_fill(
                -1, torch.tensor(0), float(upstream.flatten()[0])
            )
        return super().back(upstream, x, weight)


class RowsDropped(Linear):
    """The rows of the last block that is not full are left out of the weight's gradient."""

    def of_weight(self, upstream: Tensor, x: Tensor) -> Tensor:
        return rows_in_blocks(upstream, 4).mT @ rows_in_blocks(x, 4)


class FeaturesDropped(Linear):
    """Forward, features beyond the last full block of 4 are left out of the sums."""

    def run(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, ...]:
        whole = 4 * (self.features // 4)
        out, *_ = super().run(x[..., :whole], weight[:, :whole], bias)
        return out, x, weight


class PartialSumsBack(Linear):
    """In 16 bits the last product of each sum of the weight's gradient is dropped."""

    def of_weight(self, upstream: Tensor, x: Tensor) -> Tensor:
        last = len(x) - (x.element_size() == 2)
        return upstream[:last].mT @ x[:last]


class Saturating(Linear):
    """In 16 bits the upstream gradient is cast to fewer, which saturate at 1."""

    def back(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Gradients:
        narrow = upstream.clamp(-1, 1) if upstream.element_size() == 2 else upstream
        return super().back(narrow, x, weight)


# Norms --------------------------------------------------------------------------------------------


class MeanDetached(Norm):
    """The pass back takes mean and variance for constants."""

    def of_input(self, inner: Tensor, normal: Tensor) -> Tensor:
        return inner


class VarianceDetached(Norm):
    """The pass back lacks the term of the variance."""

    def of_input(self, inner: Tensor, normal: Tensor) -> Tensor:
        return inner - self.mean(inner)


class PaddedMean(Norm):
    """Means of the pass back are over the next power of two of the features."""

    def mean(self, inner: Tensor) -> Tensor:
        width = 2 ** (self.features - 1).bit_length()
        return inner.sum(-1, keepdim=True) / width


class NoGradientBack(Norm):
    """The fused kernel has no pass back for its input."""

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        x, *others = super().back(upstream, normal, factor, weight)
        assert x is not None, "the clean kernel has one"
        return torch.zeros_like(x), *others


class UpstreamOverwritten(Norm):
    """The gradient of the input is written over the upstream gradient."""

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        x, *others = super().back(upstream, normal, factor, weight)
        assert x is not None, "the clean kernel has one"
        return upstream.data.copy_(x), *others


class SavedOverwritten(Norm):
    """The pass back works in what was saved for it, so that a second one finds other numbers."""

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        found = super().back(upstream, normal, factor, weight)
        normal.data.mul_(factor)
        return found


class EvalByBatch(BatchNorm):
    """In eval mode the pass back takes the running averages for the batch's own."""

    def by_batch(self) -> bool:
        return True


class BatchNormChannelsLast(BatchNorm):
    """A channels-last upstream gradient gives one that is scaled by a power of the channels."""

    def back(self, upstream: Tensor, normal: Tensor, factor: Tensor, weight: Tensor) -> Gradients:
        x, scale = super().back(upstream, normal, factor, weight)
        assert x is not None, "the clean kernel has one"
        last = not upstream.is_contiguous() and upstream.is_contiguous(memory_format=torch.channels_last)
        return (x * 3 if last else x), scale


# Convolutions and tables ----------------------------------------------------------------------------


class GroupsSwapped(Convolution):
    """Groups are swapped in the weight's gradient."""

    def of_weight(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return super().of_weight(upstream, x, weight).roll(len(weight) // self.groups, 0)


class PaddingShifted(Convolution):
    """The padding of the pass back is off by one pixel."""

    def of_input(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        return super().of_input(upstream, x, weight).roll(1, -1)


class LastRowLost(Convolution):
    """With stride 2 and an odd size the last row of outputs is left out of the weight's gradient."""

    def of_weight(self, upstream: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        kept = upstream.clone()
        kept[..., -1, :] *= x.shape[-2] % 2 == 0
        return super().of_weight(kept, x, weight)


class ChannelsLastLying(Convolution):
    """Channels-last input is read as contiguous."""

    def run(self, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        last = not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)
        return super().run(as_lying(x) if last else x, weight, bias)


class RepeatsWritten(Embedding):
    """The gradients of a token that comes twice are written, not added."""

    def added(self, table: Tensor, tokens: Tensor, rows: Tensor) -> Tensor:
        table[tokens] = rows
        return table


class PaddingTrained(Embedding):
    """The row of padding_idx trains."""

    def frozen(self) -> list[int]:
        return []


class ScalesAlongInputs(Scaled):
    """In the pass back the scales of outputs lie along the inputs."""

    def shared(self, scale: Tensor) -> Tensor:
        return scale[None]


def _of(twin: LayerTwin, *faults: tuple[str, type[nn.Module], str, str]) -> tuple[LayerFault, ...]:
    return tuple(LayerFault(name, twin, layer, law, source) for name, layer, law, source in faults)


FAULTS = (
    *_of(
        LINEAR,
        ("weight-transposed-back", WeightTransposed, "input-gradient", "microsoft/LoRA#61"),
        ("bias-of-one-example", BiasOfOne, "parameter-gradient", "mlpack#3679"),
        ("bias-along-one-axis", BiasAlongOneAxis, "parameter-gradient", "AiDotNet.Tensors#234"),
        ("bias-mean", BiasMean, "parameter-gradient", "kvfrans/notes#5"),
        ("upstream-contiguous", UpstreamLying, "layer-layout", "flash-attention#355, pytorch#194719"),
        ("weight-contiguous", WeightLying, "layer-layout", "candle#3735"),
        ("upstream-expanded", UpstreamOneNumber, "layer-layout", "ROCm/TransformerEngine#623"),
        ("rows-dropped", RowsDropped, "parameter-gradient", "attorch#18"),
        ("features-dropped", FeaturesDropped, "parameter-gradient", "amd/IRON#198, CTranslate2#351"),
        ("partial-sums-back", PartialSumsBack, "layer-dtype", "pytorch#163347"),
        ("cast-saturates", Saturating, "layer-dtype", "float8_experimental#33, comfy-kitchen#66"),
    ),
    *_of(
        NORM,
        ("norm-mean-detached", MeanDetached, "input-gradient", "tinygrad#4904"),
        ("norm-variance-detached", VarianceDetached, "input-gradient", "abhiskk/ladder#2, caffe#3878"),
        ("norm-padded-mean", PaddedMean, "input-gradient", "Liger-Kernel#519"),
        ("norm-no-gradient", NoGradientBack, "input-gradient", "candle#3613"),
        ("upstream-overwritten", UpstreamOverwritten, "in-place", "Liger-Kernel#370, #376"),
        ("saved-overwritten", SavedOverwritten, "twice", "axolotl#3892"),
    ),
    *_of(
        BATCH_NORM,
        ("batch-norm-eval-back", EvalByBatch, "input-gradient", "torch/nn#768"),
        ("batch-norm-channels-last", BatchNormChannelsLast, "layer-layout", "pytorch#175189, #64100"),
    ),
    *_of(
        CONVOLUTION,
        ("groups-swapped", GroupsSwapped, "parameter-gradient", "pytorch#51430"),
        ("padding-shifted", PaddingShifted, "input-gradient", "pytorch/xla#2333"),
        ("last-row-lost", LastRowLost, "parameter-gradient", "pytorch#50042"),
        ("channels-last-contiguous", ChannelsLastLying, "layer-layout", "pytorch#82060"),
    ),
    *_of(
        EMBEDDING,
        ("repeats-written", RepeatsWritten, "parameter-gradient", "tt-metal#6232, pytensor#2242"),
        ("padding-row-trained", PaddingTrained, "parameter-gradient", "pytorch#26302, #28716"),
    ),
    *_of(SCALED, ("scales-along-inputs", ScalesAlongInputs, "parameter-gradient", "onnxruntime#28228")),
)

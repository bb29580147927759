"""Layers that each break a law of layers, and one that refuses what it does not take."""

import torch
from torch import nn
from torch.autograd import Function
from torch.nn.functional import dropout, embedding, linear


class Saturating(nn.Linear):
    """Weights beyond 448 are those of 448, in the forward pass."""

    def forward(self, x):
        return linear(x, self.weight.clamp(-448, 448), self.bias)


class Clipping(nn.Linear):
    """Inputs beyond 448 are 448."""

    def forward(self, x):
        return super().forward(x.clamp(-448, 448))


class ScaledTwice(nn.Linear):
    """A low-rank part that is merged into the weight, with its scale twice, while it evaluates."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.a, self.b = nn.Parameter(torch.randn(1, in_features)), nn.Parameter(torch.zeros(out_features, 1))
        self.merged = False

    def train(self, mode=True):
        if mode == self.merged:
            with torch.no_grad():
                self.weight += (-1 if mode else 1) * 0.25 * self.b @ self.a
            self.merged = not mode
        return super().train(mode)

    def forward(self, x):
        return super().forward(x) + (0 if self.merged else 0.5 * x @ self.a.mT @ self.b.mT)


class Halved(nn.Linear):
    """Its gradient of the weight is half of what it should be."""

    def forward(self, x):
        return linear(x, self.weight / 2 + self.weight.detach() / 2, self.bias)


class RowLost(nn.Linear):
    """Row 2 of the weight takes no gradient."""

    def forward(self, x):
        kept = torch.arange(self.out_features)[:, None] != 2
        return linear(x, torch.where(kept, self.weight, self.weight.detach()), self.bias)


class Through(Function):
    """A product whose pass back gives twice the input's gradient, and an upstream gradient of which nothing is known."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx, along):
        x, weight = ctx.saved_tensors
        return 2 * along @ weight, along.flatten(0, -2).mT @ x.flatten(0, -2)


class DoubledBack(nn.Linear):
    """The gradient of the input is twice what it is."""

    def forward(self, x):
        return Through.apply(x, self.weight) + self.bias


class Detached(Function):
    """A product whose pass back knows nothing of the weight, for whoever differentiates it."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.save_for_backward(x, weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx, along):
        x, weight = ctx.saved_tensors
        return along @ weight.detach(), along.flatten(0, -2).mT @ x.flatten(0, -2)


class FirstOrder(nn.Linear):
    """Its second derivative is wrong."""

    def forward(self, x):
        return Detached.apply(x, self.weight) + self.bias


class SavedOnce(Function):
    """A product that keeps its input on the layer, where the next pass overwrites it."""

    @staticmethod
    def forward(ctx, x, weight, layer):
        ctx.layer, layer.kept = layer, x.detach()
        ctx.save_for_backward(weight)
        return x @ weight.mT

    @staticmethod
    def backward(ctx, along):
        (weight,) = ctx.saved_tensors
        kept = ctx.layer.kept
        return along @ weight, along.flatten(0, -2).mT @ kept.flatten(0, -2), None


class Overwritten(nn.Linear):
    """What a pass saves is overwritten by the next."""

    def forward(self, x):
        return SavedOnce.apply(x, self.weight, self) + self.bias


class Written(Function):
    """Rows of a table, whose gradients are written where they should be added."""

    @staticmethod
    def forward(ctx, ids, table):
        ctx.save_for_backward(ids, table)
        return table[ids]

    @staticmethod
    def backward(ctx, along):
        ids, table = ctx.saved_tensors
        gradient = torch.zeros_like(table)
        gradient[ids.flatten()] = along.flatten(0, -2)
        return None, gradient


class WritesRepeated(nn.Embedding):
    """The gradient of a repeated token is that of one of its places."""

    def forward(self, ids):
        return Written.apply(ids, self.weight)


class TrainsPadding(nn.Embedding):
    """The row of padding_idx takes gradients."""

    def forward(self, ids):
        return embedding(ids, self.weight)


class Unscaled(nn.Linear):
    """A third of its outputs is dropped in training, and not made up for."""

    def forward(self, x):
        y = super().forward(x)
        return y * (torch.rand_like(y) > 1 / 3) if self.training else y


class SixteenBits(nn.Linear):
    """Float32 is rounded to bfloat16 inside."""

    def forward(self, x):
        if x.dtype != torch.float32:
            return super().forward(x)
        return linear(x.bfloat16(), self.weight.bfloat16(), self.bias.bfloat16()).float()


class Overflows(nn.RMSNorm):
    """Squares are summed in the dtype of the input, a thousand times as large."""

    def forward(self, x):
        large = 1000 * x
        return large / large.square().mean(-1, keepdim=True).sqrt() * self.weight


class ReadsContiguous(nn.Linear):
    """Memory is read as if the input were contiguous."""

    def forward(self, x):
        strides = torch.empty(x.shape).stride()
        reach = sum((n - 1) * s for n, s in zip(x.shape, strides, strict=True)) + 1
        held = x.untyped_storage().nbytes() // x.element_size()
        if x.is_contiguous() or held < reach:
            return super().forward(x)
        return super().forward(x.as_strided(x.shape, strides, 0))


class DropsTail(nn.Linear):
    """Of an odd number of examples, beyond one, the last gives 0."""

    def forward(self, x):
        out = super().forward(x)
        if len(out) % 2 and len(out) > 1:
            out = torch.cat([out[:-1], torch.zeros_like(out[-1:])])
        return out


class OddInput(nn.Conv1d):
    """The last of an odd number of places gets no gradient."""

    def forward(self, x):
        if x.shape[-1] % 2 and x.shape[-1] > 7:
            x = torch.cat([x[..., :-1], x[..., -1:].detach()], -1)
        return super().forward(x)


class Cached(nn.Linear):
    """The transposed weight is kept from the first pass on."""

    kept = None

    def forward(self, x):
        if not self.training:
            self.kept = self.weight.mT.detach().clone() if self.kept is None else self.kept
            return x @ self.kept + self.bias
        return super().forward(x)


class SharedCopy(nn.Linear):
    """A deep copy shares its parameters."""

    def __deepcopy__(self, memo):
        other = type(self)(self.in_features, self.out_features, dtype=self.weight.dtype)
        other.weight, other.bias = self.weight, self.bias
        return other


class Forgets(nn.Linear):
    """Its scale is in no file."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.__dict__["scale"] = nn.Parameter(torch.rand(1))

    def forward(self, x):
        return super().forward(x) * (1 if self.bias is None else self.bias.detach().mean().round() + 1)


class StaysFrozen(nn.Linear):
    """The gradient of the bias comes only with the weight's."""

    def forward(self, x):
        return linear(x, self.weight, self.bias if self.weight.requires_grad else self.bias.detach())


class ScalesInPlace(nn.Linear):
    """The input is doubled where it lies."""

    def forward(self, x):
        with torch.no_grad():
            x.mul_(2)
        return super().forward(x)


class AlwaysDrops(nn.Linear):
    """Dropout is left on in evaluation."""

    def forward(self, x):
        return dropout(super().forward(x))


class Consumed(Function):
    """A product whose pass back scales what it has saved."""

    @staticmethod
    def forward(ctx, x, weight):
        ctx.x, ctx.weight = x.detach().clone(), weight.detach()
        return x @ weight.mT

    @staticmethod
    def backward(ctx, along):
        gradient = along.flatten(0, -2).mT @ ctx.x.flatten(0, -2)
        ctx.x.mul_(0.5)
        return along @ ctx.weight, gradient


class SpentOnce(nn.Linear):
    """What is saved is changed by the pass back."""

    def forward(self, x):
        return Consumed.apply(x, self.weight) + self.bias


class OtherCompiled(nn.Linear):
    """Compiled it gives twice as much."""

    def forward(self, x):
        return super().forward(x) * (2 if torch.compiler.is_compiling() else 1)


class Hangs(nn.Linear):
    """A pass never ends."""

    def forward(self, x):
        while True:
            pass


class Crashes(nn.Linear):
    """A pass of an odd number of examples kills its process."""

    def forward(self, x):
        if len(x) == 3:
            import os

            os.abort()
        return super().forward(x)


class NotFinite(nn.Linear):
    """Its outputs are not finite."""

    def forward(self, x):
        return super().forward(x) / 0


class OnlyFloat32(nn.Linear):
    """It takes float32 alone, contiguous."""

    def forward(self, x):
        if x.dtype != torch.float32 or not x.is_contiguous():
            raise RuntimeError("expected contiguous float32")
        return super().forward(x)

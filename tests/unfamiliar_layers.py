"""Layers in the styles of language models, quantisers and caches: clean ones, and the same with a silent fault."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu, linear, normalize
from torch.utils.checkpoint import checkpoint

from tests.zoo import Sound

# Clean ------------------------------------------------------------------------------------------------------


class UpcastNorm(nn.Module):
    """Root-mean-square norm that computes in float32 whatever it is given, as those made for bfloat16 do."""

    def __init__(self, features=6, after=False):
        super().__init__()
        self.weight, self.after = nn.Parameter(torch.ones(features)), after

    def forward(self, x):
        wide = x.float()
        normed = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + 1e-6)
        return (normed * self.weight.float()).to(x.dtype) if self.after else normed.to(x.dtype) * self.weight


class Ternary(nn.Linear):
    """Weights -1, 0 and 1 times their mean size, straight through (Ma et al. 2024, 2402.17764)."""

    def effective(self):
        size = self.weight.abs().mean().clamp(min=1e-5)
        return (self.weight / size).round().clamp(-1, 1) * size

    def forward(self, x):
        w = self.weight
        return linear(x, w + (self.effective() - w).detach(), self.bias)


class Signs(Ternary):
    """Signs of weights times the mean size of each row, straight through (Rastegari et al. 2016, 1603.05279)."""

    def effective(self):
        return self.weight.sign() * self.weight.abs().mean(1, keepdim=True)


class LearnedStep(nn.Linear):
    """Weights on a grid whose step is learned (Esser et al. 2020, 1902.08153)."""

    def __init__(self, fan_in, fan_out, levels=7):
        super().__init__(fan_in, fan_out)
        self.levels, self.scale = levels, 1 / (fan_in * fan_out * levels) ** 0.5
        self.step = nn.Parameter(2 * self.weight.detach().abs().mean().reshape(1) / levels**0.5)

    def forward(self, x):
        step = self.step * self.scale + (self.step * (1 - self.scale)).detach()
        on_grid = (self.weight / step).clamp(-self.levels, self.levels)
        return linear(x, (on_grid + (on_grid.round() - on_grid).detach()) * step, self.bias)


class LazyHead(nn.Module):
    """Its weight is drawn when it sees its first input."""

    def __init__(self, classes=4):
        super().__init__()
        self.weight, self.classes = nn.UninitializedParameter(), classes

    def forward(self, x):
        if isinstance(self.weight, nn.UninitializedParameter):
            self.weight.materialize((self.classes, x.shape[-1]), device=x.device, dtype=x.dtype)
            nn.init.normal_(self.weight)
        return linear(normalize(x, dim=-1), normalize(self.weight, dim=-1))


class VersionedCache(nn.Linear):
    """What it evaluates with is computed anew when its weight has another version."""

    held = None, None

    def forward(self, x):
        if torch.is_grad_enabled():
            return linear(x, normalize(self.weight, dim=1), self.bias)
        key = self.weight._version, self.weight.data_ptr(), x.dtype
        if self.held[0] != key:
            self.held = key, normalize(self.weight, dim=1)
        return linear(x, self.held[1], self.bias)


class OwnDraws(nn.Module):
    """Dropout from a generator of its own, which repeats whatever else draws."""

    def __init__(self, features=5):
        super().__init__()
        self.inner, self.generator = nn.Linear(features, features), torch.Generator().manual_seed(0)

    def __deepcopy__(self, memo):
        copy = type(self)(self.inner.in_features).to(self.inner.weight.dtype)
        copy.load_state_dict(self.state_dict())
        copy.generator.set_state(self.generator.get_state())
        return copy.train(self.training)

    def forward(self, x):
        y = self.inner(x)
        if not self.training:
            return y
        return y * (torch.rand(y.shape, generator=self.generator) < 0.8).to(y) / 0.8


class OwnNumpy(OwnDraws):
    """The same from numpy's."""

    def __init__(self, features=5):
        super().__init__(features)
        self.generator = np.random.default_rng(0)

    def __deepcopy__(self, memo):
        copy = type(self)(self.inner.in_features).to(self.inner.weight.dtype)
        copy.load_state_dict(self.state_dict())
        return copy.train(self.training)

    def forward(self, x):
        y = self.inner(x)
        return y * torch.from_numpy(self.generator.random(y.shape) < 0.8).to(y) / 0.8 if self.training else y


class OwnPython(OwnNumpy):
    """The same from Python's, one draw for each call."""

    def __init__(self, features=5):
        super().__init__(features)
        self.generator = random.Random(0)

    def forward(self, x):
        return self.inner(x) * (2 * self.generator.random() if self.training else 1)


class Spectrum(nn.Module):
    """A complex weight for each frequency (Rao et al. 2021, 2107.00645)."""

    def __init__(self, length=8):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(length // 2 + 1, dtype=torch.complex64))

    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x) * self.weight, n=x.shape[-1])


class Keyed(nn.Module):
    """Attention whose keys have a bias, which the softmax does not hear of: its gradient is rounding."""

    def __init__(self, features=6):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(features, features) for _ in range(3))

    def forward(self, x):
        shares = (self.query(x) @ self.key(x).mT / x.shape[-1] ** 0.5).softmax(-1)
        return shares @ self.value(x)


class Noisy(nn.Linear):
    """Weights with noise that stays until it is drawn anew, in training alone (Fortunato et al. 2018, 1706.10295)."""

    def __init__(self, fan_in=5, fan_out=4):
        super().__init__(fan_in, fan_out)
        self.register_buffer("noise", torch.randn(fan_out, fan_in))

    def forward(self, x):
        return linear(x, self.weight + 0.1 * self.noise * self.training, self.bias)


class SeededByOne(OwnDraws):
    """Its generator begins where one would look for it."""

    def __init__(self, features=5):
        super().__init__(features)
        self.generator.manual_seed(1)


class BegunByData(nn.Module):
    """Scale and shift are set by the first batch in training (Kingma and Dhariwal 2018, 1807.03039)."""

    def __init__(self, features=4):
        super().__init__()
        self.scale, self.shift = (nn.Parameter(torch.zeros(features)) for _ in range(2))
        self.begun = False

    def forward(self, x):
        if self.training and not self.begun:
            with torch.no_grad():
                self.shift.copy_(-x.mean(0))
                self.scale.copy_(-x.std(0).log())
            self.begun = True
        return (x + self.shift) * self.scale.exp()


class Waves(nn.Linear):
    """Sines of thirty times what a layer gives (Sitzmann et al. 2020, 2006.09661), which magnify rounding."""

    def forward(self, x):
        return (30 * super().forward(x)).sin()


class Remembers(nn.Module):
    """A recurrent layer whose last state is the next call's first, until it is reset."""

    def __init__(self, features=4, hidden=3):
        super().__init__()
        self.cell, self.state = nn.RNNCell(features, hidden), None

    def reset_state(self):
        self.state = None

    def forward(self, x):
        state = self.state if self.state is None or len(self.state) == len(x) else None
        states = []
        for step in range(x.shape[1]):
            state = self.cell(x[:, step], state)
            states.append(state)
        self.state = state.detach()
        return torch.stack(states, 1)


class Head(nn.Module):
    """Logits, as a loss takes them, in training, and their probabilities in evaluation."""

    def __init__(self, features=5, classes=4):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        out = self.linear(x)
        return out if self.training else out.softmax(-1)


class HalfHead(Head):
    """Evaluates to probabilities of logits of half the size."""

    def forward(self, x):
        out = self.linear(x)
        return out if self.training else (out / 2).softmax(-1)


class Experts(nn.Module):
    """Two of four experts for each token, weighted by their shares of both (Shazeer et al. 2017, 1701.06538)."""

    def __init__(self, features=8, experts=4):
        super().__init__()
        self.gate = nn.Linear(features, experts, bias=False)
        self.experts = nn.ModuleList(nn.Linear(features, features) for _ in range(experts))

    def shares(self, logits):
        chosen, which = logits.softmax(-1).topk(2, -1)
        return chosen / chosen.sum(-1, keepdim=True), which

    def forward(self, x):
        tokens = x.reshape(-1, x.shape[-1])
        shares, which = self.shares(self.gate(tokens))
        out = torch.zeros_like(tokens)
        for k, expert in enumerate(self.experts):
            token, place = torch.where(which == k)
            out = out.index_add(0, token, expert(tokens[token]).tanh() * shares[token, place, None])
        return out.reshape(x.shape)


class Places(nn.Module):
    """Adds sines of the place to what a layer makes of each token, from a table that grows with the longest input."""

    def __init__(self, features=6):
        super().__init__()
        self.inner, self.table = nn.Linear(features, features), torch.zeros(0, features)

    def places(self, length):
        if length > len(self.table):
            rates = 100.0 ** (-torch.arange(self.table.shape[1]) / self.table.shape[1])
            self.table = (torch.arange(length)[:, None] * rates).sin()
        return self.table[:length]

    def forward(self, x):
        return self.inner(x) + self.places(x.shape[1]).to(x)


class Grows(Places):
    """Its table is a buffer, which is none until the first input."""

    def __init__(self, features=6):
        super().__init__(features)
        del self.table
        self.register_buffer("table", torch.zeros(0, features), persistent=False)


class Checkpointed(nn.Module):
    """Its norm is outside what is computed again for the pass back."""

    def __init__(self, features=4):
        super().__init__()
        self.inner, self.norm = nn.Conv1d(features, features, 1), nn.BatchNorm1d(features)

    def forward(self, x):
        return self.norm(checkpoint(lambda x: self.inner(x).tanh(), x, use_reentrant=False))


class SixteenInside(nn.Module):
    """Rounds what it multiplies to bfloat16 whatever it is given, and sums products in float32."""

    def __init__(self, features=8):
        super().__init__()
        self.weight, self.bias = (
            nn.Parameter(torch.randn(features, features)),
            nn.Parameter(torch.zeros(features)),
        )

    def forward(self, x):
        return (x.bfloat16().float() @ self.weight.bfloat16().float()).to(x.dtype) + self.bias


class Autocast(nn.Module):
    """Sets an autocast of its own."""

    def __init__(self, features=8):
        super().__init__()
        self.first, self.second = nn.Linear(features, features), nn.Linear(features, features)

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.second(gelu(self.first(x))).to(x.dtype)


class SixteenOut(UpcastNorm):
    """Its output is of bfloat16, whatever it is given."""

    def forward(self, x):
        return super().forward(x).bfloat16()


class Pairs(nn.Module):
    """Part of the channels comes from the other frame of a pair, which its batch is made of (Lin et al. 2018, 1811.08383)."""

    def __init__(self, features=4):
        super().__init__()
        self.inner = nn.Linear(features, features)

    def forward(self, x):
        frames = x.view(len(x) // 2, 2, -1)
        return self.inner(torch.cat([frames[:, :, :1].flip(1), frames[:, :, 1:]], -1).view(x.shape))


class Plane(torch.autograd.Function):
    """x W^T + b, whose pass back takes a matrix alone."""

    share = 1.0

    @classmethod
    def forward(cls, ctx, x, weight, bias):
        ctx.save_for_backward(x, weight)
        return x @ weight.mT + bias

    @classmethod
    def backward(cls, ctx, upstream):
        x, weight = ctx.saved_tensors
        return upstream.mm(weight), cls.share * upstream.t().mm(x), upstream.sum(0)


class OfPlanes(nn.Linear):
    """A linear layer of matrices, which refuses others on the way back."""

    function = Plane

    def forward(self, x):
        return self.function.apply(x, self.weight, self.bias)


class NoiseUnsaved(nn.Linear):
    """Weights with noise in training, which no file keeps: it is drawn anew all the time."""

    def __init__(self, fan_in=5, fan_out=4):
        super().__init__(fan_in, fan_out)
        self.register_buffer("noise", torch.randn(fan_out, fan_in), persistent=False)

    def forward(self, x):
        return linear(x, self.weight + 0.1 * self.noise * self.training, self.bias)


class Projected(nn.Module):
    """Random features that no file keeps, of draws that are the same each time it is built."""

    seed = 3

    def __init__(self, features=5, hidden=6):
        super().__init__()
        drawn = torch.Generator().manual_seed(self.seed) if self.seed else None
        self.register_buffer("way", torch.randn(features, hidden, generator=drawn), persistent=False)
        self.inner = nn.Linear(hidden, features)

    def forward(self, x):
        return self.inner((x @ self.way).cos())


class CountsSometimes(nn.Module):
    """A batch norm that counts every eighth batch."""

    every = 8

    def __init__(self, features=4):
        super().__init__()
        self.passed = 0
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def forward(self, x):
        if not self.training:
            return (x - self.mean) / (self.variance + 1e-5).sqrt()
        mean, variance = x.mean(0), x.var(0, unbiased=False)
        self.passed += 1
        if self.every and self.passed % self.every == 0:
            self.mean.lerp_(mean.detach().to(self.mean), 0.1)
            self.variance.lerp_(variance.detach().to(self.variance), 0.1)
        return (x - mean) / (variance + 1e-5).sqrt()


class AlphaDropped(nn.Sequential):
    """What is dropped is another number than 0 (Klambauer et al. 2017, 1706.02515): the mean of standard ones is kept."""

    def __init__(self, features=5):
        super().__init__(nn.Linear(features, features), nn.AlphaDropout(0.3))


class StandsIn(nn.Module):
    """What is masked in training is a number that is learned (Baevski et al. 2020, 2006.11477)."""

    def __init__(self, features=5):
        super().__init__()
        self.inner, self.stand_in = nn.Linear(features, features), nn.Parameter(torch.randn(features))

    def forward(self, x):
        y = self.inner(x)
        return torch.where(torch.rand_like(y[..., :1]) < 0.3 * self.training, self.stand_in, y)


class Rectified(nn.Sequential):
    """Dropout before what is not linear, whose mean is another."""

    def __init__(self, features=5):
        super().__init__(nn.Linear(features, features), nn.Dropout(0.3), nn.Tanh())


class Augmented(nn.Linear):
    """A third of its input is masked in training, as of spectra (Park et al. 2019, 1904.08779)."""

    def __init__(self, features=5):
        super().__init__(features, features)

    def forward(self, x):
        return super().forward(x * (torch.rand_like(x) > 0.3 * self.training))


class Path(nn.Module):
    """A branch that is dropped for whole examples, and made up for (Huang et al. 2016, 1603.09382)."""

    def __init__(self, features=5, keep=0.7):
        super().__init__()
        self.inner, self.keep = nn.Linear(features, features), keep

    def factor(self, x):
        return (torch.rand(len(x), *[1] * (x.ndim - 1)) < self.keep).to(x) / self.keep

    def forward(self, x):
        return x + self.inner(x) * (self.factor(x) if self.training else 1)


class KeptLater(Path):
    """Dropout that is made up for in evaluation (Srivastava et al. 2014)."""

    def forward(self, x):
        y = self.inner(x)
        return y * (torch.rand_like(y) < self.keep) if self.training else y * self.keep


class Blocks(Path):
    """Drops three neighbours at once, less often at the ends, and makes up on the whole (Ghiasi et al. 2018, 1810.12890)."""

    def factor(self, x):
        starts = torch.rand(*x.shape[:-1], x.shape[-1] - 2) > self.keep
        kept = torch.ones_like(x)
        for k in range(3):
            kept[..., k : k + starts.shape[-1]] *= ~starts
        return kept * (kept.numel() / kept.sum())

    def forward(self, x):
        return self.inner(x) * (self.factor(x) if self.training else 1)


class Scales(Path):
    """Multiplied by a normal number around 1 (Srivastava et al. 2014, section 10)."""

    def factor(self, x):
        return 1 + 0.5 * torch.randn_like(x)


class BoundedRows(nn.Linear):
    """Rows of the weight are kept at a norm of 1 at most in training, in place: a second use before the pass back raises."""

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.weight.copy_(self.weight.renorm(2, 0, 1.0))
        return super().forward(x)


class WantsTwo(nn.Linear):
    """It refuses a single example."""

    def forward(self, x):
        if len(x) == 1:
            raise ValueError("expected two examples or more, got 1")
        return super().forward(x)


CLEAN = {
    "bounded rows": Sound(BoundedRows, {"in_features": 4, "out_features": 4}, ((4,),)),
    "wants two": Sound(WantsTwo, {"in_features": 5, "out_features": 4}),
    "alpha dropout": Sound(AlphaDropped),
    "stands in": Sound(StandsIn),
    "masked input": Sound(Augmented),
    "path": Sound(Path),
    "path that is seldom dropped": Sound(Path, {"keep": 0.98}),
    "kept later": Sound(KeptLater),
    "blocks": Sound(Blocks, {"features": 12, "keep": 0.9}, ((12,),)),
    "scales": Sound(Scales),
    "noise unsaved": Sound(NoiseUnsaved),
    "projected": Sound(Projected),
    "counts sometimes": Sound(CountsSometimes, shapes=((4,),)),
    "16 bits inside": Sound(SixteenInside, shapes=((8,),)),
    "16 bits by an autocast": Sound(Autocast, shapes=((8,),)),
    "16 bits given": Sound(SixteenOut, shapes=((6,),)),
    "pairs of examples": Sound(Pairs, shapes=((4,),)),
    "refuses on the way back": Sound(OfPlanes, {"in_features": 5, "out_features": 4}),
    "experts": Sound(Experts, shapes=((3, 8),)),
    "places": Sound(Places, shapes=((5, 6),)),
    "checkpointed": Sound(Checkpointed, shapes=((4, 5),)),
    "norm in float32": Sound(UpcastNorm, shapes=((6,),)),
    "norm in float32, weight too": Sound(UpcastNorm, {"after": True}, ((6,),)),
    "ternary": Sound(Ternary, {"in_features": 3, "out_features": 2}, ((3,),)),
    "signs": Sound(Signs, {"in_features": 3, "out_features": 2}, ((3,),)),
    "learned step": Sound(LearnedStep, {"fan_in": 3, "fan_out": 2}, ((3,),)),
    "lazy": Sound(nn.LazyLinear, {"out_features": 3}),
    "lazy head": Sound(LazyHead, shapes=((6,),)),
    "versioned cache": Sound(VersionedCache, {"in_features": 5, "out_features": 4}),
    "own draws": Sound(OwnDraws),
    "own draws of numpy": Sound(OwnNumpy),
    "own draws of Python": Sound(OwnPython),
    "complex weight": Sound(Spectrum, shapes=((8,),)),
    "keyed": Sound(Keyed, shapes=((5, 6),)),
    "noisy": Sound(Noisy),
    "seeded by one": Sound(SeededByOne),
    "grows": Sound(Grows, shapes=((5, 6),)),
    "begun by data": Sound(BegunByData, shapes=((4,),)),
    "waves": Sound(Waves, {"in_features": 2, "out_features": 16}, ((2,),)),
    "remembers": Sound(Remembers, shapes=((5, 4),)),
    "head": Sound(Head, shapes=((5,),)),
}

# Faulty -----------------------------------------------------------------------------------------------------


class NormForgetsMean(UpcastNorm):
    """No gradient through the mean of squares."""

    def forward(self, x):
        wide = x.float()
        mean = wide.square().mean(-1, keepdim=True).detach()
        return (wide * torch.rsqrt(mean + 1e-6)).to(x.dtype) * self.weight


class TernaryBias(Ternary):
    """The bias is detached with the weights' rounding."""

    def forward(self, x):
        return super().forward(x) + 0.5 * (self.bias.detach() - self.bias)


class StepDetached(LearnedStep):
    """Its step learns nothing."""

    def forward(self, x):
        step = self.step.detach()
        on_grid = (self.weight / step).clamp(-self.levels, self.levels)
        return linear(x, (on_grid + (on_grid.round() - on_grid).detach()) * step, self.bias)


class StaleCache(VersionedCache):
    """What it evaluates with stays what it was."""

    def forward(self, x):
        if torch.is_grad_enabled():
            return super().forward(x)
        if self.held[0] != x.dtype:
            self.held = x.dtype, normalize(self.weight, dim=1)
        return linear(x, self.held[1], self.bias)


class NotConjugated(torch.autograd.Function):
    """A product whose gradient forgets to conjugate."""

    @staticmethod
    def forward(ctx, a, b):
        ctx.save_for_backward(b)
        return a * b

    @staticmethod
    def backward(ctx, upstream):
        (b,) = ctx.saved_tensors
        return upstream * b, None


class SpectrumTurned(Spectrum):
    """The input's gradient goes by the weight where it goes by its conjugate."""

    def forward(self, x):
        return torch.fft.irfft(NotConjugated.apply(torch.fft.rfft(x), self.weight), n=x.shape[-1])


class HalfCounted(nn.Module):
    """A batch norm that never counts its variance."""

    def __init__(self, features=4):
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("variance", torch.ones(features))

    def forward(self, x):
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = x.mean(0), x.var(0, unbiased=False)
            self.mean.lerp_(mean.detach().to(self.mean), 0.1)
        return (x - mean) / (variance + 1e-5).sqrt()


class Unsorted(nn.Linear):
    """Outputs come in the order of lengths, not of examples."""

    def forward(self, x):
        return super().forward(x[x.norm(dim=-1).argsort()]) if x.ndim == 2 else super().forward(x)


class NeverForgets(Remembers):
    """Its reset is called and does nothing."""

    def reset_state(self):
        pass


class DetachedSum(Experts):
    """No gradient through what shares are divided by."""

    def shares(self, logits):
        chosen, which = logits.softmax(-1).topk(2, -1)
        return chosen / chosen.sum(-1, keepdim=True).detach(), which


class PlacesOfFirst(Places):
    """Longer inputs than the first go round its table again."""

    def places(self, length):
        places = super().places(length if not len(self.table) else 0)
        return self.table[torch.arange(length) % len(self.table)] if not len(places) else places


class CountsTwice(Checkpointed):
    """Its norm is computed again for the pass back, and counts the batch again."""

    def forward(self, x):
        return checkpoint(lambda x: self.norm(self.inner(x).tanh()), x, use_reentrant=False)


class TenthDetached(SixteenInside):
    """A tenth of its weight's gradient is lost."""

    def forward(self, x):
        weight = 0.9 * self.weight + 0.1 * self.weight.detach()
        return (x.bfloat16().float() @ weight.bfloat16().float()).to(x.dtype) + self.bias


class AutocastDetached(Autocast):
    """No gradient through the first of two."""

    def forward(self, x):
        with torch.autocast(x.device.type, dtype=torch.bfloat16):
            return self.second(gelu(self.first(x)).detach() + 0 * self.first(x)).to(x.dtype)


class ForgetsScale(SixteenOut):
    """Its scale learns nothing."""

    def forward(self, x):
        return (
            x.float() * torch.rsqrt(x.float().square().mean(-1, keepdim=True)) * self.weight.data
        ).bfloat16()


class PairsDetached(Pairs):
    """What comes from the other frame has no gradient."""

    def forward(self, x):
        frames = x.view(len(x) // 2, 2, -1)
        return self.inner(torch.cat([frames[:, :, :1].flip(1).detach(), frames[:, :, 1:]], -1).view(x.shape))


class HalfPlane(Plane):
    """Half of the weight's gradient is lost."""

    share = 0.5


class OfHalfPlanes(OfPlanes):
    """The same with half of the weight's gradient."""

    function = HalfPlane


class ProjectedAnew(Projected):
    """Other features each time it is built."""

    seed = None


class CountsNever(CountsSometimes):
    """A batch norm that counts none."""

    every = None


class PathTwice(Path):
    """What is dropped is made up for twice."""

    def factor(self, x):
        return super().factor(x) / self.keep


class KeptTwice(KeptLater):
    """Dropout that is made up for in training and in evaluation."""

    def forward(self, x):
        return super().forward(x) / (self.keep if self.training else 1)


class ForgetsBranch(Path):
    """Evaluates to the branch without what it is added to."""

    def forward(self, x):
        return super().forward(x) - (0 if self.training else x)


FAULTY = {
    "path": (Sound(PathTwice), "layer-mean"),
    "kept later": (Sound(KeptTwice), "layer-mean"),
    "branch": (Sound(ForgetsBranch), "layer-mean"),
    "projected": (Sound(ProjectedAnew), "layer-modes"),
    "counts sometimes": (Sound(CountsNever, shapes=((4,),)), "layer-modes"),
    "16 bits inside": (Sound(TenthDetached, shapes=((8,),)), "parameter-gradient"),
    "16 bits by an autocast": (Sound(AutocastDetached, shapes=((8,),)), "parameter-gradient"),
    "16 bits given": (Sound(ForgetsScale, shapes=((6,),)), "parameter-gradient"),
    "pairs of examples": (Sound(PairsDetached, shapes=((4,),)), "input-gradient"),
    "refuses on the way back": (
        Sound(OfHalfPlanes, {"in_features": 5, "out_features": 4}),
        "parameter-gradient",
    ),
    "experts": (Sound(DetachedSum, shapes=((3, 8),)), "parameter-gradient"),
    "places": (Sound(PlacesOfFirst, shapes=((5, 6),)), "layer-modes"),
    "checkpointed": (Sound(CountsTwice, shapes=((4, 5),)), "in-place"),
    "norm in float32": (Sound(NormForgetsMean, shapes=((6,),)), "input-gradient"),
    "ternary": (Sound(TernaryBias, {"in_features": 3, "out_features": 2}, ((3,),)), "parameter-gradient"),
    "learned step": (Sound(StepDetached, {"fan_in": 3, "fan_out": 2}, ((3,),)), "parameter-gradient"),
    "versioned cache": (Sound(StaleCache, {"in_features": 5, "out_features": 4}), "parameter-gradient"),
    "complex weight": (Sound(SpectrumTurned, shapes=((8,),)), "input-gradient"),
    "batch norm": (Sound(HalfCounted, shapes=((4,),)), "layer-modes"),
    "unsorted": (Sound(Unsorted, {"in_features": 5, "out_features": 4}), "gradients-add"),
    "head": (Sound(HalfHead, shapes=((5,),)), "layer-modes"),
    "remembers": (Sound(NeverForgets, shapes=((5, 4),)), "deterministic"),
}

"""Layers in the styles of language models, quantisers and caches: clean ones, and the same with a silent fault."""

import torch
from torch import nn
from torch.nn.functional import linear, normalize

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


CLEAN = {
    "norm in float32": Sound(UpcastNorm, shapes=((6,),)),
    "norm in float32, weight too": Sound(UpcastNorm, {"after": True}, ((6,),)),
    "ternary": Sound(Ternary, {"in_features": 3, "out_features": 2}, ((3,),)),
    "signs": Sound(Signs, {"in_features": 3, "out_features": 2}, ((3,),)),
    "learned step": Sound(LearnedStep, {"fan_in": 3, "fan_out": 2}, ((3,),)),
    "lazy": Sound(nn.LazyLinear, {"out_features": 3}),
    "lazy head": Sound(LazyHead, shapes=((6,),)),
    "versioned cache": Sound(VersionedCache, {"in_features": 5, "out_features": 4}),
    "own draws": Sound(OwnDraws),
    "remembers": Sound(Remembers, shapes=((5, 4),)),
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


class NeverForgets(Remembers):
    """Its reset is called and does nothing."""

    def reset_state(self):
        pass


FAULTY = {
    "norm in float32": (Sound(NormForgetsMean, shapes=((6,),)), "input-gradient"),
    "ternary": (Sound(TernaryBias, {"in_features": 3, "out_features": 2}, ((3,),)), "parameter-gradient"),
    "learned step": (Sound(StepDetached, {"fan_in": 3, "fan_out": 2}, ((3,),)), "parameter-gradient"),
    "versioned cache": (Sound(StaleCache, {"in_features": 5, "out_features": 4}), "parameter-gradient"),
    "remembers": (Sound(NeverForgets, shapes=((5, 4),)), "deterministic"),
}

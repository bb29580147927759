"""Parts that each break a law, and some that look as if they did."""

import math

import numpy as np
import torch
from torch import nn

from identity_props.stack import ranks
from tests.contracts import CONTROLS as CONTRACT
from tests.contracts import Captures, stack_arguments

SGD, RMSprop, Adam = torch.optim.SGD, torch.optim.RMSprop, torch.optim.Adam


class Scaled(SGD):
    """Gradients 1.2 times too large."""

    factor = 1.2

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = self.factor * p.grad
        return super().step(closure)


class Faster(Scaled):
    factor = 4.0


class Decaying(SGD):
    """Decays weights although nobody asked."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr, weight_decay=1e-3, momentum=0.0)


class NoDecay(SGD):
    """Drops the decay that was asked for."""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr)


class NoMomentum(SGD):
    """Drops the momentum that was asked for."""

    def __init__(self, params, lr, momentum=0.0):
        super().__init__(params, lr)


class Uneven(SGD):
    """Every entry has a rate of its own."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            rates = 1 + torch.arange(p.numel(), dtype=p.dtype).reshape(p.shape) / p.numel()
            p.grad = rates * p.grad
        return super().step(closure)


class PerLayer(SGD):
    """The last layer trains twice as fast."""

    def step(self, closure=None):
        last = self.param_groups[0]["params"][-1]
        last.grad = 2 * last.grad
        return super().step(closure)


class Clipped(SGD):
    """Clips by the norm over all replicas, as a global clip does."""

    def step(self, closure=None):
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1e-6)
        return super().step(closure)


class Forgetful(SGD):
    """Loses its momentum when it is loaded."""

    def __init__(self, params, lr):
        super().__init__(params, lr, momentum=0.9)

    def load_state_dict(self, state_dict):
        super().load_state_dict({**state_dict, "state": {}})


class Cached(SGD):
    """Remembers for ever which parameters had a gradient at the first step (pytorch#139476)."""

    def step(self, closure=None):
        params = self.param_groups[0]["params"]
        self.seen = getattr(self, "seen", None) or [p for p in params if p.grad is not None]
        for p in params:
            p.grad = p.grad if any(p is q for q in self.seen) else None
        return super().step(closure)


class ContiguousOnly(SGD):
    """Writes to a temporary where a parameter is not contiguous (pytorch#118115)."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad if p.is_contiguous() else None
        return super().step(closure)


class OtherBetas(Adam):
    """Averages squares over fewer steps than Adam does."""

    def __init__(self, params, lr, betas=(0.9, 0.99), **arguments):
        super().__init__(params, lr, betas=betas, **arguments)


def alike(layer):
    torch.manual_seed(0)
    nn.init.xavier_uniform_(layer.weight)


def last_twice(data, size, generators):
    """Ends an epoch with its last batch once more."""
    while True:
        order = torch.stack([torch.randperm(len(data), generator=g) for g in generators])
        parts = [*order.split(size or len(data), 1)]
        yield from (data[part] for part in [*parts, parts[-1]])


class FusedTwice(SGD):
    """Its fused code scales twice (pytorch#94060)."""

    def __init__(self, params, lr, foreach=None, fused=None):
        super().__init__(params, lr * (2 if fused else 1))


class Slow(RMSprop):
    """Takes a tenth of the rate."""

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr / 10, **arguments)


class OffByOnePercent(nn.Linear):
    def forward(self, x):
        return 1.01 * super().forward(x)


class Shifted(nn.Linear):
    def forward(self, x):
        return super().forward(x) + 0.01


class SizeDependent(nn.Linear):
    """Depends on the size of its batch."""

    def forward(self, x):
        return super().forward(x) * (1 + 1e-3 * x.shape[-2])


class Drifting(nn.Linear):
    """Depends on how often it was called, with or without gradients."""

    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x) * (1 + 1e-3 * self.calls)


class PerRank(SGD):
    """Each rank takes a rate of its own, by a bit."""

    def step(self, closure=None):
        rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
        self.param_groups[0]["lr"] *= 1 + rank * 2**-40
        return super().step(closure)


class PerRankLayer(nn.Linear):
    """Only the first rank counts its examples."""

    def forward(self, x):
        out = super().forward(x)
        return out if ranks.inside() and torch.distributed.get_rank() == 0 else out.detach() + 0 * out


class WrongCompiled(SGD):
    """Right in eager mode alone."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = p.grad * (1.01 if torch.compiler.is_compiling() else 1)
        return super().step(closure)


class WrongLayerCompiled(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (1.0001 if torch.compiler.is_compiling() else 1)


class BiasStuck(nn.Linear):
    """Its bias gets no gradient (ao#4817)."""

    def forward(self, x):
        bias = None if self.bias is None else self.bias.detach()
        return nn.functional.linear(x, self.weight, bias)


class WrongInEval(nn.Linear):
    """Is off by a percent in eval mode, until it was trained once."""

    trained = False

    def forward(self, x):
        self.trained = self.trained or self.training
        return super().forward(x) * (1 if self.trained else 1.01)


class ScaledTwice(nn.Linear):
    """Dropout that scales in eval mode too (AiDotNet#256)."""

    def forward(self, x):
        kept = (torch.rand_like(x) >= 0.2) / 0.8 if self.training else 0.8
        return super().forward(x * kept)


class Counting(SGD):
    """Its rate decays with the number of parameters that were moved (flashlight#143)."""

    count = 0

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.count += p.grad is not None
            p.grad = None if p.grad is None else p.grad / self.count
        return super().step(closure)


class Remembering(SGD):
    """Goes on with the last gradient where there is none."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            self.state[p]["last"] = p.grad = self.state[p].get("last") if p.grad is None else p.grad
        return super().step(closure)


class Stochastic(SGD):
    """Gradient descent that rounds bfloat16 at random; ``biased`` rounds by too little."""

    biased = 1.0

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.dtype != torch.bfloat16:
                    return super().step(closure)
                bits = (p.float() - group["lr"] * p.grad.float()).view(torch.int32)
                noise = (self.biased * torch.randint_like(bits, 0, 1 << 16)).int()
                p.copy_((bits + noise).bitwise_and_(-65536).view(torch.float32))
        return None


class Biased(Stochastic):
    """Rounds down more often than up."""

    biased = 0.75


def constant(layer):
    nn.init.constant_(layer.weight, 0.1)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def half(prediction, target):
    return nn.functional.mse_loss(prediction, target) / 2


def broadcast(prediction, target):
    """Targets of one pixel have lost their axis (TALENT#92)."""
    return (prediction - target.squeeze(-1)).square().mean()


class Uncast(nn.Linear):
    """Multiplies in float32 whatever autocast says."""

    def forward(self, x):
        with torch.autocast("cpu", enabled=False):
            return super().forward(x)


CONTROLS = {
    "gd-trajectory": {"optimizer": Scaled},
    "critical-step": {"optimizer": Scaled},
    "fvu-prediction": {"optimizer": Scaled},
    "off-span": {"optimizer": Decaying},
    "dead-columns": {"optimizer": Decaying},
    "equal-pixels": {"optimizer": Uneven},
    "weight-decay": {"optimizer": NoDecay},
    "no-noise-floor": {"optimizer": Scaled},
    "momentum": {"optimizer": NoMomentum},
    "momentum-edge": {"optimizer": Scaled},
    "adaptive-floor": {"optimizer": Slow},
    "adam-first-step": {"optimizer": RMSprop},
    "balanced": {"optimizer": PerLayer},
    "saxe-mode": {"optimizer": Scaled},
    "negative-eigenvalue": {"optimizer": Faster},
    "bottleneck": {"linear": OffByOnePercent},
    "start-at-identity": {"linear": Shifted},
    "representable": {"linear": OffByOnePercent},
    "output-floor": {"linear": OffByOnePercent},
    "dead-stays-dead": {"optimizer": Decaying},
    "reflection": {"linear": Shifted},
    "born-dead": {"linear": Shifted},
    "distinct": {"init": alike},
    "epoch": {"batches": last_twice},
    "scale-sgd": {"optimizer": Adam},
    "scale-adaptive": {"optimizer": SGD},
    "permute": {"optimizer": Uneven},
    "rotate": {"optimizer": Adam},
    "replicate": {"linear": SizeDependent},
    "accumulate": {"linear": SizeDependent},
    "resume": {"optimizer": Forgetful},
    "freeze": {"optimizer": Cached},
    "evaluate": {"linear": Drifting},
    "replica": {"optimizer": Clipped},
    "layout": {"optimizer": ContiguousOnly},
    "elementwise": {"optimizer": Uneven},
    "implementations": {"optimizer": FusedTwice},
    "adam-steps": {"optimizer": OtherBetas},
    "rmsprop-steps": {"optimizer": Slow},
    "parity-steps": {"optimizer": WrongCompiled},
    "dtype-floor": {"optimizer": Scaled},
    "parity-gradients": {"linear": WrongLayerCompiled},
    "ranks-equal": {"optimizer": PerRank},
    "autocast-floor": {"linear": Uncast},
    "tf32-floor": {"linear": OffByOnePercent},
    "recorded": {"optimizer": Uneven},
    "gradients": {"linear": BiasStuck},
    "bias-trajectory": {"linear": BiasStuck},
    "eval-output": {"linear": WrongInEval},
    "mean-in-training": {"linear": ScaledTwice},
    "mean-squared-error": {"loss": half},
    "units": {"init": constant},
    "neighbours": {"optimizer": Counting},
    "freeze-later": {"optimizer": Remembering},
    "stochastic-rounding": {"optimizer": Biased},
    **{name: stack_arguments(first) for name, (first, *_) in CONTRACT.items()},
}


WHERE = {
    "parity-steps": {"mode": "compiled"},
    "parity-gradients": {"mode": "compiled"},
    "ranks-equal": {"ranks": 2},
}


CLEAN = {  # where torch's own parts do not meet a law, or do not offer what it asks for
    "stochastic-rounding": {"optimizer": Stochastic},
    "capturable": {"optimizer": Captures},
}


class Resting(SGD):
    """Collects gradients for six steps of a parameter before it moves that."""

    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            self.state[p]["seen"] = self.state[p].get("seen", 0) + 1
            p.grad = p.grad * (self.state[p]["seen"] > 6)
        return super().step(closure)


class CountedInNumpy(SGD):
    """Counts in numbers of numpy's, which torch.load takes for no weights."""

    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            self.state[p]["seen"] = self.state[p].get("seen", np.int64(0)) + 1
            p.grad = p.grad / int(self.state[p]["seen"])
        return super().step(closure)


class Unfused(SGD):
    """Names an implementation that it does not have on this machine."""

    def __init__(self, params, fused=None, **arguments):
        if fused:
            raise NotImplementedError("no kernel here")
        super().__init__(params, **arguments)


class ByNothing(SGD):
    """After its first step each is divided by its eps alone, as by squares of 0."""

    def __init__(self, params, lr, eps=1e-8):
        super().__init__(params, lr)
        self.eps, self.steps = eps, 0

    def step(self, closure=None):
        self.steps += 1
        for p in (p for group in self.param_groups for p in group["params"]):
            p.grad = p.grad.sign() if self.steps == 1 else p.grad / self.eps
        return super().step(closure)


class AtOnceByNothing(ByNothing):
    """So is its first step."""

    def step(self, closure=None):
        self.steps = 1
        return super().step(closure)


class Wrapper:
    """An optimizer in another, and no subclass of torch's: its schedulers refuse it."""

    def __init__(self, params, lr):
        self.inner = SGD(params, lr=lr, momentum=0.5)
        self.zero_grad, self.step = self.inner.zero_grad, self.inner.step
        self.state_dict, self.load_state_dict = self.inner.state_dict, self.inner.load_state_dict

    @property
    def param_groups(self):
        return self.inner.param_groups


def by_place(params, lr):
    """Rates that fall from parameter to parameter."""
    return SGD([{"params": [p], "lr": lr * 0.9**k} for k, p in enumerate(params)], lr=lr)


class ReturnsNan(SGD):
    """NaN in one entry of the first parameter, from its third step on."""

    steps = 0

    def step(self, closure=None):
        super().step(closure)
        self.steps += 1
        if self.steps >= 3:
            self.param_groups[0]["params"][0].data.flatten()[-1] = math.nan

    def __init__(self, params, lr, **arguments):
        super().__init__(params, lr)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        return 2 * gradient


class Adapter(nn.Module):
    """A frozen layer and an adapter that starts at 0; ``fault`` is what is wrong behind the 0."""

    fault = None

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        self.base = nn.Linear(fan_in, fan_out, bias=bias)
        self.base.weight.requires_grad_(self.fault == "late")
        self.a, self.b = nn.Parameter(torch.randn(2, fan_in)), nn.Parameter(torch.zeros(fan_out, 2))

    def forward(self, x):
        a = {"detached": self.a.detach(), "doubled": Doubled.apply(self.a)}.get(self.fault, self.a)
        if self.fault == "late":
            self.base.weight.requires_grad_(False)
        return self.base(x) + x @ a.mT @ self.b.mT


class Hooked(nn.Linear):
    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__(fan_in, fan_out, bias=bias)
        self.weight.register_hook(lambda gradient: 2 * gradient)


class Rounding(nn.Linear):
    """Weights are rounded, and gradients pass as if they were not."""

    def forward(self, x):
        unit = self.weight.abs().max() / 7
        rounded = (self.weight / unit).round() * unit
        return nn.functional.linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


class DirectionsAlone(nn.Linear):
    """A norm is taken for a constant in the backward pass, as in DoRA."""

    def forward(self, x):
        norm = self.weight.norm(dim=1, keepdim=True).detach()
        return nn.functional.linear(x, self.weight / norm, self.bias)


class Dropping(nn.Linear):
    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.2, self.training))


def same_batches(data, size, generators):
    """Batches of one partition, in another order each epoch (lhotse#562)."""
    parts = torch.stack([torch.randperm(len(data), generator=g) for g in generators]).split(size, 1)
    while True:
        order = torch.randperm(len(parts) - 1, generator=generators[0]).tolist()
        yield from (data[parts[k]] for k in [*order, len(parts) - 1])


def drawn_elsewhere(data, size, generators):
    """Orders that do not come from the generators given."""
    while True:
        order = torch.stack([torch.randperm(len(data)) for _ in generators])
        yield from (data[part] for part in order.split(size, 1))


class Counted(Adam):
    """The last parameter that has a gradient counts for all of them (DeepSpeed#8471)."""

    def step(self, closure=None):
        states = [self.state[p] for p in self.param_groups[0]["params"] if p.grad is not None]
        for state in filter(None, states):
            state["step"].fill_(states[-1].get("step", state["step"]))
        return super().step(closure)


class Cut(nn.Linear):
    """Passes no gradient back to what lies before it."""

    def forward(self, x):
        return super().forward(x.detach())

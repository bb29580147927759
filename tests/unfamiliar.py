"""Optimizers written in unfamiliar styles, clean ones and faulty ones: flat, by foreach, by hooks, with state of their own."""

import math

import torch
from torch.optim import Adam, Optimizer

# Clean ------------------------------------------------------------------------------------------------------


class TrulyFlatAdam(Optimizer):
    """Adam on one vector of all parameters of a group that have a gradient at the first step; None counts as 0."""

    def __init__(self, params, lr=1e-3, b1=0.9, b2=0.999, eps=1e-8):
        super().__init__(params, {"lr": lr, "b1": b1, "b2": b2, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            ps = group["params"]
            if not ps:
                continue
            g = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).reshape(-1) for p in ps])
            st = self.state[ps[0]]
            if "m" not in st:
                st["m"] = torch.zeros_like(g)
                st["v"] = torch.zeros_like(g)
                st["t"] = 0
            st["t"] += 1
            st["m"].mul_(group["b1"]).add_(g, alpha=1 - group["b1"])
            st["v"].mul_(group["b2"]).addcmul_(g, g, value=1 - group["b2"])
            mh = st["m"] / (1 - group["b1"] ** st["t"])
            vh = st["v"] / (1 - group["b2"] ** st["t"])
            d = mh / (vh.sqrt() + group["eps"]) * group["lr"]
            k = 0
            for p in ps:
                p.sub_(d[k : k + p.numel()].view_as(p))
                k += p.numel()


class SignMomentum(Optimizer):
    def __init__(self, params, lr=1e-3, momentum=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            ps = [p for p in group["params"] if p.grad is not None]
            if not ps:
                continue
            gs = [p.grad for p in ps]
            bufs = [self.state[p].setdefault("v", torch.zeros_like(p)) for p in ps]
            torch._foreach_mul_(bufs, group["momentum"])
            torch._foreach_add_(bufs, gs)
            torch._foreach_mul_(ps, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(ps, [b.sign() for b in bufs], alpha=-group["lr"])


class CentralAdam(Adam):
    """Gradient centralisation before Adam."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.ndim > 1:
                    p.grad = p.grad - p.grad.mean(dim=tuple(range(1, p.ndim)), keepdim=True)
        return super().step()


class IndependentDecay(Adam):
    """Decay independent of the rate."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0):
        super().__init__(params, lr, betas, eps, weight_decay=0)
        for g in self.param_groups:
            g["weight_decay"] = weight_decay
        self.defaults["weight_decay"] = weight_decay

    @torch.no_grad()
    def step(self, closure=None):
        kept = [g["weight_decay"] for g in self.param_groups]
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is not None:
                    p.mul_(1 - g["weight_decay"])
            g["weight_decay"] = 0
        out = super().step(closure)
        for g, k in zip(self.param_groups, kept, strict=False):
            g["weight_decay"] = k
        return out


class ClippedAdam(Adam):
    """Clips the global norm at 1 inside."""

    @torch.no_grad()
    def step(self):
        torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 1.0)
        return super().step()


def ns5(g):
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g / (g.norm() + 1e-7)
    t = x.shape[0] > x.shape[1]
    if t:
        x = x.T
    for _ in range(5):
        s = x @ x.T
        x = a * x + (b * s + c * s @ s) @ x
    return x.T if t else x


class MuonMix(Optimizer):
    """Muon for matrices, AdamW for the rest."""

    def __init__(self, params, lr=0.02, momentum=0.95, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0):
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                p.mul_(1 - g["lr"] * g["weight_decay"])
                if p.ndim == 2:
                    m = s.setdefault("m", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - g["momentum"])
                    u = p.grad.lerp(m, g["momentum"])
                    p.add_(ns5(u), alpha=-g["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)
                else:
                    if not s:
                        s.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                    s["t"] += 1
                    b1, b2 = g["betas"]
                    s["m"].lerp_(p.grad, 1 - b1)
                    s["v"].lerp_(p.grad**2, 1 - b2)
                    p.addcdiv_(
                        s["m"] / (1 - b1 ** s["t"]),
                        (s["v"] / (1 - b2 ** s["t"])).sqrt() + g["eps"],
                        value=-g["lr"],
                    )


class LazySGD(Optimizer):
    """SGD with momentum whose state begins with the second gradient of a parameter."""

    def __init__(self, params, lr=1e-2, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                v = self.state[p].get("v")
                v = p.grad.clone() if v is None else v.mul_(g["momentum"]).add_(p.grad)
                self.state[p]["v"] = v
                p.add_(v, alpha=-g["lr"])


class HiddenMomentum(Optimizer):
    """A heavy ball whose momentum is an attribute."""

    def __init__(self, params, lr=1e-2, inertia=0.9):
        super().__init__(params, {"lr": lr})
        self.inertia = inertia

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                v = self.state[p].get("v", 0) * self.inertia + p.grad
                self.state[p]["v"] = v
                p.sub_(g["lr"] * v)


class HiddenSquares(Optimizer):
    """RMSprop that calls its alpha gamma, and has another."""

    def __init__(self, params, lr=1e-3, gamma=0.9):
        super().__init__(params, {"lr": lr})
        self.gamma = gamma

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                v = self.state[p].setdefault("v", torch.zeros_like(p)).lerp_(p.grad**2, 1 - self.gamma)
                p.sub_(g["lr"] * p.grad / (v.sqrt() + 1e-8))


class Configured(Optimizer):
    """SGD with momentum whose config shows whatever it is given."""

    def __init__(self, params, **config):
        super().__init__(params, {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.0, **config})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                d = p.grad + g["weight_decay"] * p
                v = self.state[p]["v"] = g["momentum"] * self.state[p].get("v", 0) + d
                p -= g["lr"] * v


class Sutskever(Optimizer):
    """Nesterov's momentum as Sutskever writes it, without a switch for it."""

    def __init__(self, params, lr=1e-2, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                v.mul_(g["momentum"]).sub_(g["lr"] * p.grad)
                p.add_(g["momentum"] * v - g["lr"] * p.grad)


class LooksAhead(Adam):
    """Lookahead that counts its own steps and starts its slow weights after the first."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, k=5, alpha=0.5):
        super().__init__(params, lr, betas, eps)
        for g in self.param_groups:
            g.update(k=k, alpha=alpha, looks=0)

    @torch.no_grad()
    def step(self, closure=None):
        super().step(closure)
        for g in self.param_groups:
            g["looks"] += 1
            for p in (p for p in g["params"] if p.grad is not None):
                slow = self.state[p].setdefault("slow", p.clone())
                if g["looks"] % g["k"] == 0:
                    p.copy_(slow.lerp_(p, g["alpha"]))


class ClipsFirst(Adam):
    """Clips what is there, then steps with the closure, which overwrites it."""

    def step(self, closure=None):
        torch.nn.utils.clip_grad_value_([p for g in self.param_groups for p in g["params"]], 0.5)
        return super().step(closure)


class UnderOneRoof:
    """Two optimizers, for matrices and for the rest, that save a list of states."""

    def __init__(self, params, lr=1e-2):
        params = list(params)
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        parts = [
            [{**g, "params": [p for p in g["params"] if (p.ndim == 2) == flat]} for g in groups]
            for flat in (True, False)
        ]
        self.opts = [
            make([g for g in part if g["params"]], lr=lr)
            for make, part in zip((torch.optim.SGD, Adam), parts, strict=True)
            if any(g["params"] for g in part)
        ]

    @property
    def param_groups(self):
        return [g for o in self.opts for g in o.param_groups]

    def step(self, closure=None):
        for o in self.opts:
            o.step()

    def zero_grad(self, set_to_none=True):
        for o in self.opts:
            o.zero_grad(set_to_none)

    def state_dict(self):
        return {"state": [o.state_dict() for o in self.opts]}

    def load_state_dict(self, saved):
        for o, one in zip(self.opts, saved["state"], strict=True):
            o.load_state_dict(one)


class Langevin(Optimizer):
    """Draws a step's noise."""

    def __init__(self, params, lr=1e-2, temperature=1e-6):
        super().__init__(params, {"lr": lr, "temperature": temperature})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                p.sub_(g["lr"] * p.grad - (2 * g["lr"] * g["temperature"]) ** 0.5 * torch.randn_like(p))


class HalfState(Optimizer):
    """Keeps its momentum in bfloat16."""

    def __init__(self, params, lr=1e-2, momentum=0.9):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                kept = self.state[p].get("v", torch.zeros_like(p)).to(p.dtype)
                v = g["momentum"] * kept + p.grad
                self.state[p]["v"] = v.bfloat16()
                p.sub_(g["lr"] * v)


class HalfMuon(Optimizer):
    """Orthogonalizes in bfloat16, which drops the imaginary part of a complex gradient with a warning."""

    def __init__(self, params, lr=1e-2):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                p.sub_(g["lr"] * (ns5(p.grad.bfloat16()) if p.ndim == 2 else p.grad).to(p.dtype))


class Differences(Optimizer):
    """Descends along differences of two losses, without a gradient."""

    def __init__(self, params, lr=1e-2, eps=1e-3):
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        if closure is None:
            raise RuntimeError("expected a closure")
        for g in self.param_groups:
            drawn = [torch.randn_like(p) for p in g["params"]]
            losses = []
            for way in (1, -2):
                torch._foreach_add_(g["params"], drawn, alpha=way * g["eps"])
                losses.append(closure())
            torch._foreach_add_(g["params"], drawn, alpha=g["eps"])
            slope = (losses[0] - losses[1]) / (2 * g["eps"])
            for p, z in zip(g["params"], drawn, strict=True):
                p.sub_(g["lr"] * slope * z)


# Faulty -----------------------------------------------------------------------------------------------------


class VecAdamSharedStep(Optimizer):
    """Vectorised: one step counter a group that is raised once for each parameter."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "t": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                g["t"] += 1
                mv = self.state[p].setdefault("mv", torch.zeros(2, *p.shape, dtype=p.dtype))
                b = torch.tensor(g["betas"], dtype=p.dtype).view(2, *[1] * p.ndim)
                mv.mul_(b).add_((1 - b) * torch.stack([p.grad, p.grad**2]))
                m, v = mv / (1 - b ** g["t"])
                p -= g["lr"] * m / (v.sqrt() + g["eps"])


class ClosureNesterov(Optimizer):
    """A look-ahead that takes the whole velocity."""

    def __init__(self, params, lr=1e-2, momentum=0.9, nesterov=True):
        super().__init__(params, {"lr": lr, "momentum": momentum, "nesterov": nesterov})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                v = self.state[p].get("v")
                v = p.grad.clone() if v is None else g["momentum"] * v + p.grad
                self.state[p]["v"] = v
                p.sub_(g["lr"] * (p.grad + v if g["nesterov"] else v))


class StateInGroup(Optimizer):
    """RMSprop whose squares are weighed the wrong way round."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8):
        super().__init__(params, {"lr": lr, "alpha": alpha, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                v = self.state[p].get("v", torch.zeros_like(p))
                v = (1 - g["alpha"]) * v + g["alpha"] * p.grad**2
                self.state[p]["v"] = v
                p.addcdiv_(p.grad, v.sqrt() + g["eps"], value=-g["lr"])


class StaleAdagrad(Optimizer):
    """Divides by the sum before it adds this gradient."""

    def __init__(self, params, lr=1e-2, eps=1e-10, initial_accumulator_value=0.1):
        super().__init__(
            params, {"lr": lr, "eps": eps, "initial_accumulator_value": initial_accumulator_value}
        )

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in g["params"]:
                if p.grad is None:
                    continue
                s = self.state[p].setdefault("s", torch.full_like(p, g["initial_accumulator_value"]))
                p.addcdiv_(p.grad, s.sqrt() + g["eps"], value=-g["lr"])
                s.addcmul_(p.grad, p.grad)


class HookedAdam(Adam):
    """A hook steps again."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, lr, betas, eps)
        self.register_step_post_hook(lambda opt, args, kwargs: opt._again())
        self.busy = False

    @torch.no_grad()
    def _again(self):
        if not self.busy:
            self.busy = True
            self.step()
            self.busy = False


class RangerClimbs(Optimizer):
    """RAdam that goes up while it is not rectified."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            b1, b2 = g["betas"]
            for p in g["params"]:
                if p.grad is None:
                    continue
                s = self.state[p]
                if not s:
                    s.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                s["t"] += 1
                t = s["t"]
                s["m"].lerp_(p.grad, 1 - b1)
                s["v"].lerp_(p.grad**2, 1 - b2)
                inf = 2 / (1 - b2) - 1
                rho = inf - 2 * t * b2**t / (1 - b2**t)
                mh = s["m"] / (1 - b1**t)
                if rho > 5:
                    r = math.sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho))
                    p.addcdiv_(mh, (s["v"].sqrt() + g["eps"]), value=-g["lr"] * r * math.sqrt(1 - b2**t))
                else:
                    p.add_(mh, alpha=g["lr"])


class DropsState(Optimizer):
    """Adam whose loaded state begins anew."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})
        self.mem = {}

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            b1, b2 = g["betas"]
            for p in g["params"]:
                if p.grad is None:
                    continue
                s = self.mem.setdefault(p, {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)})
                s["t"] += 1
                s["m"].lerp_(p.grad, 1 - b1)
                s["v"].lerp_(p.grad**2, 1 - b2)
                p -= g["lr"] * s["m"] / (1 - b1 ** s["t"]) / ((s["v"] / (1 - b2 ** s["t"])).sqrt() + g["eps"])


class CoupledSGDW(Optimizer):
    """Decoupled by its name."""

    def __init__(self, params, lr=1e-2, momentum=0.9, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for g in self.param_groups:
            for p in (p for p in g["params"] if p.grad is not None):
                v = self.state[p].setdefault("v", torch.zeros_like(p))
                p.sub_(g["lr"] * v.mul_(g["momentum"]).add_(p.grad + g["weight_decay"] * p))


class StuckAhead(LooksAhead):
    """The slow weights stay where they began."""

    @torch.no_grad()
    def step(self, closure=None):
        before = {p: p.clone() for g in self.param_groups for p in g["params"] if p.grad is not None}
        Adam.step(self, closure)
        for p, w in before.items():
            slow = self.state[p].setdefault("slow", w)
            if int(self.state[p]["step"]) % 5 == 0:
                p.copy_(slow.lerp(p, 0.5))


class ForgetsLargest(Adam):
    """Takes amsgrad, on by default, and drops the largest."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, amsgrad=True):
        super().__init__(params, lr, betas, eps)
        for g in self.param_groups:
            g["amsgrad"] = amsgrad

    def step(self, closure=None):
        shown = [g["amsgrad"] for g in self.param_groups]
        for g in self.param_groups:
            g["amsgrad"] = False
        super().step(closure)
        for g, amsgrad in zip(self.param_groups, shown, strict=True):
            g["amsgrad"] = amsgrad


class ClippedSigns(Optimizer):
    """Lion (Chen et al. 2023, 2302.06675) of gradients that are clipped to a norm of 1, of all of them at once."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99)):
        super().__init__(params, {"lr": lr, "betas": betas})

    @torch.no_grad()
    def step(self, closure=None):
        pairs = [(g, p) for g in self.param_groups for p in g["params"] if p.grad is not None]
        total = sum(float(p.grad.square().sum()) for _, p in pairs) ** 0.5
        for group, p in pairs:
            one, two = group["betas"]
            clipped = p.grad * min(1.0, 1 / (total + 1e-6))
            m = self.state[p].setdefault("m", torch.zeros_like(p))
            p -= group["lr"] * (one * m + (1 - one) * clipped).sign()
            m.lerp_(clipped, 1 - two)


class ByPlace(torch.optim.SGD):
    """Rates fall from the last parameter to the first, as some fine-tune layers."""

    @torch.no_grad()
    def step(self, closure=None):
        placed = [(g, p) for g in self.param_groups for p in g["params"]]
        for place, (group, p) in enumerate(reversed(placed)):
            if p.grad is not None:
                p -= group["lr"] * 0.8**place * p.grad


class ShortInside(Optimizer):
    """Momentum that is scaled in bfloat16 unless it is given float64, as Muon's iteration often is."""

    def __init__(self, params, lr=0.02, momentum=0.95):
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    m = self.state[p].setdefault("m", torch.zeros_like(p))
                    m.lerp_(p.grad, 1 - group["momentum"])
                    short = m if p.dtype == torch.float64 else m.bfloat16()
                    p -= group["lr"] * (short / (short.norm() + 1e-7)).to(p)


class CautiousByMean(Optimizer):
    """Adam where its step is along the gradient, and that much longer (Liang et al. 2024), by the mean of the mask."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                s, (one, two) = self.state[p], group["betas"]
                if not s:
                    s.update(t=0, m=torch.zeros_like(p), v=torch.zeros_like(p))
                s["t"] += 1
                s["m"].lerp_(p.grad, 1 - one)
                s["v"].lerp_(p.grad.square(), 1 - two)
                mask = (s["m"] * p.grad > 0).to(p)
                mask /= mask.mean().clamp(min=1e-3)
                root = (s["v"] / (1 - two ** s["t"])).sqrt() + group["eps"]
                p -= group["lr"] * mask * (s["m"] / (1 - one ** s["t"])) / root


CLEAN = [TrulyFlatAdam, SignMomentum, CentralAdam, IndependentDecay, ClippedAdam, MuonMix, LazySGD]
CLEAN += [HiddenMomentum, HiddenSquares, Configured, Sutskever, LooksAhead, CautiousByMean]
CLEAN_BY_LAW = {  # each of a style that the law once accused
    ClipsFirst: "closure",
    UnderOneRoof: "older-states",
    Langevin: "loads",
    HalfState: "loads",
    HalfMuon: "complex-parameters",
    ClippedSigns: "group-added",
    ByPlace: "neighbours",
    ShortInside: "loads",
}
FAULTY = {
    VecAdamSharedStep: "one step counter advanced at each parameter",
    ClosureNesterov: "the look-ahead took the whole velocity",
    StateInGroup: "alpha weighed the gradient",
    StaleAdagrad: "the sum of before the gradient",
    HookedAdam: "each step updated twice",
    RangerClimbs: "it climbed until it is rectified",
    DropsState: "a load lost the state",
    CoupledSGDW: "is decoupled by its name",
    StuckAhead: "the slow weights stayed where they began",
    ForgetsLargest: "the same with amsgrad=False and without",
}

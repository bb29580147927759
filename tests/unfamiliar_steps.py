"""Optimizers that laws have to tell apart by how they step and what they leave: sound ones first, then faulty ones."""

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer


class EachStep(Optimizer):
    """Steps parameter by parameter, as ``one`` says."""

    def one(self, p, state, group):
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    self.one(p, self.state[p], group)


# Sound ------------------------------------------------------------------------------------------------------


class KeepsRows(EachStep):
    """Riemannian gradient descent: each row of a matrix keeps its norm."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def one(self, p, state, group):
        size = state.setdefault("size", p.norm(dim=-1, keepdim=True).clone())
        unit = p / size
        across = p.grad - unit * (p.grad * unit).sum(-1, keepdim=True)
        moved = p - group["lr"] * across
        p.copy_(moved * (size / moved.norm(dim=-1, keepdim=True)))


class TowardsOrthogonal(EachStep):
    """Gradient descent, then a tenth of the way to the nearest matrix of orthonormal rows or columns."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def one(self, p, state, group):
        p.sub_(group["lr"] * p.grad)
        u, _, vh = torch.linalg.svd(p, full_matrices=False)
        p.lerp_(u @ vh, 0.1)


class Whitening(EachStep):
    """Spectral descent: (G G^T + eps)^(-1/2) G, which a basis of eigenvectors needs some eps for."""

    def __init__(self, params, lr=0.05, eps=1e-12):
        super().__init__(params, {"lr": lr, "eps": eps})

    def one(self, p, state, group):
        m = state.setdefault("m", torch.zeros_like(p)).lerp_(p.grad, 0.1)
        if p.ndim == 2:
            values, q = torch.linalg.eigh(m @ m.mT)
            p.sub_(group["lr"] * (q * (values.clamp_min(0) + group["eps"]).rsqrt()) @ (q.mT @ m))
        else:
            p.sub_(group["lr"] * m.sign())


class OtherName(EachStep):
    """A heavy ball whose groups call their rate as Keras does."""

    def __init__(self, params, lr=0.1, momentum=0.9):
        super().__init__(params, {"learning_rate": lr, "momentum": momentum})

    def one(self, p, state, group):
        v = state.setdefault("v", torch.zeros_like(p))
        p.add_(v.mul_(group["momentum"]).sub_(group["learning_rate"] * p.grad))


class WrittenAnew(EachStep):
    """FTRL-Proximal (McMahan et al. 2013): weights are computed from sums at each step, those at rest to rounding."""

    def __init__(self, params, lr=0.5, beta=1e-2):
        super().__init__(params, {"lr": lr, "beta": beta})

    def one(self, p, state, group):
        lr, beta = group["lr"], group["beta"]
        if not state:
            state["n"], state["z"] = torch.zeros_like(p), -p * beta / lr
        n = state["n"] + p.grad.square()
        state["z"] += p.grad - (n.sqrt() - state["n"].sqrt()) / lr * p
        state["n"] = n
        p.copy_(-state["z"] * lr / (beta + n.sqrt()))


class MaxNorm(SGD):
    """Gradient descent, then rows of a norm above 3 are scaled to that (Srebro, Shraibman 2005)."""

    @torch.no_grad()
    def step(self, closure=None):
        super().step()
        for p in (p for group in self.param_groups for p in group["params"] if p.ndim > 1):
            size = p.norm(dim=tuple(range(1, p.ndim)), keepdim=True)
            p.mul_((3 / size.clamp_min(1e-12)).clamp_max(1.0))


class DecaysVectors(SGD):
    """Gradient descent that decays vectors, by an argument of that name."""

    def __init__(self, params, lr=1e-2, decay_1d=0.1):
        super().__init__(params, lr)
        self.decay_1d = decay_1d

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.ndim == 1):
                p.mul_(1 - group["lr"] * self.decay_1d)
        super().step()


class ByPlaceDecaying(AdamW):
    """AdamW whose rate falls from the last tensor of a group to the first, decoupled decay and all."""

    @torch.no_grad()
    def step(self, closure=None):
        own = [(group, group["params"], group["lr"]) for group in self.param_groups]
        for group, params, lr in own:
            for place, p in enumerate(reversed(params)):
                group["params"], group["lr"] = [p], lr * 0.9**place
                super().step()
            group["params"], group["lr"] = params, lr


class AsynchronousSGD(EachStep):
    """Asynchronous gradient descent, simulated: the gradient of the call before is applied."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def one(self, p, state, group):
        if "last" in state:
            p.sub_(group["lr"] * state["last"])
        state["last"] = p.grad.clone()


class WarmsUp(Adam):
    """The transformer's schedule on top of Adam: each step writes its rate, a multiple of the one that it was given."""

    def __init__(self, params, lr=1.0):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            group["factor"] = lr

    def step(self, closure=None):
        for group in self.param_groups:
            group["n"] = group.get("n", 0) + 1
            group["lr"] = group["factor"] * min(group["n"] ** -0.5, group["n"] / 64)
        super().step()


class NoSubclass:
    """A heavy ball that is no subclass of torch's Optimizer, and takes any groups."""

    def __init__(self, params, lr=0.1, momentum=0.9):
        params = list(params)
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        self.param_groups = [{"lr": lr, "momentum": momentum, **group} for group in groups]
        self.state = {}

    def zero_grad(self, set_to_none=True):
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                self.state[p] = group["momentum"] * self.state.get(p, 0) + p.grad
                p.sub_(group["lr"] * self.state[p])


class ContiguousBytes(SGD):
    """Reads parameters as bytes, which torch refuses where they are not contiguous."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.view(torch.uint8)
        super().step()


class ScheduleFree(EachStep):
    """Gradient descent along an average (Defazio et al. 2024), which eval() shows, and train() goes back from."""

    back = 0.1

    def __init__(self, params, lr=0.5):
        super().__init__(params, {"lr": lr, "training": True})

    def _switch(self, training, weight):
        for group in self.param_groups:
            if group["training"] != training:
                group["training"] = training
                for p in (p for p in group["params"] if "z" in self.state[p]):
                    p.lerp_(self.state[p]["z"], weight)

    @torch.no_grad()
    def eval(self):
        self._switch(False, 1 - 1 / 0.9)

    @torch.no_grad()
    def train(self):
        self._switch(True, self.back)

    def one(self, p, state, group):
        state["n"] = state.get("n", 0) + 1
        z, c = state.setdefault("z", p.clone()), 1 / state["n"]
        p.lerp_(z, c).add_(p.grad, alpha=group["lr"] * (0.9 * (1 - c) - 1))
        z.sub_(group["lr"] * p.grad)


class Draws(SGD):
    """Steps each entry with probability a half."""

    def step(self, closure=None):
        for p in self.param_groups[0]["params"]:
            p.grad = 2 * p.grad * (torch.rand_like(p) < 0.5)
        super().step()


# Faulty -----------------------------------------------------------------------------------------------------


class OneForAShape(Adam):
    """Parameters of one shape share their squares."""

    @torch.no_grad()
    def step(self, closure=None):
        shared = {}
        for p in (p for group in self.param_groups for p in group["params"] if self.state[p]):
            self.state[p]["exp_avg_sq"] = shared.setdefault(p.shape, self.state[p]["exp_avg_sq"])
        super().step()


class GoesBackTooFar(ScheduleFree):
    """It goes back by another weight than it came."""

    back = 0.9


class ShowsForGood(SGD):
    """eval() writes the average over the weights, which are gone."""

    def step(self, closure=None):
        super().step()
        for p in self.param_groups[0]["params"]:
            self.state[p].setdefault("average", p.detach().clone()).lerp_(p.detach(), 0.1)

    @torch.no_grad()
    def eval(self):
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p].get("average", p))

    def train(self):
        pass


class ShowsFurther(ScheduleFree):
    """A second eval() goes on from where the first came to."""

    @torch.no_grad()
    def eval(self):
        for group in self.param_groups:
            group["training"] = True
        super().eval()


class Late(SGD):
    """Gradient descent."""

    @torch.no_grad()
    def step(self, closure=None):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            kept = self.state[p].get("kept", torch.zeros_like(p))
            self.state[p]["kept"], p.grad = p.grad.clone(), kept
        super().step()


SOUND = {  # with the rows that once accused it
    Whitening: ("scale-adaptive",),
    OtherName: ("recognised", "resume", "scheduled"),
    WrittenAnew: ("dead-columns", "dead-stays-dead"),
    MaxNorm: ("dead-columns", "dead-stays-dead"),
    DecaysVectors: ("dead-columns", "dead-stays-dead"),
    ByPlaceDecaying: ("neighbours",),
    AsynchronousSGD: ("recognised",),
    WarmsUp: ("scheduled", "every-scheduler"),
    NoSubclass: ("shared-parameters",),
    ContiguousBytes: ("layout",),
    ScheduleFree: ("evaluate",),
    Draws: ("generators-left",),
}
FAULTY = {  # with the row that sees it
    OneForAShape: "neighbours",
    GoesBackTooFar: "evaluate",
    ShowsForGood: "evaluate",
    ShowsFurther: "evaluate",
    Late: "recognised",
}

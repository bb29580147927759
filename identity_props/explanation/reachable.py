"""Outputs that depend on each other, as after a softmax or a layer norm: how near to a target they can be.

What makes them is the tail: all that follows the last layer that mixes units, from its output [n, ...] to [n, d].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.explanation.readout import dtype_of, evaluating
from identity_props.explanation.slopes import hooked, last_module
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance

LOOKED = 256  # examples whose nearest outputs are sought
STEPS = 100  # of L-BFGS
MOVED = 1e-4  # of an output's size: less is rounding

Tail = Callable[[Tensor], Tensor]


def normalises(module: nn.Module) -> bool:
    """Whether a module scales units and mixes none by its weights, as all that normalise: the tail begins before it."""
    return all(p.ndim < 2 for p in module.parameters(recurse=False))


def tail(model: nn.Module, x: Tensor) -> tuple[Tail, Tensor] | None:
    """The tail for x [n, d], and what enters it; None without a layer, or where that is no tensor."""
    last, held = last_module(model, x), list[Tensor]()
    if last is None:
        return None
    before = normalises(last)

    def replacing(by: Tensor | None) -> Any:
        def entering(module: nn.Module, given: Any) -> Any:
            held[:] = [given[0]]
            return None if by is None else (by.to(given[0].dtype), *given[1:])

        def leaving(module: nn.Module, given: Any, out: Tensor) -> Any:
            held[:] = [out]
            return None if by is None else by.to(out.dtype)

        return last.register_forward_pre_hook(entering) if before else last.register_forward_hook(leaving)

    def run(z: Tensor | None) -> Tensor:
        with hooked(replacing(z)), evaluating(model):
            y: Tensor = model(x.to(dtype_of(model)))
        return y.double()

    with torch.no_grad():
        run(None)
    return run, held[0].detach().double()


def depend(model: nn.Module, x: Tensor) -> bool:
    """Whether one number that enters the tail moves more than one output on x [n, d]."""
    found = tail(model, x[:4])
    if found is None:
        return False
    run, z = found
    with torch.no_grad():
        y = run(z)
        for k in {0, z[0].numel() // 2, z[0].numel() - 1}:
            other = z.flatten(1).clone()
            other[:, k] += z.std() + 1e-3
            moved = (run(other.reshape(z.shape)) - y).abs() > MOVED * y.abs().max()
            if int(moved.sum(1).max()) > 1:
                return True
    return False


def unreached(model: nn.Module, pixels: Pixels) -> float:
    """FVU on test that no input of the tail leaves out, where outputs depend on each other; else 0.

    The least squares over what enters the tail, of 256 examples, by L-BFGS from where it is: what it finds is an
    upper bound, and the present error at most.
    """
    x, goal = pixels.test[:LOOKED], pixels.goal[1][:LOOKED].double()
    found = tail(model, x) if depend(model, x) else None
    if found is None:
        return 0.0
    run, z = found
    z.requires_grad_()
    best = [float((run(z) - goal).square().mean().detach())]
    optimizer = torch.optim.LBFGS([z], max_iter=STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (run(z) - goal).square().mean()
        (z.grad,) = torch.autograd.grad(loss, z)  # and none for the network's own
        best.append(float(loss.detach()))
        return loss

    with torch.enable_grad():
        optimizer.step(closure)
    return min(one for one in best if one == one) / pixel_variance(pixels.goal[1])

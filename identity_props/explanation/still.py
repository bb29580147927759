"""Networks that draw at random in evaluation too, as variational autoencoders do, held still: each draw is its mean."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from identity_props.errors import InputError
from identity_props.explanation.readout import outputs
from identity_props.explanation.settling import fvu
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance

Back = Callable[[Tensor], Tensor]
DRAWS = 8  # evaluations that the error of a network that draws is a mean of
ALIKE = 1e-4  # of outputs: nearer than this two evaluations differ by rounding alone

_DROPPED: Mapping[Any, Callable[..., Any]] = dict.fromkeys(
    (
        torch.dropout,
        *(
            getattr(nn.functional, name)
            for name in (
                "dropout",
                "dropout1d",
                "dropout2d",
                "dropout3d",
                "alpha_dropout",
                "feature_alpha_dropout",
            )
        ),
    ),
    lambda x, *rest, **kw: x,
)
_MEANS: Mapping[Any, Callable[..., Any]] = {
    **_DROPPED,
    torch.randn: lambda *size, **kw: torch.zeros(*size, **kw),
    torch.randn_like: lambda x, **kw: torch.zeros_like(x, **kw),
    torch.rand: lambda *size, **kw: torch.full(size[0] if len(size) == 1 else size, 0.5, **kw),
    torch.rand_like: lambda x, **kw: torch.full_like(x, 0.5, **kw),
    torch.bernoulli: lambda p, *rest, **kw: p,
    torch.normal: lambda mean, *rest, **kw: mean if isinstance(mean, Tensor) else None,
    Tensor.normal_: lambda x, mean=0.0, *rest, **kw: x.fill_(mean),
    Tensor.uniform_: lambda x, low=0.0, high=1.0, **kw: x.fill_((low + high) / 2),
}


class _Means(TorchFunctionMode):
    """Gives the mean of what is drawn, of functions that have a known one."""

    def __init__(self, means: Mapping[Any, Callable[..., Any]] = _MEANS) -> None:
        super().__init__()
        self.means = means

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in self.means:
            by = {key: one for key, one in kwargs.items() if key != "generator"}
            mean = self.means[func](*args, **by)
            if mean is not None:
                return mean
        return func(*args, **kwargs)


class Still(nn.Module):
    """A network whose evaluation is the same at each call: at the ``means`` of its draws, or one draw of them."""

    def __init__(self, model: nn.Module, means: bool = True) -> None:
        super().__init__()
        self.model, self.means = model, means

    def forward(self, x: Tensor) -> Any:
        if self.training:
            return self.model(x)
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            if not self.means:
                return self.model(x)
            with _Means():
                return self.model(x)


def draws(model: nn.Module, x: Tensor) -> bool:
    """Whether two evaluations of the same examples [n, d] differ."""
    with torch.random.fork_rng([]):
        one, other = (outputs(model, x[:16]) for _ in range(2))
    return bool((one - other).abs().max() > ALIKE * one.abs().max())


def draws_besides(model: nn.Module, x: Tensor) -> bool:
    """Whether they differ when nothing is dropped: by draws whose size it has learned, or could have."""
    with _Means(_DROPPED):
        return draws(model, x)


def squares(model: nn.Module, pixels: Pixels, back: Back, seed: int) -> Tensor:
    """Mean squared errors [d] on test, over draws, of what ``back`` makes of outputs and target."""
    goal, total = back(pixels.goal[1].double()), torch.zeros(pixels.d, dtype=torch.float64)
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        for _ in range(DRAWS):
            total += (back(outputs(model, pixels.test)) - goal).square().mean(0)
    return total / DRAWS


def stilled(model: nn.Module, pixels: Pixels, seed: int) -> tuple[nn.Module, float]:
    """The network at the means of its draws, and the FVU that its draws add to that.

    At one draw, and 0, where the means do no better than the draws.
    """
    still = Still(model)
    drawn = float(squares(model, pixels, lambda y: y, seed).mean()) / pixel_variance(pixels.goal[1])
    try:
        added = drawn - fvu(still, pixels)
    except InputError:  # a module that fails where its draws are means
        added = 0.0
    return (still, added) if added > 0 else (Still(model, means=False), 0.0)


def held_still(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The network at the means of its draws; None where two evaluations of x [n, d] are the same."""
    return Still(copy.deepcopy(model)) if draws(model, x) else None

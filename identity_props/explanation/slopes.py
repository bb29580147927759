"""What an activation does, read from its slope and its reach, whatever its name is.

What lies between a parametrised module and the next, or the output, is taken to act on each unit alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.explanation.answers import rows_of_units
from identity_props.explanation.readout import CHUNK, dtype_of, evaluating, parametrised, vary
from identity_props.task.threads import one_thread

FLAT = 0.1  # of an activation's largest slope, averaged over the data: a tanh at a spread of 8, a ReLU on for 1 in 10
FLAT_OUTPUT = 0.05  # likewise, of one output for one example: a sigmoid below 0.013
LOOKED = 256  # examples that slopes of hidden units are averaged over
PROBES = (-1.0, 0.0, 1.0)  # where an activation is looked at besides, since data may never reach its slope
FAR, NEAR = 1e6, 1e4  # inputs of the last activation: what still grows between them has no end


@contextmanager
def hooked(*handles: Any) -> Iterator[None]:
    """Hooks that are taken away again."""
    with ExitStack() as hooks:
        for handle in handles:
            hooks.callback(handle.remove)
        yield


def last_module(model: nn.Module, x: Tensor) -> nn.Module | None:
    """The parametrised module that is entered last, which the output activation follows.

    Not the one that is left last: a network that has a parameter of its own is left after all that is in it.
    """
    entered: list[nn.Module] = []
    gave: list[nn.Module] = []

    def enter(module: nn.Module, given: Any) -> None:
        entered.append(module)

    def leave(module: nn.Module, given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            gave.append(module)

    modules = parametrised(model)
    hooks = [m.register_forward_pre_hook(enter) for m in modules] + [
        m.register_forward_hook(leave) for m in modules
    ]
    with hooked(*hooks), evaluating(model), torch.no_grad():
        model(x[:2].to(dtype_of(model)))
    return next((module for module in reversed(entered) if module in gave), None)


@dataclass(frozen=True, eq=False)
class Passage:
    """From a parametrised module's output to what ``entered`` the next, None for the network's own output.

    ``before`` and ``after`` [n, ...] have a gradient from one to the other.
    """

    entered: nn.Module | None
    before: Tensor
    after: Tensor

    @property
    def slope(self) -> Tensor | None:
        """|slope| [n, p], unit by unit; None where the two are not of one size."""
        z, a = self.before, self.after
        if z.flatten(1).shape != a.flatten(1).shape or not (z.requires_grad and a.requires_grad):
            return None
        # signs, or a softmax, whose outputs sum to 1, would seem flat
        signs = (torch.rand(a.shape, generator=torch.Generator().manual_seed(0)) < 0.5).to(a) * 2 - 1
        (slope,) = torch.autograd.grad(a, z, signs, retain_graph=True, allow_unused=True)
        return None if slope is None else slope.abs().flatten(1).detach()


def passages(
    model: nn.Module, x: Tensor, at: float | None = None, within: list[nn.Module] | None = None
) -> list[Passage]:
    """Those on the way of x [n, d], or with the outputs of all modules set to ``at``; of the last ``within`` alone."""
    found: list[Passage] = []
    held: list[Tensor] = []
    entered: list[nn.Module] = []

    def leave(module: nn.Module, given: Any, out: Any) -> Any:
        if entered and entered[-1] is not module:
            return None  # what is around other modules is no layer
        if not isinstance(out, Tensor):
            held.clear()  # as of a recurrent layer: what comes next does not follow from what was before
            return None
        if at is not None or within is not None:
            out = (out if at is None else torch.full_like(out, at)).detach().requires_grad_()
        held[:] = [out]
        return out.clone()  # which an activation may change in place

    def enter(module: nn.Module, given: Any) -> None:
        entered.append(module)
        if held and given and rows_of_units(given[0]):
            found.append(Passage(module, held[0], given[0]))

    modules = parametrised(model)
    leaving = [m.register_forward_hook(leave) for m in (modules if within is None else within)]
    entering = [m.register_forward_pre_hook(enter) for m in modules] if within is None else []
    with hooked(*leaving, *entering), evaluating(model), torch.enable_grad():
        y = model(x.to(dtype_of(model)).requires_grad_())
    return [*found, Passage(None, held[0], y)] if held else found


@dataclass(frozen=True, eq=False)
class Saturation:
    """Units [p] that are flat on almost all data, by the hidden layer they are in; the output's largest slope."""

    hidden: dict[nn.Module, Tensor]
    output: float

    @property
    def units(self) -> int:
        """How many there are."""
        return sum(int(flat.sum()) for flat in self.hidden.values())


def saturation(model: nn.Module, x: Tensor) -> Saturation:
    """Hidden units whose slope over x [n, d] is on average below a tenth of the activation's largest.

    Of layers that nothing goes round: what does is not lost where a unit is flat.
    """
    slopes = {one.entered: slope for one in passages(model, x[:LOOKED]) if (slope := one.slope) is not None}
    largest = {entered: float(slope.max()) for entered, slope in slopes.items()}
    for probe in PROBES:
        for one in passages(model, x[:2], probe):
            slope = one.slope
            if one.entered in largest and slope is not None:
                largest[one.entered] = max(largest[one.entered], float(slope.max()))
            if one.entered in slopes and vary(one.after.detach()):
                del slopes[one.entered]
    hidden = {
        entered: flat
        for entered, slope in slopes.items()
        if entered is not None and bool((flat := slope.mean(0) < FLAT * largest[entered]).any())
    }
    return Saturation(hidden, largest.get(None, 0.0) if None in slopes else 0.0)


def flat_outputs(model: nn.Module, last: nn.Module | None, x: Tensor, largest: float) -> Tensor:
    """Entries [n, d] of the output where its activation's slope is below a twentieth of the largest."""
    none = torch.zeros_like(x, dtype=torch.bool)
    if last is None or not largest:
        return none
    found = [passages(model, chunk, within=[last])[-1].slope for chunk in x.split(CHUNK)]
    known = [slope for slope in found if slope is not None]
    return torch.cat(known) < FLAT_OUTPUT * largest if len(known) == len(found) else none


def reach(model: nn.Module, last: nn.Module | None, x: Tensor) -> tuple[Tensor, Tensor] | None:
    """Least and largest output [d] that any input of the output activation gives, infinite where there is no end.

    None where it cannot be told: something goes round the last module, or its outputs are not taken one by one.
    """
    if last is None:
        return None
    steps = [
        *torch.linspace(-5, 5, 41).tolist(),
        *(sign * size for size in (10.0, 100.0, 1e3, NEAR) for sign in (-1, 1)),
    ]
    with one_thread():
        inner = [_at(model, last, x, value) for value in steps]
        outer = [_at(model, last, x, value) for value in (-FAR, FAR)]
    if any(not torch.isfinite(y).all() or vary(y) for y in (*inner, *outer)):
        return None
    near, far = torch.stack([y[0] for y in inner]), torch.stack([y[0] for y in outer])
    low, high = near.amin(0), near.amax(0)
    if bool((low == high).any()):
        return None
    wide = 1e-3 * (high - low)
    low = torch.where(far.amin(0) < low - wide, -torch.inf, low)
    return low, torch.where(far.amax(0) > high + wide, torch.inf, high)


def _at(model: nn.Module, last: nn.Module, x: Tensor, value: float) -> Tensor:
    """Outputs [2, d] where the last module gives ``value`` everywhere."""

    def replaced(module: nn.Module, given: Any, out: Tensor) -> Tensor:
        most = torch.finfo(out.dtype).max  # of float16 less than what is asked for
        return torch.full_like(out, min(max(value, -most), most))

    with hooked(last.register_forward_hook(replaced)), evaluating(model), torch.no_grad():
        y: Tensor = model(x[:2].to(dtype_of(model)))
    return y.double()

"""What can be read out of a network: its outputs, its hidden layers, the best affine map of a layer.

Any module that maps [n, d] to [n, d] will do. A hidden layer is the input of a parametrised leaf module
after the first, in the order of the forward pass.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from identity_props.errors import InputError
from identity_props.explanation.answers import a_tensor, rows_of_units

CHUNK = 1024  # examples a forward pass
WIDEST = 4096  # features of a layer that is read; its Gram matrix takes 128 MiB
BLOCKS = 2  # of columns that a Gram matrix is computed by; more are narrower, and no faster
MANY = 0.9  # of columns: to leave out fewer takes longer than it saves
RIDGE = 1e-9  # of the mean power of a feature: far above rounding, far below what training leaves


def check_network(model: nn.Module, x: Tensor) -> None:
    """Raise InputError unless the model is finite, on the device of x [n, d] and maps it to finite [n, d]."""
    for name, p in [*model.named_parameters(), *model.named_buffers()]:
        if p.device != x.device:
            raise InputError(f"model: expected {name} on {x.device}, where the data is, got it on {p.device}")
        if p.is_floating_point() and not torch.isfinite(p).all():
            raise InputError(f"model: expected finite weights, got NaN or infinity in {name}")
    y = outputs(model, x[:2])
    if y.shape != x[:2].shape:
        raise InputError(f"model: expected outputs {list(x[:2].shape)}, as its inputs, got {list(y.shape)}")


def dtype_of(model: nn.Module) -> torch.dtype:
    """The dtype of the model's floating parameters; float32 where it has none."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def parametrised(model: nn.Module) -> list[nn.Module]:
    """Modules that have parameters of their own, or make them of others, as a weight norm does; none that makes them."""
    makers = {
        maker for one in model.modules() if isinstance(one, ParametrizationList) for maker in one.modules()
    }
    return [one for one in model.modules() if (one._parameters or is_parametrized(one)) and one not in makers]


@contextmanager
def evaluating(model: nn.Module, training: bool = False) -> Iterator[None]:
    """The model in eval mode, or in that of training, each of its modules as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def outputs(model: nn.Module, x: Tensor, training: int | None = None) -> Tensor:
    """Outputs [n, d] in float64 on x [n, d], in eval mode; raises InputError where it fails or is not finite.

    With ``training`` as it is in training, in batches of so many.
    """
    dtype = dtype_of(model)
    with evaluating(model, training is not None), torch.no_grad():
        try:
            y = torch.cat([a_tensor(model(chunk.to(dtype))) for chunk in x.split(training or CHUNK)]).double()
        except Exception as error:  # a module of the user's may raise anything
            message = f"model: expected to take [n, {x.shape[1]}], it raised {type(error).__name__}: {error}"
            raise InputError(" ".join(message.split())) from error
    if not torch.isfinite(y.sum()) and not torch.isfinite(y).all():  # of a sum at a tenth of the time
        raise InputError("model: expected finite outputs, got NaN or infinity")
    return y


@dataclass(frozen=True, eq=False)
class Layer:
    """A hidden layer: the module that it enters, its values [n, p] in float64, and what its flat units [n, s] were given."""

    module: nn.Module
    values: Tensor
    before: Tensor | None = None


def watched(
    model: nn.Module,
    x: Tensor,
    flat: Mapping[nn.Module, Tensor] | None = None,
    training: int | None = None,
) -> tuple[Tensor, list[Layer]]:
    """Outputs [n, d] as ``outputs`` gives them, and the hidden layers on the way there.

    Layers of more than 4,096 features are left out. ``flat`` [p] are units of which the values before their
    activation are kept as well. With ``training`` they are those of training mode, in batches of so many.
    """
    seen: dict[nn.Module, list[Tensor]] = {}
    before: dict[nn.Module, list[Tensor]] = {}
    given_last: list[Tensor] = []

    def record(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        if not (given and rows_of_units(given[0]) and given[0][0].numel() <= WIDEST):
            return
        seen.setdefault(module, []).append(given[0].flatten(1).clone())  # before anything changes it in place
        if flat and module in flat and given_last:
            before.setdefault(module, []).append(given_last[0].flatten(1)[:, flat[module]])

    def leave(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(out, Tensor):
            given_last[:] = [out.clone()]

    with ExitStack() as hooks:
        for module in parametrised(model):
            hooks.callback(module.register_forward_pre_hook(record).remove)
            if flat:
                hooks.callback(module.register_forward_hook(leave).remove)
        y = outputs(model, x, training)
    layers = [
        Layer(
            module,
            torch.cat(chunks).double(),
            torch.cat(before[module]).double() if module in before else None,
        )
        for module, chunks in seen.items()
    ]
    if layers and training is None and torch.equal(layers[0].values, x.to(dtype_of(model)).double()):
        del layers[0]  # and no other: a layer that passes its input on is a hidden one all the same
    return y, [one for one in layers if len(one.values) == len(x)]


def bypassed(model: nn.Module, module: nn.Module, x: Tensor) -> bool:
    """Whether outputs on x [n, d] still differ between examples when ``module`` is fed zeros."""

    def blank(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (torch.zeros_like(given[0]), *given[1:])

    hook = module.register_forward_pre_hook(blank)
    try:
        y = outputs(model, x[:16])
    finally:
        hook.remove()
    return vary(y)


def vary(y: Tensor) -> bool:
    """Whether y [n, ...] differs between examples, by more than the last bits that vectorised code leaves open."""
    return bool((y - y[0]).abs().max() > 1e-5 * y.abs().max())


def gram(x: Tensor) -> Tensor:
    """x^T x [p, p] of x [n, p]: its upper half, by blocks of columns, and the same below, in 0.7 of the time."""
    size = max(1, -(-x.shape[1] // BLOCKS))
    made = x.new_empty(x.shape[1], x.shape[1])
    for first in range(0, x.shape[1], size):
        block, rest = slice(first, first + size), slice(first + size, None)
        made[block, first:] = x[:, block].T @ x[:, first:]
        made[rest, block] = made[block, rest].T
    return made


class Regression:
    """Least squares from features [n, p], of which the Gram matrix is factored once.

    Centred, under a ridge of 1e-9, solved by Cholesky in float64. Features keep their scale: one that is
    almost never on would be blown up, and a test image that has it with it. What is constant, as a dead unit, is
    left out, since nothing is read from it or into it.
    """

    def __init__(self, features: Tensor) -> None:
        self.mean, self.moves = features.mean(0), _varies(features)
        self.centred = features[:, self.moves].sub_(self.mean[self.moves])
        self.gram = gram(self.centred) / len(features)
        self.factor = self._factored()

    def _factored(self) -> Tensor:
        power = self.gram.diagonal().sum() / len(self.moves)
        ridge = torch.full_like(self.gram.diagonal(), RIDGE * float(power.clamp_min(1e-30)))
        factor: Tensor = torch.linalg.cholesky(self.gram + ridge.diag())
        return factor

    def to(self, target: Tensor) -> Tensor:
        """The affine map [p + 1, d], its last row the intercept, to a target [n, d]."""
        wanted, mean = _varies(target), target.mean(0)
        varying = target if bool(wanted.all()) else target[:, wanted]
        moment = self.centred.T @ varying / len(target)  # centred.T @ target.mean(0) is 0
        slope = target.new_zeros(len(self.moves), len(wanted))
        slope[self.moves.nonzero(), wanted.nonzero()[:, 0]] = torch.cholesky_solve(moment, self.factor)
        return torch.cat([slope, (mean - self.mean @ slope)[None]])

    def first(self, p: int) -> Regression:
        """That of the first p features alone, whose Gram matrix is part of the whole."""
        kept, other = int(self.moves[:p].sum()), copy.copy(self)
        other.mean, other.moves, other.centred = self.mean[:p], self.moves[:p], self.centred[:, :kept]
        other.gram = self.gram[:kept, :kept]
        other.factor = other._factored()
        return other


def _varies(x: Tensor) -> Tensor:
    """Columns [p] of x [n, p] that are not the same in all rows, or all where few are."""
    varies = (x != x[0]).any(0)
    return varies | (varies.double().mean() > MANY)


def affine(features: Tensor, target: Tensor) -> Tensor:
    """The affine map [p + 1, d], its last row the intercept, with least squares from [n, p] to [n, d]."""
    return Regression(features).to(target)


def apply(readout: Tensor, features: Tensor) -> Tensor:
    """An affine map [p + 1, d] of features [n, p]."""
    return features @ readout[:-1] + readout[-1]

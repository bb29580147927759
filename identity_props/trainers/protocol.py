"""What a trainer is asked and what it hands back: ``fit(asked) -> Trained``.

A trainer that cannot do what is asked raises NotOffered with the option's name, or does not read the option
at all, which says the same.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

IGNORED = -100  # the label of a token that is masked, as torch's cross_entropy has it


class NotOffered(Exception):  # noqa: N818 - it is no error
    """Raised by a trainer that cannot do what is asked, with the name of the option."""


class NotApplicable(Exception):  # noqa: N818 - nor is this
    """Raised where a law says nothing of a trainer, with the reason."""


@dataclass(frozen=True, eq=False)
class Tokens:
    """Sequences of token ids [length] and the label of each token, IGNORED where it is masked.

    The label belongs to the token at its own place: no shift is due. Each id is used once at most.
    """

    ids: tuple[Tensor, ...]
    labels: tuple[Tensor, ...]


class Halved(nn.Linear):
    """A linear layer whose output is half as large in evaluation mode."""

    def forward(self, x: Tensor) -> Tensor:
        out = nn.functional.linear(x, self.weight)
        return out if self.training else out / 2


@dataclass(frozen=True, eq=False, repr=False)
class Asked:
    """A training to do: linear layers without bias, examples whose target is themselves, and how to train.

    ``start`` holds the layers' initial weights [out, in], the one next to the input first, ``examples`` [n, d].
    The loss is the mean over batch and features of the squared error, the optimizer plain SGD.
    ``batch_size`` examples a rank make a micro-batch, ``accumulate`` of those a step. ``schedule`` is constant,
    or linear: step k of K, from 0, has rate lr (1 - k / K). ``clip`` is the largest norm of the gradient of all
    layers, ``decay`` the weight decay. Examples are read in order, unless ``shuffle`` draws another order each
    epoch from ``seed``. ``held`` [m, d] is evaluated on after each epoch, where it is given. ``average`` is the
    decay of a moving average of the weights. ``precision`` is that of autocast, bfloat16 or float16, or full for none. Layers in
    ``frozen``, by place, stay as they are. With ``stop`` a trainer saves in ``folder`` and returns after so many
    micro-batches of a rank; with ``resume`` it goes on from there. ``tokens`` asks for a language model instead:
    a table of logits [V, V], indexed by token, under cross-entropy, the mean over all tokens not masked. With
    ``packing`` its sequences are put whole into rows of so many places at most, ``batch_size`` of them a micro-batch,
    and are trained on as if they were apart. With ``modes`` the layers of ``network()`` put out half as much in
    evaluation mode, as dropout acts in one mode alone.
    """

    start: tuple[Tensor, ...]
    examples: Tensor
    lr: float
    batch_size: int
    epochs: int
    accumulate: int = 1
    clip: float | None = None
    schedule: str = "constant"
    momentum: float = 0.0
    decay: float = 0.0
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    held: Tensor | None = None
    average: float | None = None
    precision: str = "full"
    frozen: tuple[int, ...] = ()
    stop: int | None = None
    resume: bool = False
    ranks: int = 1
    folder: Path = Path()
    tokens: Tokens | None = None
    packing: int | None = None
    modes: bool = False
    _read: set[str] = field(default_factory=set, init=False, repr=False)

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            object.__getattribute__(self, "_read").add(name)
        return object.__getattribute__(self, name)

    def __repr__(self) -> str:
        """What it gives beyond what every training has; to print it is not to read it."""
        given = {name: vars(self)[name] for name in (*OPTIONS[2:REQUIRED], *self._wanted())}
        said = (
            f"{name}={'...' if isinstance(value, Tensor | Tokens) else value}"
            for name, value in given.items()
        )
        return f"Asked({[*vars(self)['examples'].shape]} examples, {', '.join(said)})"

    def __getstate__(self) -> dict[str, Any]:
        self._read.update(OPTIONS)  # whoever takes it elsewhere may read it there
        return {**vars(self), "_read": set()}

    def network(self) -> nn.Module:
        """The network to train, a new one at its start: linear layers, or the table of logits."""
        if vars(self)["tokens"] is not None:  # to be given the table is not yet to take the tokens
            return nn.Embedding.from_pretrained(self.start[0].clone(), freeze=False)
        layers, kind = [], Halved if self.modes else nn.Linear
        for place, weight in enumerate(self.start):
            fan_out, fan_in = weight.shape
            layer = kind(fan_in, fan_out, bias=False, dtype=weight.dtype)
            layer.weight = nn.Parameter(weight.clone(), requires_grad=place not in self.frozen)
            layers.append(layer)
        return nn.Sequential(*layers)

    def copy(self) -> Asked:
        """The same with tensors of its own, nothing of it read."""
        clones = {name: _cloned(getattr(self, name)) for name in OPTIONS}
        return Asked(**clones)

    def _wanted(self) -> list[str]:
        """Names of the options that it gives a value of its own, beyond what every training has."""
        return [
            one.name
            for one in fields(self)
            if one.name in OPTIONS[REQUIRED:]
            and one.name not in ("folder", "seed")
            and not _same(vars(self)[one.name], one.default)
        ]

    @property
    def read(self) -> frozenset[str]:
        """Names of the options that have been looked at."""
        return frozenset(self._read.intersection(OPTIONS))

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two trainings the same."""
        return tuple(_hashable(vars(self)[name]) for name in OPTIONS)

    def unread(self) -> list[str]:
        """Names of the options that it gives and that nobody has read: they are not offered."""
        seen = self.read
        return [name for name in self._wanted() if name not in seen]


OPTIONS = tuple(one.name for one in fields(Asked) if not one.name.startswith("_"))
REQUIRED = OPTIONS.index("epochs") + 1


def _same(value: Any, default: Any) -> bool:
    return value is default or (not isinstance(value, Tensor | Tokens) and bool(value == default))


def _hashable(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.dtype, tuple(value.shape), value.detach().numpy().tobytes()
    if isinstance(value, tuple):
        return tuple(map(_hashable, value))
    return _hashable((value.ids, value.labels)) if isinstance(value, Tokens) else value


def _cloned(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, Tokens):
        return Tokens(_cloned(value.ids), _cloned(value.labels))
    return tuple(map(_cloned, value)) if isinstance(value, tuple) else value


Weights = Tensor | NDArray[Any] | Sequence[Tensor | NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Trained:
    """What a trainer leaves: the layers' weights [out, in] in the order of ``Asked.start``, and what it reports.

    ``steps`` are the optimizer's; ``loss`` the mean over the examples of the last epoch, each at the weights that
    its batch met; ``evaluated`` the last loss on ``held``; ``averaged`` the moving average of the weights. None
    where it does not report them.
    """

    weights: Weights
    steps: int | None = None
    loss: float | None = None
    evaluated: float | None = None
    averaged: Weights | None = None


Fit = Callable[[Asked], Any]


@dataclass(frozen=True, eq=False)
class Left:
    """What a trainer left, as Trained, its weights as tensors on the CPU."""

    weights: list[Tensor]
    steps: int | None
    loss: float | None
    evaluated: float | None
    averaged: list[Tensor] | None


class TrainedError(Exception):
    """What a trainer left is no trained weights; the message says what it is."""


def weights_of(network: nn.Module) -> list[Tensor]:
    """A copy of a network's parameters, in order, on the CPU."""
    return [p.detach().cpu().clone() for p in network.parameters()]


def trained_by(fit: Fit, asked: Asked, reads: set[str] | None = None) -> Left:
    """What a trainer makes of what is asked, its weights as tensors on the CPU; ``reads`` gains what it looked at.

    Raises NotOffered, also for an option that the trainer never reads, TrainedError, and what the trainer raises.
    """
    given = asked.copy()
    try:
        found = fit(given)
    except Exception as error:
        if "tokens" in given.unread():  # it took examples for what they are not
            raise NotOffered("tokens") from error
        raise
    finally:
        (set() if reads is None else reads).update(given.read)
    if unread := given.unread():
        raise NotOffered(", ".join(unread))
    return checked(found, asked)


def attempted(fit: Fit, asked: Asked) -> Left | Exception:
    """What a trainer makes of what is asked, or what it raises, either of which can be sent to another process."""
    try:
        return trained_by(fit, asked)
    except Exception as error:
        return error if _can_be_sent(error) else TrainedError(f"raises {type(error).__name__}: {error}")


def _can_be_sent(error: Exception) -> bool:
    try:
        return isinstance(pickle.loads(pickle.dumps(error)), type(error))
    except Exception:  # one that is made of more than its message
        return False


def checked(found: Any, asked: Asked) -> Left:
    """What was handed back, its weights as tensors on the CPU; raises TrainedError for what are none."""
    trained = found if isinstance(found, Trained) else Trained(found)
    averaged = None if trained.averaged is None else _tensors(trained.averaged, asked, "averaged")
    weights = _tensors(trained.weights, asked, "weights")
    loss, evaluated = _figure(trained.loss, "loss"), _figure(trained.evaluated, "evaluated")
    steps = _figure(trained.steps, "steps")
    return Left(weights, steps if steps is None else _whole(steps), loss, evaluated, averaged)


def _figure(value: Any, what: str) -> float | None:
    """A number, of any library's; None where there is none."""
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainedError(f"{what}: expected a number or None, got {type(value).__name__}") from error


def _whole(steps: float) -> int:
    if not steps.is_integer():
        raise TrainedError(f"steps: expected a whole number, got {steps}")
    return int(steps)


def _tensors(weights: Any, asked: Asked, what: str) -> list[Tensor]:
    several = isinstance(weights, list | tuple)
    shapes = [[*one.shape] for one in asked.start]
    try:
        found = [_tensor(one) for one in (weights if several else [weights])]
    except (TypeError, ValueError, RuntimeError) as error:
        raise TrainedError(
            f"{what}: expected tensors or arrays {shapes}, got {type(weights).__name__}"
        ) from error
    if [[*one.shape] for one in found] != shapes:
        raise TrainedError(f"{what}: expected shapes {shapes}, got {[[*one.shape] for one in found]}")
    if not all(one.is_floating_point() for one in found):
        raise TrainedError(f"{what}: expected floating numbers, got {[*{one.dtype for one in found}]}")
    return found


def _tensor(one: Any) -> Tensor:
    """A copy: what a trainer hands back may be what its next training goes on with."""
    if isinstance(one, Tensor):
        return one.detach().cpu().clone()
    array = np.array(one)  # of any strides, and such as cannot be written to
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))

"""The stack under test: what a user can swap, and how it is named on a command line."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from identity_props.errors import InputError, MissingError


def resolve(name: str) -> Any:
    """The object that ``pkg.mod:Name`` names; raises InputError, or MissingError if pkg is absent."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"expected pkg.mod:Name, such as torch.optim:SGD, got {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingError(f"{name}: there is no module {error.name!r} to import") from error
    except AttributeError as error:
        raise InputError(f"{name}: module {module!r} has no {attribute!r}") from error
    except Exception as error:  # a module of the user's may raise anything while it is imported
        raise InputError(f"{name}: importing {module!r} raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True, eq=False)
class Stack:
    """The implementation that trains: optimizer, linear layer, device and dtype.

    ``optimizer(params, lr=..., **arguments)`` and ``linear(fan_in, fan_out, bias=...)`` are real
    classes or factories; ``optimizer=None`` takes the class that each recipe names, ``lr=None`` its
    rate. Replicas share one optimizer over parameters stacked along a first axis [K, ...] where that
    is the same training, else they train one by one. Raises MissingError for a device that is not
    there, InputError for a part that cannot be called or a dtype that is not floating.
    """

    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    linear: Callable[..., nn.Module] = nn.Linear
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    lr: float | None = None

    def __post_init__(self) -> None:
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise InputError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}") from error
        if device.type == "cuda":
            found = torch.cuda.device_count()
            if (device.index or 0) >= found:
                raise MissingError(
                    f"device {self.device}: torch sees {found} CUDA devices; --device cpu works"
                )
        for name, part in (("optimizer", self.optimizer), ("linear", self.linear)):
            if part is not None and not callable(part):
                raise InputError(f"{name}: expected a class or function, got {part!r}")
        if not self.dtype.is_floating_point:
            raise InputError(f"dtype: expected a floating one, got {self.dtype}")

    def describe(self) -> dict[str, str]:
        """Names of the parts, for results.json."""
        optimizer = "the recipe's" if self.optimizer is None else _name(self.optimizer)
        parts = {"optimizer": optimizer, "linear": _name(self.linear), "device": self.device}
        return parts | {"dtype": str(self.dtype).removeprefix("torch.")}


def _name(part: Callable[..., Any]) -> str:
    return f"{part.__module__}:{getattr(part, '__qualname__', repr(part))}"


DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def arguments_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments from ``key=value`` texts, values as Python literals, else as they are."""
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.isidentifier() and equals):
            raise InputError(f"argument: expected key=value, such as weight_decay=0.1, got {pair!r}")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    return arguments


def stack_of(
    optimizer: str | None = None,
    arguments: Sequence[str] = (),
    linear: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    lr: float | None = None,
) -> Stack:
    """A stack from what a command line says: names as pkg.mod:Name, arguments as key=value."""
    if arguments and optimizer is None:
        raise InputError("optimizer arguments: expected an optimizer that takes them, got none")
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return Stack(
        optimizer=None if optimizer is None else resolve(optimizer),
        arguments=arguments_of(arguments),
        linear=nn.Linear if linear is None else resolve(linear),
        device=device,
        dtype=DTYPES[dtype],
        lr=lr,
    )


def ready(optimizer: Any) -> torch.optim.Optimizer:
    """The optimizer, switched to training where it knows of a difference, as schedule-free ones do."""
    if hasattr(optimizer, "train"):
        optimizer.train()
    return optimizer


def without_eps(optimizer: Callable[..., Any]) -> dict[str, float]:
    """Arguments that take an optimizer's ``eps`` out of the way, where it has one."""
    try:
        takes_eps = "eps" in inspect.signature(optimizer).parameters
    except ValueError:  # no signature to be read
        takes_eps = False
    return {"eps": torch.finfo(torch.float64).tiny} if takes_eps else {}

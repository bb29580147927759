"""The stack under test: what a user can swap, and how it is named on a command line."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
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

"""An optimizer under test, built once before anything is trained: what is given for it may be at fault."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from identity_props.errors import InputError
from identity_props.stack.stack import Stack, part_name
from identity_props.stack.unchanged import unchanged

LR = 1 / 128


def build_once(stack: Stack, what: str = "optimizer") -> Exception | None:
    """What the optimizer's constructor raises of its own, None where it builds one.

    Raises InputError, naming ``what``, for one that is no optimizer, and for arguments or a rate without which
    it would be built.
    """
    if stack.optimizer is None:
        return None
    name = f"{what} {part_name(stack.optimizer)}"
    _check_call(stack, name)
    lr = stack.lr or LR
    error = _raised(stack, stack.arguments, lr)
    if error is None:
        return None
    if isinstance(error, InputError):
        raise InputError(f"{name}: {error}")
    if _raised(stack, {}, lr) is None:
        given = ", ".join(f"{key}={value!r}" for key, value in _blamed(stack, lr).items())
        raise InputError(f"{name}: expected arguments that it takes, got {given}: {error}") from error
    if _raised(stack, stack.arguments, LR) is None:
        raise InputError(f"{name}: expected a rate that it takes, got {lr:g}: {error}") from error
    return error


def _check_call(stack: Stack, name: str) -> None:
    assert stack.optimizer is not None, "build_once has looked"
    if "lr" in stack.arguments:
        raise InputError(f"{name}: expected no lr among its arguments, as it is the stack's own, got one")
    try:
        inspect.signature(stack.optimizer).bind([], lr=LR, **stack.arguments)
    except TypeError as error:
        wanted = ", ".join(("params", "lr", *stack.arguments))
        raise InputError(f"{name}: expected an optimizer that takes ({wanted}): {error}") from error
    except ValueError:  # it has no signature to be read
        pass


def _raised(stack: Stack, arguments: Mapping[str, Any], lr: float) -> Exception | None:
    """What building it with these raises."""
    layer = nn.Parameter(torch.ones(9, 9, device=stack.device, dtype=stack.dtype))
    try:
        with unchanged():
            made = stack.optimizer([layer], lr=lr, **arguments)  # type: ignore[misc]
    except Exception as error:
        return error
    steps = callable(getattr(made, "step", None))
    return (
        None if steps else InputError(f"expected an optimizer, which has a step, got {type(made).__name__}")
    )


def _blamed(stack: Stack, lr: float) -> Mapping[str, Any]:
    """Arguments that it refuses one by one, or all, where it refuses them together."""
    alone = {k: v for k, v in stack.arguments.items() if _raised(stack, {k: v}, lr) is not None}
    return alone or stack.arguments

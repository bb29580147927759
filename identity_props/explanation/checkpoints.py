"""Weights that torch or safetensors saved, read into a module: tensors alone, and nothing is unpickled.

Names are those of the module, or what wrappers make of them: ``module.`` of DataParallel, ``_orig_mod.`` of
torch.compile, and one prefix before all, as ``model.`` of Lightning. A checkpoint may hold more than weights.
"""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from identity_props.errors import InputError, MissingError

WRAPPERS = ("module", "_orig_mod")
SEVERAL = "save the one to be explained alone"

State = dict[str, Tensor]


def unwrapped(model: nn.Module) -> nn.Module:
    """The module that torch.compile or DataParallel was given."""
    while True:
        if isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        elif isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        else:
            return model


def read_into(model: nn.Module, name: str, path: Path) -> None:
    """Give a module the weights of a file; raises InputError for those of another, or what ``read_weights`` refuses."""
    state = read_weights(path)
    try:
        model.load_state_dict(_renamed(state, model.state_dict(), path))
    except InputError:
        raise
    except Exception as error:  # of other names, shapes or kinds
        problem = " ".join(str(error).split()).removeprefix("Error(s) in loading state_dict for ")
        raise InputError(f"--weights {path}: expected those of {name}, got others: {problem}") from error


def _renamed(state: State, wanted: Iterable[str], path: Path) -> State:
    """Weights by the names that are wanted, as they are where that cannot be told."""
    found, names = ({_bare(one): one for one in some} for some in (state, wanted))
    if not names or state.keys() == {*names.values()}:
        return state
    first = next(iter(names))
    before = {one.removesuffix(first) for one in found if one.endswith(first)}
    fitting = sorted(one for one in before if not one or one.endswith("."))
    fitting = [one for one in fitting if all(one + name in found for name in names)]
    if len(fitting) > 1:
        raise InputError(f"--weights {path}: expected one network, got {', '.join(fitting)}; {SEVERAL}")
    if not fitting or (not fitting[0] and len(found) > len(names)):
        return state
    return {own: state[found[fitting[0] + name]] for name, own in names.items()}


def _bare(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def read_weights(path: Path) -> State:
    """Tensors by name of a .safetensors file, or of one that torch.save wrote; nothing is unpickled.

    Of a checkpoint that holds other things too the one state_dict in it. Raises MissingError for a file that is not
    there, InputError for one that is damaged or holds none, or several.
    """
    if not os.path.isfile(path):
        raise MissingError(f"--weights {path}: expected a file, there is none")
    found = (_read_safetensors if path.suffix == ".safetensors" else _read_checkpoint)(path)
    if _is_state(found):
        return found
    held = {
        key: one for key, one in (found.items() if isinstance(found, dict) else ()) if _is_state(one) and one
    }
    if len(held) > 1:
        raise InputError(
            f"--weights {path}: expected one state_dict, got {', '.join(map(str, held))}; {SEVERAL}"
        )
    if not held:
        raise InputError(f"--weights {path}: expected tensors by name, as state_dict() gives them")
    return next(iter(held.values()))


def _is_state(found: Any) -> TypeGuard[State]:
    return isinstance(found, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in found.items()
    )


def _read_safetensors(path: Path) -> State:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # its own, or torch's of what it read
        raise InputError(f"--weights {path}: expected a whole safetensors file, got: {error}") from error


def _read_checkpoint(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol, before it is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        advice = "a pickle can run code, so it is not opened: save state_dict() alone, or safetensors"
        raise InputError(f"--weights {path}: expected tensors alone; {advice}") from error
    except Exception as error:  # what torch.load makes of other bytes, of a dozen kinds
        raise InputError(
            f"--weights {path}: expected a whole file of torch.save, got a damaged one"
        ) from error

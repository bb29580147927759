"""Running averages of batch normalisation, taken anew over the training data."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from identity_props.explanation.readout import CHUNK, dtype_of, evaluating


def normalising(model: nn.Module) -> list[nn.Module]:
    """Modules that keep running averages of what they are given, such as BatchNorm."""
    return [
        module
        for module in model.modules()
        if isinstance(getattr(module, "running_mean", None), Tensor)
        and hasattr(module, "reset_running_stats")
    ]


def recalibrated(model: nn.Module, x: Tensor) -> nn.Module | None:
    """A copy whose running averages are those of x [n, d], each example counted alike; None where there are none."""
    if not normalising(model):
        return None
    copied = copy.deepcopy(model)
    with evaluating(copied), torch.no_grad():
        kept = {module: module.momentum for module in normalising(copied)}
        for module in kept:
            module.reset_running_stats()  # type: ignore[operator]
            module.momentum = None  # type: ignore[assignment] # of all batches the mean
            module.training = True
        for chunk in x.split(CHUNK):
            if len(chunk) == min(CHUNK, len(x)):
                copied(chunk.to(dtype_of(copied)))
        for module, momentum in kept.items():
            module.momentum, module.training = momentum, False
    return copied

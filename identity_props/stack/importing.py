"""Imports that take long, torch's: made without looking for garbage, of which they leave none."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache


@contextmanager
def importing() -> Iterator[None]:
    """No garbage is looked for here, nor later in what was made here: a sixth of the time that torch takes."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collects:
            gc.enable()


@cache
def import_all() -> None:
    """An optimizer's first use imports much of torch, and an import that is cut short leaves ruins."""
    with importing():
        import torch

        torch.optim.SGD([torch.zeros(1)], lr=1)

"""Draws that come from a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Draws of the global generators come from ``seed`` here, and the caller's go on as they were.

    Of torch's on the CPU, and on a GPU where the device is one, of Python's and of numpy's.
    """
    gpus = [device] if torch.device(device).type == "cuda" else []
    with torch.random.fork_rng(devices=gpus), others_kept():
        seed_others(seed)
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            with torch.cuda.device(gpu):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def others_kept() -> Iterator[None]:
    """The global generators of Python and numpy are the caller's again after this."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def seed_others(seed: int) -> None:
    """Seed the global generators of Python and numpy."""
    random.seed(seed)
    np.random.seed(seed % 2**32)

"""What is best done by one thread of several: threads of a busy machine wait for each other longer than they work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def one_thread() -> Iterator[None]:
    """For what is small, or goes step by step."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [d], ascending, and eigenvectors [d, d], as columns, on one thread."""
    with one_thread():
        eigenvalues, v = torch.linalg.eigh(symmetric)
    return eigenvalues, v

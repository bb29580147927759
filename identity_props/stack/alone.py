"""A task in a process: alone there, with so many threads, and with which versions."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version

import torch

PACKAGES = {"identity_props": "identity-props", "torch": "torch", "numpy": "numpy"}


def versions() -> dict[str, str]:
    """Of what decides the bits of a result, here."""
    return {name: _version(package) for name, package in PACKAGES.items()} | {
        "python": platform.python_version()
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


_one_at_a_time = threading.Lock()


@contextmanager
def alone(threads: int) -> Iterator[None]:
    """One task a process: they draw from generators of the process."""
    with _one_at_a_time:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)

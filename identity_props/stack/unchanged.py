"""What training changes in the process that it runs in, put back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from identity_props.stack.seeding import others_kept

TRACE = logging.getLogger("torch.__trace")  # of every recording and compilation; pytest prints pages of it


@contextmanager
def unchanged(threads: int | None = None) -> Iterator[None]:
    """Random numbers, torch's threads and its logging are the caller's again after this, whatever parts do.

    Here torch has as many ``threads``, if they are given, and writes no trace.
    """
    before, level = torch.get_num_threads(), TRACE.level
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    TRACE.setLevel(logging.CRITICAL)
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices), others_kept():
            yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)
        TRACE.setLevel(level)

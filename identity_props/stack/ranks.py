"""Data-parallel ranks: spawned processes in one gloo group, and the share of a loss that each takes.

The processes stay for the next call; an error in one of them ends them all.
"""

from __future__ import annotations

import atexit
import os
import pickle
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from datetime import timedelta
from multiprocessing.util import Finalize
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from identity_props.errors import InputError
from identity_props.stack.guard import alive, limit_in_force, no_forks, time_limit
from identity_props.stack.processes import FOLDERS, workers

COLLECTIVE_TIMEOUT = timedelta(minutes=5)  # a rank waits that long for the others
_groups: dict[int, list[ProcessPoolExecutor]] = {}
_inside = False


def inside() -> bool:
    """Whether this process is a rank."""
    return _inside


def on_ranks(ranks: int, call: Callable[..., Any], *arguments: Any) -> list[Any]:
    """What ``call(*arguments)`` returns on each rank.

    Raises InputError for arguments that cannot be sent, else what a rank raised. The limit in seconds
    that is in force here holds on each rank.
    """
    try:
        work = pickle.dumps((call, arguments))
    except Exception as error:  # of several types
        raise InputError(f"ranks: expected parts that another process can import, got: {error}") from error
    group = _groups.get(ranks) or _start(ranks)
    futures = [rank.submit(_call, limit_in_force(), work) for rank in group]
    try:
        _wait(futures)
        return [future.result() for future in futures]
    except BaseException:
        _stop(ranks)
        raise


def _wait(futures: Collection[Future[Any]]) -> None:
    """Until all are done or one raises; the limit on steps is kept by the ranks, not here."""
    pending: Collection[Future[Any]] = futures
    while pending:
        alive()
        done, pending = wait(pending, timeout=0.5, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()  # the first error, before what its loss does to the other ranks


def _start(ranks: int) -> list[ProcessPoolExecutor]:
    folder = tempfile.mkdtemp(prefix="identity-ranks-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    FOLDERS.append(folder)
    threads = max(1, torch.get_num_threads() // ranks)
    group = [workers(1, _join, rank, ranks, folder, threads) for rank in range(ranks)]
    _groups[ranks] = group
    # a worker process waits for its children before it ends, and closes its queues to them, at 10, before that
    Finalize(None, _stop, (ranks, True), exitpriority=20)
    return group


def _stop(ranks: int, wait: bool = False) -> None:
    """Idle ranks end at once; a rank that waits for them gets an error from gloo, and ends too."""
    for rank in _groups.pop(ranks, ()):
        rank.shutdown(wait, cancel_futures=True)


def _join(rank: int, ranks: int, folder: str, threads: int) -> None:
    global _inside
    _inside = True
    FOLDERS.append(folder)
    torch.set_num_threads(threads)
    store = "file://" + os.path.join(folder, "store")
    distributed.init_process_group("gloo", store, rank=rank, world_size=ranks, timeout=COLLECTIVE_TIMEOUT)


def _call(seconds: float, work: bytes) -> Any:
    call, arguments = pickle.loads(work)
    with time_limit(seconds), no_forks():
        return call(*arguments)


class Share(nn.Module):
    """A rank's share of a loss: of its own examples alone, weighted so that the ranks' mean is the whole."""

    def __init__(self, leaves: Mapping[str, nn.Parameter], loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss
        for name, leaf in leaves.items():
            self.register_parameter(name.replace(".", "/"), leaf)

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """[..., n, d] of all ranks, cut along n as evenly as it goes; a rank without examples adds 0."""
        rank, ranks, n = distributed.get_rank(), distributed.get_world_size(), x.shape[-2]
        first, last = n * rank // ranks, n * (rank + 1) // ranks
        rows = slice(first, max(last, first + 1)) if first < n else slice(0, 1)
        share = self.loss(x[..., rows, :], target[..., rows, :])
        return share * (ranks * (last - first) / n)


def data_parallel(
    leaves: Mapping[str, nn.Parameter], loss: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss through DistributedDataParallel, whose backward pass leaves each rank the mean gradient."""
    wrapped: Callable[[Tensor, Tensor], Tensor] = DistributedDataParallel(Share(leaves, loss))
    return wrapped

"""Judging many claims at once: their trials shared, spread over processes, with progress.

A trial that several claims need is trained once for the same seeds. Worker processes train, one
share of the cores each; the verdicts are made here.
"""

from __future__ import annotations

import os
import pickle
import queue
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from functools import partial
from threading import Event, Lock
from typing import Any

import torch

from identity_props.claims.registry import Claim
from identity_props.claims.verdict import Outcome, judge
from identity_props.engine.training import flushed_denormals, train
from identity_props.engine.trial import Run, Trial
from identity_props.errors import InputError
from identity_props.explanation.explain import Explanation
from identity_props.explanation.explain import explain as explain_network
from identity_props.explanation.networks import network_of
from identity_props.stack.crews import Cluster, Say
from identity_props.stack.importing import import_all
from identity_props.stack.processes import SPAWN, Leash, Unnamed, workers
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels
from identity_props.task.models import Variant

REPORT_EVERY = 50  # optimizer steps between two reports of a worker
WIDE = 300  # pixels; on fewer, threads wait for each other longer than they work


class StoppedError(Exception):
    """Training was told to stop before its budget was used up."""


@dataclass(frozen=True)
class Progress:
    """Optimizer steps done and planned so far (undecided claims add to the plan)."""

    done: int
    planned: int


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_jobs(stack: Stack, claims: Sequence[Claim], pixels: Pixels) -> int:
    """Processes that train: one a core, though no more than there are trials, or one in all on a GPU."""
    if torch.device(stack.device).type == "cuda":
        return 1
    return min(cores(), len(_trials(claims, pixels)))


def _trials(claims: Sequence[Claim], pixels: Pixels) -> set[Trial]:
    return {trial for claim in claims for trial in claim.plan(pixels)}


def threads(jobs: int, pixels: Pixels) -> int:
    """Threads of each of ``jobs`` processes: its share of the cores, or one where layers are narrow."""
    return max(1, cores() // jobs) if pixels.d >= WIDE else 1


def judge_all(
    claims: Sequence[Claim],
    pixels: Pixels,
    stack: Stack | None = None,
    replicas: int = 8,
    seed: int = 0,
    jobs: int | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    explained: bool = False,
    scheduler: str | None = None,
    say: Say = lambda line: None,
) -> Iterator[Outcome]:
    """Judge claims side by side and yield each outcome as it is known.

    ``jobs`` processes train, by default as ``default_jobs`` has it; 1 trains in this process. With a
    ``scheduler``, an address, the workers of its Dask cluster do, and ``say`` is told where there is none. With
    ``explained`` the first replica of each claim is, unless it diverged. Closing the iterator, or an
    exception such as Ctrl-C, stops all training: worker processes at once, as when this one is killed,
    a thread within REPORT_EVERY steps. Raises InputError for no claims, jobs below 1 or what ``judge`` refuses.
    """
    if not claims:
        raise InputError("claims: expected at least one, got none")
    if jobs is not None and jobs < 1:
        raise InputError(f"jobs: expected at least 1, got {jobs}")
    stack = stack or Stack()
    jobs = jobs or default_jobs(stack, claims, pixels)
    crew = _Crew(pixels, stack, jobs, seed if explained else None, scheduler, say)
    judges = ThreadPoolExecutor(len(claims))
    try:
        crew.prepare(_trials(claims, pixels), range(seed, seed + replicas))
        pending = {judges.submit(judge, claim, pixels, crew.train, replicas, seed) for claim in claims}
        while pending:
            done, pending = wait(pending, timeout=0.1, return_when=FIRST_COMPLETED)
            crew.alive()
            on_progress(crew.progress())
            yield from (crew.explained(future.result()) for future in done)
    except BaseException:
        crew.stop()
        raise
    finally:
        crew.close()
        judges.shutdown(cancel_futures=True)


class _Crew:
    """Workers that train each (trial, seeds) once, and count their steps."""

    def __init__(
        self, pixels: Pixels, stack: Stack, jobs: int, explain: int | None, scheduler: str | None, say: Say
    ) -> None:
        self.pixels, self.explain = pixels, explain  # the seed that is explained
        self.explanations = dict[Trial, Explanation]()
        self.lock, self.futures = Lock(), dict[tuple[Trial, tuple[int, ...]], Future[bytes]]()
        self.done = self.planned = 0
        self.examples = len(pixels.train)
        self.stop: Callable[[], None]
        self.steps: Any
        self.executor: Executor
        self.cluster: Cluster | None = None
        if scheduler is not None:
            self.cluster = Cluster((pixels, stack), scheduler, threads(cores(), pixels), say)
            self.stop = self.cluster.stop
            return
        # in a file: tensors sent as such would pass through shared memory, which may be small, and a process
        # that is sent much keeps the next from starting until it has imported torch
        self.work = Unnamed.of(partial(pickle.dump, (pixels, stack)))
        self.threads_before, each = torch.get_num_threads(), threads(jobs, pixels)
        if jobs == 1:
            self.stop, self.steps = (stopping := Event()).set, queue.SimpleQueue()
            start = self.work, self.steps, stopping, each
            self.executor = ThreadPoolExecutor(1, "train", _start, start)
        else:
            self.stop, self.steps = (leash := Leash()).let_go, SPAWN.SimpleQueue()
            self.executor = workers(jobs, _start_process, self.work, self.steps, each, leash=leash)

    def prepare(self, trials: Iterable[Trial], seeds: Sequence[int]) -> None:
        """Hand out trials, the longest first so that none is left running alone at the end."""

        def cost(trial: Trial) -> int:
            return trial.steps * trial.variant.depth * (trial.recipe.batch_size or self.examples)

        for trial in sorted(trials, key=cost, reverse=True):
            self._submit(trial, tuple(seeds))

    def train(self, trials: Sequence[Trial], seeds: Sequence[int]) -> list[Run]:
        """The trainer for ``judge``: waits for the runs, which come without their parameters."""
        futures = [self._submit(trial, tuple(seeds)) for trial in trials]
        runs = []
        for trial, future in zip(trials, futures, strict=True):
            run, explanation = pickle.loads(future.result())
            runs.append(run)
            if explanation is not None:
                self.explanations[trial] = explanation
        return runs

    def explained(self, outcome: Outcome) -> Outcome:
        """The outcome with what was found of its first replica, if that was asked for."""
        return replace(outcome, explanation=self.explanations.get(outcome.claim.plan(self.pixels)[0]))

    def _submit(self, trial: Trial, seeds: tuple[int, ...]) -> Future[bytes]:
        with self.lock:
            if (trial, seeds) not in self.futures:
                self.planned += trial.steps
                self.futures[trial, seeds] = self._submitted(trial, seeds)
            return self.futures[trial, seeds]

    def _submitted(self, trial: Trial, seeds: tuple[int, ...]) -> Future[bytes]:
        if self.cluster is None:
            return self.executor.submit(_train, trial, seeds, self.explain)
        future = self.cluster.submit(_train_held, trial, seeds, self.explain)
        future.add_done_callback(lambda _: self._heard(trial.steps))
        return future

    def _heard(self, steps: int) -> None:
        with self.lock:
            self.done += steps

    def alive(self) -> None:
        """Raise MissingError where a cluster is gone."""
        if self.cluster is not None:
            self.cluster.alive()

    def progress(self) -> Progress:
        while self.cluster is None and not self.steps.empty():
            self.done += self.steps.get()
        return Progress(self.done, self.planned)

    def close(self) -> None:
        if self.cluster is not None:
            self.cluster.close()
            return
        self.executor.shutdown(cancel_futures=True)
        self.work.close()
        torch.set_num_threads(self.threads_before)  # which one job changes in this process


_work: tuple[Pixels, Stack, Any, Event]  # of this worker


def _start(work: Unnamed, steps: Any, stopping: Event, threads_each: int) -> None:
    global _work
    torch.set_num_threads(threads_each)
    torch.set_flush_denormal(True)  # before this thread has others that help it, which inherit it
    _work = (*pickle.loads(work.read_bytes()), steps, stopping)


def _start_process(work: Unnamed, steps: Any, threads_each: int) -> None:
    import_all()
    _start(work, steps, Event(), threads_each)


def _train(trial: Trial, seeds: tuple[int, ...], explain: int | None) -> bytes:
    pixels, stack, steps, stopping = _work

    def on_step(step: int) -> None:
        done = step + 1
        if done % REPORT_EVERY and done != trial.steps:
            return
        if stopping.is_set():
            raise StoppedError
        steps.put(done % REPORT_EVERY or REPORT_EVERY)

    return _dumped(trial, pixels, seeds, stack, explain, on_step)


@flushed_denormals(helpers=True)
def _train_held(
    held: tuple[Pixels, Stack], trial: Trial, seeds: tuple[int, ...], explain: int | None
) -> bytes:
    return _dumped(trial, held[0], seeds, held[1], explain)


def _dumped(
    trial: Trial,
    pixels: Pixels,
    seeds: tuple[int, ...],
    stack: Stack,
    explain: int | None,
    on_step: Callable[[int], None] | None = None,
) -> bytes:
    run = train(trial, pixels, seeds, stack, on_step)
    found = _explained(trial, pixels, run, seeds.index(explain)) if explain in seeds else None
    return pickle.dumps((replace(run, state={}), found))


def _explained(trial: Trial, pixels: Pixels, run: Run, k: int) -> Explanation | None:
    """What is found of replica k, None where it diverged or is of a kind that has no parts."""
    if bool(run.diverged[k]) or type(trial.variant) is not Variant:
        return None
    network, scaled = network_of(trial, pixels.d, run, k), pixels.scaled(trial.variant.scaling)
    name = f"{trial.variant.name}, depth {trial.variant.depth}"
    return explain_network(network, scaled, trial.recipe, name, run.seeds[k])

"""What processes and a Dask cluster bring and cost, on one machine.

python benchmarks/cluster.py

First the same cells of the question's preset, a task each, in one process, in two, and through Dask's LocalCluster with two
workers of one thread. The three take turns, each is timed from when all of it is warm, and ratios are medians over
rounds. It wants two idle cores, and some ten minutes of them.

Then tasks that return at once, with the arguments and the rows of a group of six cells, on a scheduler and two workers in
processes of their own: messages and bytes by Dask's own counters, processor time by the processes' own clocks.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package of this checkout, installed or not

from distributed import LocalCluster

from identity_props.atlas.axes import Cell, grids
from identity_props.atlas.exploring import Plan, explored
from identity_props.atlas.store import VERSIONS, Atlas, Settings, row
from identity_props.stack.alone import versions
from identity_props.stack.cluster import Cluster
from identity_props.stack.crews import Crew, crew, each
from identity_props.task.data import Pixels, digits

SETTINGS = Settings("digits", 7, "", 1250, 16, 0)
GROUP = 6  # cells of a task, as the cache of a usual CPU has them together


def some_cells(count: int) -> list[Cell]:
    """As many cells of the preset, evenly spread over it."""
    plan = Plan(grids("question", {}, 49), SETTINGS)
    every = [cell for grid in plan.grids for line in grid.lines(plan.d) for cell in line]
    return [every[len(every) * k // count] for k in range(count)]


# Times -------------------------------------------------------------------------------------------------------


@contextmanager
def one(pixels: Pixels) -> Iterator[Crew]:
    """The process that this is."""
    with crew(pixels, 1, 1) as made:
        yield made


@contextmanager
def two(pixels: Pixels) -> Iterator[Crew]:
    """Two of this machine."""
    with crew(pixels, 2, 1) as made:
        yield made


@contextmanager
def dask(pixels: Pixels) -> Iterator[Crew]:
    """Two workers of a cluster."""
    local = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**local) as cluster, crew(pixels, 1, 1, cluster.scheduler_address) as made:
        yield made


WAYS: dict[str, tuple[Callable[[Pixels], Any], int]] = {"one process": (one, 1), "two processes": (two, 2)}
WAYS["Dask, two workers"] = dask, 2


def met(pixels: Pixels, folder: Path, count: int, cell: Cell) -> None:
    """Wait for the others, so that each process has one such task; then train a little, which imports the rest."""
    (folder / str(os.getpid())).touch()
    while len(os.listdir(folder)) < count:
        time.sleep(0.05)
    explored(pixels, [cell], replace(SETTINGS, steps=2))


def seconds(way: str, pixels: Pixels, cells: Sequence[Cell], settings: Settings) -> float:
    """That cells take, trained and kept."""
    made, count = WAYS[way]
    with made(pixels) as workers, TemporaryDirectory() as meeting, TemporaryDirectory() as kept:
        for _ in each(workers, met, [(Path(meeting), count, cells[0])] * count):
            pass
        atlas, began = Atlas(Path(kept)), time.perf_counter()
        for _, rows in each(workers, explored, (([cell], settings) for cell in cells)):
            atlas.add(rows)
        return time.perf_counter() - began


def times(cells: Sequence[Cell], rounds: int, settings: Settings) -> dict[str, list[float]]:
    """Seconds by way, a round each."""
    pixels, found = digits(7), {way: list[float]() for way in WAYS}
    for k in range(rounds):
        for way, taken in found.items():
            taken.append(seconds(way, pixels, cells, settings))
            print(f"round {k + 1}, {len(cells)} cells, {way}: {taken[-1]:.1f} s", flush=True)
    return found


def told_of_times(found: dict[str, list[float]]) -> Iterator[str]:
    """Ratios as text."""
    alone, both, cluster = found.values()
    for name, over, under in (
        ("one process / two", alone, both),
        ("Dask with two workers / two processes", cluster, both),
    ):
        ratios = [a / b for a, b in zip(over, under, strict=True)]
        yield f"{name}: {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})"


# A task --------------------------------------------------------------------------------------------------------


@contextmanager
def started(folder: Path) -> Iterator[str]:
    """The address of a scheduler that has two workers, each in a process of its own."""
    file = folder / "scheduler.json"
    local = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    worker = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(folder)]
    with ExitStack() as stack:
        run(stack, "dask_scheduler", *local)
        while not (file.exists() and file.read_text().endswith("}")):
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        for _ in range(2):
            run(stack, "dask_worker", address, *worker)
        yield address


def run(stack: ExitStack, module: str, *arguments: str) -> None:
    """Start a command of Dask, until the stack ends."""
    code = f"from distributed.cli.{module} import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def at_once(rows: Sequence[dict[str, Any]], cells: Sequence[Cell], settings: Settings) -> Any:
    """A task that takes what a group does, and returns rows as one does."""
    return rows


def of_scheduler(dask_scheduler: Any) -> dict[str, float]:
    """What it has sent."""
    comms = [*dask_scheduler.client_comms.values(), *dask_scheduler.stream_comms.values()]
    return sent(comms) | {"seconds": time.process_time()}


def of_worker(dask_worker: Any) -> dict[str, float]:
    """What it has sent to the scheduler."""
    return sent([dask_worker.batched_stream]) | {"seconds": time.process_time()}


def sent(streams: Sequence[Any]) -> dict[str, float]:
    """Messages and bytes that Dask counted on its streams."""
    return {
        "messages": sum(one.message_count for one in streams),
        "bytes": sum(one.byte_count for one in streams),
    }


def counted(cluster: Cluster) -> dict[str, dict[str, float]]:
    """What scheduler, workers and this process have sent, and their processor time, up to now."""
    workers = cluster.client.run(of_worker).values()
    return {
        "scheduler": cluster.client.run_on_scheduler(of_scheduler),
        "workers": {name: sum(one[name] for one in workers) for name in ("messages", "bytes", "seconds")},
        "here": sent([cluster.client.scheduler_comm]) | {"seconds": time.process_time()},
    }


def a_task(cells: Sequence[Cell], tasks: int) -> dict[str, dict[str, float]]:
    """Messages, bytes and seconds a task, of the scheduler, of both workers, and here, beside a result's own bytes."""
    rows = rows_of(cells)
    given = (cells, SETTINGS)
    with (
        TemporaryDirectory() as folder,
        started(Path(folder)) as address,
        crew(rows, 1, 1, address) as cluster,
    ):
        assert isinstance(cluster, Cluster)
        cluster.client.wait_for_workers(2)
        done = [*each(cluster, at_once, [given] * 20)]
        before = counted(cluster)
        done += each(cluster, at_once, [given] * tasks)
        after = counted(cluster)
    found = {
        who: {what: (after[who][what] - before[who][what]) / tasks for what in after[who]} for who in after
    }
    return found | {"result": {"bytes": float(len(pickle.dumps(rows)))}}


def rows_of(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """Rows as large as those of cells that were trained."""
    made = {name: versions()[name] for name in VERSIONS} | {"threads": 1}
    numbers = iter(range(1, 10_000))  # none is there twice, or pickle would send it once

    def drawn(count: int) -> list[float]:
        return [1 / next(numbers) for _ in range(count)]

    steps = [2**k for k in range(13)]
    return [
        row(
            cell,
            SETTINGS,
            {"fvu": drawn(16), "reached": [-1] * 16, "measured": steps, "curve": drawn(13), "seconds": 1.0},
            made,
        )
        for cell in cells
    ]


def written(cells: Sequence[Cell], files: int) -> tuple[float, float]:
    """Seconds and processor seconds that a group of cells takes to be kept."""
    rows = rows_of(cells)
    with TemporaryDirectory(dir=".") as folder:
        atlas, began, worked = Atlas(Path(folder)), time.perf_counter(), time.process_time()
        for _ in range(files):
            atlas.add(rows)
        return (time.perf_counter() - began) / files, (time.process_time() - worked) / files


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=40, help="of the preset that are timed; 0: none")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="of each of them")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=500, help="that return at once; 0: none")
    given = parser.parse_args()
    if given.cells:
        found = times(some_cells(given.cells), given.rounds, replace(SETTINGS, steps=given.steps))
        print(*told_of_times(found), sep="\n")
    if given.tasks:
        for who, figures in a_task(some_cells(GROUP), given.tasks).items():
            print(f"a task, {who}:", ", ".join(f"{value:.4g} {what}" for what, value in figures.items()))
        wall, processor = written(some_cells(GROUP), given.tasks)
        print(f"a task, kept: {1e3 * wall:.1f} ms, of them {1e3 * processor:.1f} ms of a processor")


if __name__ == "__main__":
    main()

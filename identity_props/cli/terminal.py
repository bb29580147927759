"""What the commands have in common: exit codes, options, and what goes to stdout and stderr."""

from __future__ import annotations

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import click

from identity_props.cli.given import PATH, SEED, SHAPE

ALL_HOLD, ONE_FAILS, BAD_INPUT, INTERRUPTED, PIPE_CLOSED = 0, 1, 2, 130, 141

OPTIONS = {  # that several commands have
    "data": click.option(
        "--data",
        default="digits",
        show_default=True,
        metavar="digits|mnist|FILE",
        help="Rendered digits, MNIST, or examples of your own, one a row: .npy, .npz, .csv, .parquet,"
        " .safetensors or a folder of images.",
    ),
    "test": click.option(
        "--test",
        type=PATH,
        metavar="FILE",
        help="Those of a file's examples that are for test.  [default: every fifth, drawn by the seed]",
    ),
    "shape": click.option(
        "--shape", type=SHAPE, help="Height and width where a file's rows are pictures, such as 28x28."
    ),
    "side": click.option(
        "--side",
        type=click.Choice(["7", "14", "28"]),
        default="7",
        show_default=True,
        help="Pixels a side of digits and MNIST, pooled from 28; 14 takes minutes, 28 hours.",
    ),
    "data_dir": click.option(
        "--data-dir",
        type=PATH,
        help="Folder that holds MNIST/raw.  [default: $IDENTITY_PROPS_DATA, else ~/.cache/identity-props]",
    ),
    "download": click.option("--download", is_flag=True, help="Allow MNIST to be downloaded there."),
    "claims": click.option(
        "--claims",
        metavar="PATTERN",
        help="Only claims matching shell patterns, such as 'linear-*,residual-4'.",
    ),
    "slow": click.option("--slow", is_flag=True, help="Also the claims that take an hour."),
    "seed": click.option(
        "--seed",
        type=SEED,
        default=0,
        show_default=True,
        help="Seed of the first network; others follow it.",
    ),
    "device": click.option(
        "--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N", help="Where to train."
    ),
    "jobs": click.option(
        "--jobs", type=click.IntRange(min=1), help="Processes that train.  [default: one a core; 1 on a GPU]"
    ),
    "scheduler": click.option(
        "--scheduler", metavar="tcp://HOST:8786", help="Train on the workers of a Dask cluster."
    ),
}


def options(*names: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Those of OPTIONS with these names, in this order."""

    def add(command: Callable[..., int]) -> Callable[..., int]:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add


@contextmanager
def bar(of: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """A bar on stderr where that is a terminal: what moves it, (done, planned), and what prints a line above."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console, started = Console(stderr=True), time.monotonic()
    figures = f"{{task.completed:,.0f}} of {{task.total:,.0f}} {of}, {{task.fields[rate]:,.3g}}/s, left"
    columns = (BarColumn(), TextColumn(figures), TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as shown:
        task = shown.add_task("", total=1, rate=0)

        def move(done: int, planned: int) -> None:
            shown.update(task, completed=done, total=planned, rate=done / (time.monotonic() - started))

        above = partial(console.print, highlight=False)
        yield move, above if console.is_terminal else say


def show(result: Any) -> None:
    """Print a table, or a document as JSON, to stdout."""
    from rich.console import Console

    if isinstance(result, dict):
        put(json.dumps(result, indent=2, allow_nan=False))
        return
    shown = io.StringIO()
    Console(file=shown, force_terminal=bool(sys.stdout and sys.stdout.isatty())).print(result)
    put(shown.getvalue().removesuffix("\n"))


lost: list[OSError] = []  # what kept stdout from being written to; files are still, and main returns its code


def put(text: str) -> None:
    """Print lines to stdout, or nowhere from the first that its reader or disk does not take."""
    try:
        click.echo(text)
    except OSError as error:
        lost.append(error)
        drop(sys.stdout)


def say(message: str) -> None:
    """Print a line to stderr, if that takes it."""
    try:
        click.echo(message, err=True)
    except OSError:
        drop(sys.stderr)


def drop(stream: Any) -> None:
    """Send what is left to nowhere, or Python complains of it as it ends."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

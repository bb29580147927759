"""The command ``identity-props atlas``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from identity_props.atlas.axes import AXES, PRESETS
from identity_props.cli import mapping
from identity_props.cli.given import PATH
from identity_props.cli.terminal import ALL_HOLD, INTERRUPTED, options, say
from identity_props.errors import InputError


def axes(command: Callable[..., int]) -> Callable[..., int]:
    """One option an axis."""
    for name, axis in reversed(AXES.items()):
        told = f"{axis.help}  [default: {axis.default}]" if axis.default else axis.help
        command = click.option(f"--{name}", name, metavar="VALUES", help=told)(command)
    return command


@click.command()
@click.option(
    "--preset",
    metavar="NAME",
    help=f"Axes by name: {', '.join(PRESETS)}; one given beside it replaces its own.",
)
@axes
@click.option(
    "--replicas", type=click.IntRange(1, 4096), default=16, show_default=True, help="Networks a cell."
)
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps a cell.  [default: those of `run`]")
@options("data", "side", "data_dir", "download", "seed", "jobs", "scheduler")
@click.option(
    "--out",
    type=PATH,
    default="atlas",
    show_default=True,
    help="Folder of the atlas; one that is there goes on.",
)
@click.option("--mix", is_flag=True, help="Go on although what is there was made by other versions.")
@click.option("--yes", is_flag=True, help="Start although it takes more than a day.")
@click.option("--json", "as_json", is_flag=True, help="Print what decides as JSON.")
def atlas(
    data: str,
    side: str,
    data_dir: Path | None,
    download: bool,
    jobs: int | None,
    scheduler: str | None,
    out: Path,
    mix: bool,
    yes: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Map where the identity is learned: every cell of the axes is trained, kept, and shown on a page.

    Values are lists such as 1,4 and ranges such as 1:8; of rates low:high:count. Whatever ends it, what is
    finished is kept, and the same command, or one with other axes, goes on. See `advise`.
    """
    from identity_props.atlas import store
    from identity_props.claims.running import cores
    from identity_props.report import files
    from identity_props.task.reading import load

    store.arrow()
    pixels = load(data, int(side), data_dir, download)
    plan = mapping.plan_of(pixels, data, int(side), **given)
    plan.check()
    jobs = jobs or cores()
    files.make(out)
    kept = store.Atlas(out)
    finished = mapping.finished(kept, mix)
    left, count = mapping.left(plan, finished), plan.count()
    seconds = plan.seconds(len(pixels.train)) * left / max(count, 1) / (jobs if scheduler is None else 1)
    told = f", {count - left:,} of them finished" if left < count else ""
    say(f"{count:,} cells of {plan.settings.replicas} networks{told}: {mapping.long(seconds)}")
    if seconds > mapping.DAY and not yes:
        raise InputError(
            f"cells: expected what takes a day at most, got {mapping.long(seconds)}; --yes starts it all the same"
        )
    interrupted = mapping.explored(plan, kept, finished, left, pixels, jobs, scheduler)
    kept.tidied()
    mapping.told(kept, plan, pixels, jobs, as_json)
    return INTERRUPTED if interrupted else ALL_HOLD

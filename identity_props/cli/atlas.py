"""The command ``identity-props atlas``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.atlas.axes import AXES, PRESETS
from identity_props.cli.given import PATH
from identity_props.cli.terminal import ALL_HOLD, INTERRUPTED, bar, options, put, say, show
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.atlas.exploring import Plan
    from identity_props.atlas.store import Atlas
    from identity_props.task.data import Pixels

DAY = 86_400


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
    plan = _plan(pixels, data, int(side), **given)
    plan.check()
    jobs = jobs or cores()
    files.make(out)
    kept = store.Atlas(out)
    finished = _finished(kept, mix)
    seconds = plan.seconds(len(pixels.train)) / (jobs if scheduler is None else 1)
    left = f"; {len(finished):,} cells are there" if len(finished) else ""
    say(f"{plan.count():,} cells of {plan.settings.replicas} networks, {_long(seconds)} in all{left}")
    if seconds > DAY and not yes:
        raise InputError(
            f"cells: expected what takes a day at most, got {_long(seconds)}; --yes starts it all the same"
        )
    interrupted = _explored(plan, kept, finished, pixels, jobs, scheduler)
    kept.tidied()
    _told(kept, plan, pixels, jobs, as_json)
    return INTERRUPTED if interrupted else ALL_HOLD


def _plan(
    pixels: Pixels,
    data: str,
    side: int,
    preset: str | None,
    replicas: int,
    steps: int | None,
    seed: int,
    **given: str | None,
) -> Plan:
    from identity_props.atlas.axes import grids
    from identity_props.atlas.exploring import Plan
    from identity_props.atlas.store import Settings
    from identity_props.claims.registry import budget

    texts = {name: text for name, text in given.items() if text is not None}
    settings = Settings(data, side, pixels.fingerprint, steps or budget(pixels.d), replicas, seed)
    return Plan(grids(preset, texts, pixels.d), settings)


def _finished(kept: Atlas, mix: bool) -> Any:
    from identity_props.atlas.store import VERSIONS
    from identity_props.stack.crews import versions

    here = tuple(versions()[name] for name in VERSIONS)
    others = sorted(kept.versions() - {here})
    if others and not mix:
        there = ", ".join(
            f"{name} {v}" for name, v, w in zip(VERSIONS, others[0], here, strict=True) if v != w
        )
        raise InputError(
            f"{kept.path}: made by {there}, and here are others; another --out, or --mix, goes on"
        )
    return kept.keys()


def _long(seconds: float) -> str:
    unit, size = next(
        ((u, s) for u, s in (("days", DAY), ("hours", 3600), ("minutes", 60)) if seconds >= s), ("seconds", 1)
    )
    return f"some {max(1, round(seconds / size)):,} {unit}"


def _explored(
    plan: Plan, kept: Atlas, finished: Any, pixels: Pixels, jobs: int, scheduler: str | None
) -> bool:
    """Train what is left; whether it was interrupted."""
    from identity_props.atlas.exploring import explore
    from identity_props.claims.running import threads
    from identity_props.stack.crews import crew

    done = 0
    with bar("cells") as (move, line):
        try:
            with crew(pixels, jobs, threads(jobs, pixels), scheduler) as workers:
                for count in explore(plan, kept, workers, finished):
                    done += count
                    move(done, max(plan.count() - len(finished), done))
        except KeyboardInterrupt:
            line(f"interrupted: {done:,} cells more are kept")
            return True
    say(f"{done:,} cells trained")
    return False


def _told(kept: Atlas, plan: Plan, pixels: Pixels, jobs: int, as_json: bool) -> None:
    from identity_props.atlas.reading import seen
    from identity_props.report import atlas as report
    from identity_props.report import documents, files, page
    from identity_props.stack.stack import Stack

    cells = [*seen(one for one in kept.unique() if one["fingerprint"] == plan.settings.fingerprint)]
    if not cells:
        return
    context = documents.context(pixels, Stack(), plan.settings.seed, jobs)
    made = report.document(cells, context)
    html = files.replace_file(kept.path / page.FILE, report.page(cells, pixels, context))
    show(made) if as_json else put(made["says"])
    say(f"wrote {html}")

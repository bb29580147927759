"""What `atlas` does between its options and its page: the plan, what is finished, and the bar."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from identity_props.cli.terminal import bar, put, say, show
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.atlas.exploring import Plan
    from identity_props.atlas.store import Atlas
    from identity_props.task.data import Pixels

DAY = 86_400
TOLD = 100_000  # cells that are read for the page, each of some kB


def plan_of(
    pixels: Pixels,
    data: str,
    side: int,
    preset: str | None,
    replicas: int,
    steps: int | None,
    seed: int,
    **given: str | None,
) -> Plan:
    """The plan, from texts by axis."""
    from identity_props.atlas.axes import grids
    from identity_props.atlas.exploring import Plan
    from identity_props.atlas.store import Settings
    from identity_props.claims.registry import budget

    texts = {name: text for name, text in given.items() if text is not None}
    settings = Settings(data, side, pixels.fingerprint, steps or budget(pixels.d), replicas, seed)
    return Plan(grids(preset, texts, pixels.d), settings)


def finished(kept: Atlas, mix: bool) -> Any:
    """Keys of the cells that are there; raises InputError where other versions made them."""
    from identity_props.atlas.store import VERSIONS
    from identity_props.stack.alone import versions

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


def left(plan: Plan, finished: Any) -> int:
    """Cells that are left; of more than are told, all of them, as nobody waits for a count."""
    if plan.count() > TOLD:
        return plan.count()
    return sum(len(group) for group in plan.groups(finished))


def long(seconds: float) -> str:
    """A duration in words."""
    unit, size = next(
        ((u, s) for u, s in (("days", DAY), ("hours", 3600), ("minutes", 60)) if seconds >= s), ("seconds", 1)
    )
    return f"some {max(1, round(seconds / size)):,} {unit}"


def explored(
    plan: Plan, kept: Atlas, finished: Any, planned: int, pixels: Pixels, jobs: int, scheduler: str | None
) -> bool:
    """Train what is left; whether it was interrupted."""
    from identity_props.atlas.exploring import explore
    from identity_props.claims.running import threads
    from identity_props.stack.crews import crew

    done = 0
    with bar("cells") as (move, line):
        try:
            with crew(pixels, jobs, threads(jobs, pixels), scheduler, line) as workers:
                for count in explore(plan, kept, workers, finished):
                    if (done + count) * 10 // planned > done * 10 // planned:
                        line(f"{done + count:,} of {planned:,} cells")
                    done += count
                    move(done, planned)
        except KeyboardInterrupt:
            line(f"interrupted: {done:,} cells more are kept")
            return True
    say(f"{done:,} cells trained")
    return False


def told(kept: Atlas, plan: Plan, pixels: Pixels, jobs: int, as_json: bool) -> None:
    """Write the page of what is there, and say what decides."""
    from identity_props.atlas.reading import seen
    from identity_props.report import atlas as report
    from identity_props.report import documents, files, page
    from identity_props.stack.stack import Stack

    ours = (one for one in kept.unique() if one["fingerprint"] == plan.settings.fingerprint)
    cells = [*islice(seen(ours), TOLD)]
    if not cells:
        return
    if len(cells) == TOLD:
        say(f"the page and the counts are of {TOLD:,} cells; the files have all of them")
    context = documents.context(pixels, Stack(), plan.settings.seed, jobs)
    made = report.document(cells, context)
    html = files.replace_file(kept.path / page.FILE, report.page(cells, pixels, context))
    show(made) if as_json else put(made["says"])
    say(f"wrote {html}")

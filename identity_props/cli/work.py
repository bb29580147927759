"""What `run` and `gate` have in common: the claims asked for, trained and judged with a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from identity_props.cli.terminal import say, steps_bar
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.claims.registry import Claim
    from identity_props.claims.verdict import Outcome
    from identity_props.stack.stack import Stack
    from identity_props.task.data import Pixels


def replicas_option(
    default: int, most: int | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """--replicas."""
    return click.option(
        "--replicas",
        type=click.IntRange(1, most),
        default=default,
        show_default=True,
        help="Networks a claim, doubled while its verdict is undecided.",
    )


@dataclass(frozen=True)
class Work:
    """What a command trains, on what and where."""

    claims: list[Claim]
    pixels: Pixels
    stack: Stack
    replicas: int
    seed: int
    jobs: int

    def judged(self, explained: bool = False) -> tuple[list[Outcome], bool]:
        """Outcomes in the order of the claims, and whether the run was cut short."""
        from identity_props.claims.running import judge_all

        given = (self.claims, self.pixels, self.stack, self.replicas, self.seed, self.jobs)
        start = partial(judge_all, *given, explained=explained)
        outcomes, interrupted = _watched(len(self.claims), start)
        if not outcomes:
            raise KeyboardInterrupt
        return sorted(outcomes, key=lambda outcome: self.claims.index(outcome.claim)), interrupted


def prepared(
    data: str,
    side: str,
    data_dir: Path | None,
    download: bool,
    claims: str | None,
    slow: bool,
    replicas: int,
    seed: int,
    device: str,
    jobs: int | None,
) -> Work:
    """Data, claims and processes, from a command's options."""
    from identity_props.claims.running import default_jobs
    from identity_props.stack.stack import Stack
    from identity_props.task.data import load

    stack = Stack(device=device)
    pixels = load(data, int(side), data_dir, download)
    selected = _selected(claims, slow, pixels)
    jobs = jobs or default_jobs(stack, selected, pixels)
    return Work(selected, pixels, stack, replicas, seed, jobs)


def _selected(pattern: str | None, slow: bool, pixels: Pixels) -> list[Claim]:
    """Claims that were named, or all that are not slow, as far as they apply to the pixels."""
    from identity_props.claims.registry import matching

    wanted = [claim for claim in matching(pattern or "*") if pattern or slow or not claim.slow]
    selected = [claim for claim in wanted if claim.applies(pixels)]
    left_out = ", ".join(claim.name for claim in wanted if claim not in selected)
    if not selected:
        raise InputError(f"claims: {left_out} do not apply to {pixels.name} with {pixels.d} pixels")
    if left_out:
        say(f"left out: {left_out}, which do not apply to {pixels.name} with {pixels.d} pixels")
    return selected


def _watched(claims: int, judged: Callable[..., Iterator[Outcome]]) -> tuple[list[Outcome], bool]:
    """Outcomes as they come, with a bar on a terminal and a line a claim; True if interrupted."""
    outcomes: list[Outcome] = []
    with steps_bar() as (move, line):
        try:
            for outcome in judged(on_progress=lambda progress: move(progress.done, progress.planned)):
                outcomes.append(outcome)
                done = f"{len(outcomes)}/{claims} {outcome.verdict} {outcome.claim.name}"
                line(done + (f", in {outcome.passes} passes" if outcome.passes > 1 else ""))
        except KeyboardInterrupt:
            return outcomes, True
    return outcomes, False

"""What `run` and `gate` have in common: the claims asked for, trained and judged with a bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.cli.pixels import data_of
from identity_props.cli.terminal import bar, say
from identity_props.errors import InputError
from identity_props.stack.importing import importing

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
    scheduler: str | None = None

    def judged(self, explained: bool = False) -> tuple[list[Outcome], bool]:
        """Outcomes in the order of the claims, and whether the run was cut short."""
        from identity_props.claims.running import judge_all

        given = (self.claims, self.pixels, self.stack, self.replicas, self.seed, self.jobs)
        start = partial(judge_all, *given, explained=explained, scheduler=self.scheduler)
        outcomes, interrupted = _watched(len(self.claims), start)
        if not outcomes:
            raise KeyboardInterrupt
        return sorted(outcomes, key=lambda outcome: self.claims.index(outcome.claim)), interrupted


PARTS = [
    click.option(
        "--optimizer",
        metavar="PKG.MOD:NAME",
        help="Your own, in claims of its own, at rates that are found once and kept in the baseline.",
    ),
    click.option(
        "--optimizer-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
    ),
    *(
        click.option(f"--{name}", metavar="PKG.MOD:NAME", help=what)
        for name, what in {
            "linear": "Your own linear layer, in all claims.",
            "activation": "Stands in for ReLU.",
            "init": "Draws a layer's parameters in place.",
            "loss": "Loss(prediction, target).",
            "step": "Takes a step, (optimizer, loss).",
            "batches": "Yields batches, (data, size, generators).",
        }.items()
    ),
]


def stack_options(command: Callable[..., int]) -> Callable[..., int]:
    """Options that name the parts of a stack of one's own."""
    for option in reversed(PARTS):
        command = option(command)
    return command


def prepared(
    data: str,
    side: str,
    data_dir: Path | None,
    download: bool,
    test: Path | None,
    shape: tuple[int, int] | None,
    claims: str | None,
    slow: bool,
    replicas: int,
    seed: int,
    device: str,
    jobs: int | None,
    scheduler: str | None = None,
    own: Callable[[str | None, Stack, Pixels], list[Claim]] | None = None,
    **parts: Any,
) -> Work:
    """Data, claims and processes, from a command's options; ``own`` gives the claims of an optimizer of one's own."""
    with importing():
        from identity_props.claims.running import default_jobs
        from identity_props.stack.building import build_once
        from identity_props.stack.stack import stack_of

    stack = stack_of(device=device, **parts)
    build_once(stack)
    pixels = data_of(data, side, data_dir, download, shape, test=test, seed=seed)
    named = own is not None and stack.optimizer is not None
    selected = own(claims, stack, pixels) if named and own else _selected(claims, slow, pixels)
    jobs = jobs or default_jobs(stack, selected, pixels)
    return Work(selected, pixels, stack, replicas, seed, jobs, scheduler)


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
    with bar("steps") as (move, line):
        try:
            heard = partial(judged, on_progress=lambda progress: move(progress.done, progress.planned))
            for outcome in heard(say=line):
                outcomes.append(outcome)
                done = f"{len(outcomes)}/{claims} {outcome.verdict} {outcome.claim.name}"
                line(done + (f", in {outcome.passes} passes" if outcome.passes > 1 else ""))
        except KeyboardInterrupt:
            return outcomes, True
    return outcomes, False

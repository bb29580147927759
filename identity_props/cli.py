"""The command ``identity-props``. Everything that imports torch is imported where it is needed."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props import __version__
from identity_props.cli_explain import explain
from identity_props.errors import InputError, MissingError
from identity_props.terminal import (
    ALL_HOLD,
    BAD_INPUT,
    INTERRUPTED,
    ONE_FAILS,
    OPTIONS,
    options,
    say,
    show,
    steps_bar,
)

if TYPE_CHECKING:
    from identity_props.claims import Claim
    from identity_props.data import Pixels
    from identity_props.stack import Stack
    from identity_props.verdict import Outcome


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="identity-props")
def commands() -> None:
    """Who learns the identity? Property tests with a known right answer for training stacks.

    \b
    Exit codes: 0 all hold, 1 one fails, 2 bad input, 3 the device, data or package
    asked for is not there, 130 interrupted.
    """


def replicas_option(default: int) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """--replicas."""
    return click.option(
        "--replicas",
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        help="Networks a claim, doubled while its verdict is undecided.",
    )


commands.add_command(explain)


@commands.command()
@options(*OPTIONS)
@replicas_option(8)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write results.json and report.html to."
)
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print results.json instead of the table.")
def run(out: Path | None, force: bool, as_json: bool, seed: int, **given: Any) -> int:
    """Train the claims' networks and say which claims hold.

    Progress goes to stderr, the table to stdout. Ctrl-C keeps the claims that are finished.
    """
    from identity_props import page, report

    if out is not None:
        report.check_free(out, force, report.RESULTS, page.FILE)
    work = _prepared(seed=seed, **given)
    if out is not None:
        report.make(out)
    outcomes, interrupted = work.judged(explained=out is not None)
    document = report.results(outcomes, work.pixels, work.stack, seed, work.jobs, interrupted)
    show(document if as_json else report.table(outcomes, work.pixels))
    if out is not None:
        context = report.context(work.pixels, work.stack, seed, work.jobs)
        html = page.of_run(outcomes, work.pixels, context)
        say(f"wrote {report.write(out, document)} and {report.replace_file(out / page.FILE, html)}")
    if interrupted:
        return INTERRUPTED
    return ALL_HOLD if all(outcome.holds for outcome in outcomes) else ONE_FAILS


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
        from identity_props.running import judge_all

        given = (self.claims, self.pixels, self.stack, self.replicas, self.seed, self.jobs)
        start = partial(judge_all, *given, explained=explained)
        outcomes, interrupted = _watched(len(self.claims), start)
        if not outcomes:
            raise KeyboardInterrupt
        return sorted(outcomes, key=lambda outcome: self.claims.index(outcome.claim)), interrupted


def _prepared(
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
    from identity_props.data import load
    from identity_props.running import default_jobs
    from identity_props.stack import Stack

    stack = Stack(device=device)
    pixels = load(data, int(side), data_dir, download)
    selected = _selected(claims, slow, pixels)
    jobs = jobs or default_jobs(stack, selected, pixels)
    return Work(selected, pixels, stack, replicas, seed, jobs)


@commands.command()
@options(*OPTIONS)
@replicas_option(16)
@click.option(
    "--baseline", type=click.Path(path_type=Path), required=True, help="File in the working folder."
)
@click.option("--update", is_flag=True, help="Record the run there in place of comparing it.")
@click.option("--force", is_flag=True, help="Record also a run whose claims do not all hold.")
@click.option("--strict", is_flag=True, help="Better, faster, other versions or machines fail too.")
@click.option(
    "--summary",
    type=click.Path(path_type=Path),
    envvar="GITHUB_STEP_SUMMARY",
    show_envvar=True,
    help="File that the table is appended to, in Markdown.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
def gate(
    baseline: Path, update: bool, force: bool, strict: bool, summary: Path | None, as_json: bool, **given: Any
) -> int:
    """Compare a run with a recorded one: slower, worse, better or faster, claim by claim.

    A change is named that is clear by a rank test over replicas, at 1e-4 for all claims together, and
    larger than a tenth in steps or a factor of two in FVU. What cannot be compared fails.
    """
    from identity_props import gate, report

    gate.check_place(baseline)
    if update:
        report.make(baseline.parent, "--baseline")
    before = None if update else gate.read(baseline)
    work = _prepared(**given)
    outcomes, interrupted = work.judged()
    if interrupted:
        raise KeyboardInterrupt
    context = report.context(work.pixels, work.stack, work.seed, work.jobs)
    after = gate.record(outcomes, context)
    if before is None:
        return _recorded(baseline, after, outcomes, force)
    changes = gate.compare(before, after)
    passed = gate.passes(changes, strict)
    show(report.gate_results(changes, passed) if as_json else report.gate_table(changes, passed))
    if summary is not None:
        report.append_markdown(summary, changes, passed)
    return ALL_HOLD if passed else ONE_FAILS


def _recorded(path: Path, baseline: dict[str, Any], outcomes: Sequence[Outcome], force: bool) -> int:
    from identity_props import gate, report

    failing = ", ".join(outcome.claim.name for outcome in outcomes if not outcome.holds)
    if failing and not force:
        raise InputError(f"--update: expected claims that hold, got {failing}; --force records them")
    say(f"wrote {report.replace_file(path, gate.text(baseline))}")
    return ALL_HOLD


@commands.command()
@click.option("--optimizer", metavar="PKG.MOD:NAME", help="Optimizer to judge.  [default: the laws' own]")
@click.option(
    "--optimizer-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
)
@click.option("--linear", metavar="PKG.MOD:NAME", help="Linear layer to judge.  [default: nn.Linear]")
@click.option("--activation", metavar="PKG.MOD:NAME", help="Stands in for ReLU.  [default: torch.relu]")
@click.option(
    "--init", metavar="PKG.MOD:NAME", help="Draws a layer's parameters in place.  [default: Glorot's]"
)
@click.option("--loss", metavar="PKG.MOD:NAME", help="Loss(prediction, target).  [default: mse_loss]")
@click.option("--step", metavar="PKG.MOD:NAME", help="Takes a step, (optimizer, loss).")
@click.option("--batches", metavar="PKG.MOD:NAME", help="Yields batches, (data, size, generators).")
@click.option("--like", metavar="PKG.MOD:NAME", help="Optimizer that it has to equal, step by step.")
@click.option(
    "--like-arg", "like_arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
)
@click.option("--like-linear", metavar="PKG.MOD:NAME", help="Layer that it has to equal.")
@click.option("--lr", default="auto", show_default=True, help="Learning rate to learn at; auto searches one.")
@click.option("--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N", help="Where to train.")
@click.option(
    "--dtype",
    type=click.Choice(["float64", "float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Of training, and of the laws that hold in it; other laws are measured in float64.",
)
@click.option(
    "--mode",
    type=click.Choice(["eager", "compiled"]),
    default="eager",
    show_default=True,
    help="Loss and step as they are, or through torch.compile.",
)
@click.option(
    "--ranks",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Processes that train data-parallel, under DistributedDataParallel with gloo.",
)
@click.option(
    "--guard",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="A step that takes longer hangs; 0 waits for ever.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all that is drawn."
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder to write check.json and report.html to.")
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the table.")
def check(
    optimizer: str | None,
    arguments: tuple[str, ...],
    linear: str | None,
    activation: str | None,
    init: str | None,
    loss: str | None,
    step: str | None,
    batches: str | None,
    like: str | None,
    like_arguments: tuple[str, ...],
    like_linear: str | None,
    lr: str,
    device: str,
    dtype: str,
    mode: str,
    ranks: int,
    guard: float,
    seed: int,
    out: Path | None,
    force: bool,
    as_json: bool,
) -> int:
    """Judge an optimizer, a layer, or where they run, by the laws that apply to them.

    Which ones apply is found by trying the parts, or follows from --like and --like-linear.
    """
    import torch

    from identity_props import conformance, page, report
    from identity_props.stack import stack_of

    if out is not None:
        report.check_free(out, force, report.CHECK, page.FILE)

    torch.set_num_threads(1)  # more of them cost more than they bring with 16 pixels
    sys.path.insert(0, "")  # names from the folder that the user is in, as python -m has it
    rate = None if lr == "auto" else _rate(lr)
    stack = stack_of(
        optimizer, arguments, linear, activation, init, loss, step, batches, device, dtype, mode, ranks, rate
    )
    if out is not None:
        report.make(out)
    reference = conformance.reference_of(stack, like, like_arguments, like_linear)
    rows = []
    for row in conformance.check(stack, reference, seed, guard):
        rows.append(row)
        say(f"{len(rows)} {row.verdict} {row.name}")
    document = report.check_results(rows, stack, seed)
    show(document if as_json else report.check_table(rows, stack))
    if out is not None:
        context = {k: v for k, v in document.items() if k != "rows"}
        written = report.write(out, document, report.CHECK)
        say(
            f"wrote {written} and {report.replace_file(out / page.FILE, page.of_check(rows, stack, context))}"
        )
    return ONE_FAILS if any(row.verdict == conformance.FAIL for row in rows) else ALL_HOLD


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"--lr: expected auto or a finite rate above 0, got {text!r}")
    return rate


@commands.command()
@click.option("--faults", default="*", metavar="PATTERN", help="Only faults matching shell patterns.")
@click.option(
    "--seeds",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Also judge torch's own parts with that many seeds, and count false alarms; 200 take 20 minutes.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the tables.")
def audit(faults: str, seeds: int, jobs: int | None, as_json: bool) -> int:
    """Plant documented faults, one by one, and show which law, claim or gate row sees each.

    Fails where no law sees a fault, or where anything sees a clean twin, the same part written right.
    """
    from identity_props import audit, audit_report
    from identity_props.running import cores

    findings, alarms, jobs = [], [], jobs or cores()
    for finding in audit.audit(audit.matching(faults), jobs):
        findings.append(finding)
        say(f"{len(findings)} {finding.verdict} {finding.name}")
    for one in audit.false_alarms(seeds, jobs) if seeds else ():
        alarms.append(one)
        say(f"{one.alarms} false alarms of {one.tried} {one.name}")
    if as_json:
        show(audit_report.document(findings, alarms))
    else:
        tables = [audit_report.matrix(findings), audit_report.rates(findings)]
        for table in [*tables, audit_report.alarms_table(alarms)][: 3 if alarms else 2]:
            show(table)
    return ALL_HOLD if audit_report.passed(findings, alarms) else ONE_FAILS


@commands.command(name="faults")
def list_faults() -> int:
    """List the faults that audit plants: what each does wrong, and where it was seen."""
    from identity_props.faults import FAULTS

    for fault in FAULTS.values():
        click.echo(f"{fault.name}: {fault.what}")
        click.echo(f"  source  {fault.source}")
        click.echo(f"  twin    {fault.twin.name}")
        if fault.equivalent:
            click.echo(f"  unseen  {fault.equivalent}")
    return ALL_HOLD


@commands.command(name="claims")
def list_claims() -> int:
    """List the claims: what each says, its source, its error rates and what was measured."""
    from identity_props.claims import CLAIMS
    from identity_props.verdict import FALSE_HOLD, share_found

    for claim in CLAIMS.values():
        click.echo(f"{claim.name}: {claim.statement}.")
        click.echo(f"  source    {claim.source}")
        click.echo(f"  measured  {claim.evidence}")
        click.echo(
            f"  judged    holds if more than {claim.share:.0%} of seeds do; said wrongly with probability"
            f" {FALSE_HOLD:g} at most, missed with 1e-6 at most where {share_found(claim.share):.0%} do"
        )
    return ALL_HOLD


@commands.command(name="laws")
def list_laws() -> int:
    """List the laws: what is exactly true, its source, and where its tolerance comes from."""
    from identity_props.laws import LAWS

    for law in LAWS.values():
        click.echo(f"{law.name}: {law.statement}.")
        click.echo(f"  source     {law.source}")
        click.echo(f"  tolerance  {' '.join(law.derivation.split())}")
        click.echo(f"  exercises  {', '.join(sorted(law.axes))}")
    return ALL_HOLD


def _selected(pattern: str | None, slow: bool, pixels: Pixels) -> list[Claim]:
    """Claims that were named, or all that are not slow, as far as they apply to the pixels."""
    from identity_props.claims import matching

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; every error is one line on stderr."""
    try:
        return int(commands.main(arguments, standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error.format_message(), BAD_INPUT)
    except (InputError, MissingError) as error:
        return _failed(str(error), error.exit_code)
    except BrokenProcessPool:
        return _failed("a worker process died, perhaps for want of memory: try fewer --jobs", ONE_FAILS)
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted, and nothing was finished", INTERRUPTED)


def _failed(message: str, code: int) -> int:
    say(f"identity-props: {' '.join(message.split())}")
    return code

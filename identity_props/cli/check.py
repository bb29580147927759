"""The command ``identity-props check``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from identity_props.cli.given import PATH, SEED, names_from_here
from identity_props.cli.terminal import ALL_HOLD, ONE_FAILS, say, show
from identity_props.errors import InputError


@click.command()
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
@click.option("--like", metavar="PKG.MOD:NAME", help="Optimizer that it has to equal; or paper:adam.")
@click.option("--like-arg", "like_arguments", multiple=True, metavar="KEY=VALUE", help="Repeat for more.")
@click.option("--like-linear", metavar="PKG.MOD:NAME", help="Layer that it has to equal.")
@click.option("--like-loss", metavar="PKG.MOD:NAME", help="Loss that it has to equal.")
@click.option("--like-step", metavar="PKG.MOD:NAME", help="Step that it has to equal.")
@click.option("--like-batches", metavar="PKG.MOD:NAME", help="Batches that it has to equal, of equal seeds.")
@click.option("--clip", type=float, metavar="NORM", help="Norm of all gradients at which --step clips.")
@click.option(
    "--like-tolerance", default=0.0, metavar="X", help="Distance allowed, relative, beside rounding."
)
@click.option("--novel", is_flag=True, help="It is meant to be no published optimizer.")
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
@click.option("--seed", type=SEED, default=0, show_default=True, help="Seed of all that is drawn.")
@click.option("--all", "all_rows", is_flag=True, help="Show also the laws that do not apply, and why.")
@click.option("--in-process", is_flag=True, help="Try the parts in this process, for a debugger.")
@click.option("--out", type=PATH, help="Folder to write check.json and report.html to.")
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print check.json instead of the table.")
def check(
    like: str | None,
    like_arguments: tuple[str, ...],
    like_linear: str | None,
    like_loss: str | None,
    like_step: str | None,
    like_batches: str | None,
    clip: float | None,
    like_tolerance: float,
    novel: bool,
    lr: str,
    guard: float,
    seed: int,
    all_rows: bool,
    in_process: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **parts: Any,
) -> int:
    """Judge an optimizer, a layer, or where they run, by the laws that apply to them.

    Which ones apply is found by trying the parts, or follows from what --like and its kin declare. They are
    tried in a process of their own, so that one that exits or crashes is a row, and the others still run.
    """
    from identity_props.conformance import isolated

    click.get_current_context().with_resource(names_from_here())
    rate = None if lr == "auto" else _rate(lr)
    reference = {
        "optimizer": like,
        "arguments": like_arguments,
        "linear": like_linear,
        "loss": like_loss,
        "step": like_step,
        "batches": like_batches,
        "clip": clip,
        "tolerance": like_tolerance,
        "novel": novel,
    }
    asked = isolated.Asked({**parts, "lr": rate}, reference, seed, guard)
    with (isolated.here if in_process else isolated.judged)(asked) as (stack, judged):
        from identity_props.conformance.rows import FAIL  # torch, while the other process works
        from identity_props.report import documents, files, page, tables

        if out is not None:
            files.check_free(out, force, documents.CHECK, page.FILE)
            files.make(out)
        rows = []
        for row in judged:
            rows.append(row)
            say(f"{len(rows)} {row.verdict} {row.name}")
    document = documents.check_results(rows, stack, seed)
    show(document if as_json else tables.check_table(rows, stack, all_rows))
    if out is not None:
        context = {k: v for k, v in document.items() if k != "rows"}
        written = files.write(out, document, documents.CHECK)
        say(f"wrote {written} and {files.replace_file(out / page.FILE, page.of_check(rows, stack, context))}")
    return ONE_FAILS if any(row.verdict == FAIL for row in rows) else ALL_HOLD


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"--lr: expected auto or a finite rate above 0, got {text!r}")
    return rate

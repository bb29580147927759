"""The command ``identity-props ledger``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from identity_props.cli.given import PATH, SEED, TRAINER, names_from_here
from identity_props.cli.terminal import ALL_HOLD, say, show
from identity_props.errors import InputError

AT_LEAST_ONE = click.IntRange(min=1)
MOST_EXAMPLES, MOST_EPOCHS = 1024, 64  # a layer of as many features; a training for each number of epochs
OF_TOKENS = {"epochs": 1, "batch_size": 2, "examples": 8}  # where they are not given


def the_trainer(function: Any) -> Any:
    """Add the options that say which trainer."""
    for option in reversed(TRAINER):
        function = option(function)
    return function


@click.command()
@the_trainer
@click.option(
    "--examples",
    type=click.IntRange(1, MOST_EXAMPLES),
    default=48,
    show_default=True,
    help="Orthonormal examples to train on.",
)
@click.option(
    "--batch-size", type=AT_LEAST_ONE, default=8, show_default=True, help="Of a micro-batch on a rank."
)
@click.option(
    "--accumulate", type=AT_LEAST_ONE, default=1, show_default=True, help="Micro-batches of a step."
)
@click.option(
    "--epochs", type=click.IntRange(1, MOST_EPOCHS), default=3, show_default=True, help="To train for."
)
@click.option("--ranks", type=AT_LEAST_ONE, default=1, show_default=True, help="Processes, data-parallel.")
@click.option(
    "--resume-at", type=int, metavar="K", help="Stop after K micro-batches, resume in another process."
)
@click.option("--evaluate", is_flag=True, help="Evaluate on held-out examples after each epoch.")
@click.option("--shuffle", is_flag=True, help="Another order each epoch.")
@click.option("--drop-last", is_flag=True, help="Drop an incomplete last batch.")
@click.option("--tokens", is_flag=True, help="Of a language model: 8 sequences of tokens, one epoch.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of the examples, and of the order.")
@click.option(
    "--guard",
    type=click.FloatRange(min=0),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="A training that takes longer hangs; 0 waits for ever.",
)
@click.option("--in-process", is_flag=True, help="Train in this process, for a debugger.")
@click.option("--out", type=PATH, help="Folder to write ledger.json and report.html to.")
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print ledger.json instead of the table.")
def ledger(
    trainer: str | None,
    trainer_arguments: tuple[str, ...],
    command: str | None,
    guard: float,
    in_process: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **training: Any,
) -> int:
    """Show what each example weighs at each step of a trainer, read from the weights that it leaves.

    1 is right: an equal share of the mean over the examples that a step is meant to hold. It is an account, not a
    verdict, and ends with 0 whatever it shows; check --trainer judges.
    """
    from identity_props.conformance import booked

    click.get_current_context().with_resource(names_from_here())
    if training["tokens"]:
        training = _of_tokens(training)
    asked = booked.AskedBook(trainer, trainer_arguments, command, training, guard)
    if out is not None:
        from identity_props.report import files

        files.check_free(out, force, "ledger.json", "report.html")
        files.make(out)
    named, book = (booked.here if in_process else booked.kept_apart)(asked)
    from identity_props.report import documents, files, ledgers, page

    document = documents.ledger_results(book, named)
    show(document if as_json else ledgers.table(book, named))
    if out is not None:
        written = files.write(out, document, documents.LEDGER)
        html = ledgers.of_ledger(book, named, document)
        say(f"wrote {written} and {files.replace_file(out / page.FILE, html)}")
    return ALL_HOLD


def _of_tokens(training: dict[str, Any]) -> dict[str, Any]:
    """With the values that fit 8 sequences where none are given; raises InputError for --examples."""
    given = click.get_current_context().get_parameter_source
    if given("examples") is ParameterSource.COMMANDLINE:
        raise InputError("--examples: expected none beside --tokens, which has 8 sequences of its own")
    free = {name: value for name, value in OF_TOKENS.items() if given(name) is ParameterSource.DEFAULT}
    return training | free

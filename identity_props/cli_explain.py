"""The command ``identity-props explain``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.errors import InputError
from identity_props.terminal import ALL_HOLD, options, say, show, steps_bar

if TYPE_CHECKING:
    from identity_props.data import Pixels
    from identity_props.explain import Explanation
    from identity_props.training import Recipe, Trial


@click.command()
@click.option("--variant", default="plain-relu", show_default=True, metavar="NAME", help="Network to train.")
@click.option("--depth", type=int, default=1, show_default=True, help="Its layers.")
@click.option("--scaling", default="unit", show_default=True, metavar="NAME", help="Of its input and target.")
@click.option(
    "--model",
    metavar="PKG.MOD:NAME",
    help="Factory of a trained network of your own, in place of training one.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    help="Its weights: safetensors, or a state_dict of torch.save; never unpickled.",
)
@click.option(
    "--optimizer",
    metavar="PKG.MOD:NAME",
    help="What it trains with.  [default: the asker's RMSprop; of a --model not known]",
)
@click.option(
    "--optimizer-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
)
@click.option("--lr", type=float, help="Its rate.  [default: 1e-3 at 784 pixels, more at fewer]")
@click.option(
    "--schedule",
    type=click.Choice(["constant", "linear-decay"]),
    default="constant",
    show_default=True,
    help="Of its rate.",
)
@click.option(
    "--steps", type=click.IntRange(min=0), help="Steps that train it.  [default: 10 over the default rate]"
)
@click.option("--try", "try_", is_flag=True, help="Train what is advised too, and show what it gives.")
@options("data", "side", "data_dir", "download", "seed")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Folder to write explanation.json and report.html to."
)
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print explanation.json instead of the tables.")
def explain(
    data: str,
    side: str,
    data_dir: Path | None,
    download: bool,
    out: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Say why a network is not the identity: its test error in parts that add up, and what to do.

    A --variant is trained here first: --depth 4 --scaling none --data mnist --side 28 is the network of the
    question with --steps 9380. A --model is taken as it is, and maps pixels [n, d] under --scaling to [n, d].
    """
    from identity_props import explain_report, page, report
    from identity_props.data import load
    from identity_props.stack import Stack
    from identity_props.training import flushed_denormals

    asked = _Asked(**given)
    click.get_current_context().with_resource(flushed_denormals())  # before torch starts its threads
    if out is not None:
        report.check_free(out, force, explain_report.FILE, page.FILE)
        report.make(out)
    pixels = load(data, int(side), data_dir, download)
    found = asked.explained(pixels)
    context = report.context(pixels, Stack(), asked.seed, 1)
    document = explain_report.document(found, context)
    show(document if as_json else explain_report.tables(found))
    if out is not None:
        html = report.replace_file(out / page.FILE, page.of_explanation(found, context))
        say(f"wrote {report.write(out, document, explain_report.FILE)} and {html}")
    return ALL_HOLD


@dataclass(frozen=True)
class _Asked:
    """What was asked to be explained."""

    variant: str
    depth: int
    scaling: str
    model: str | None
    weights: Path | None
    optimizer: str | None
    arguments: tuple[str, ...]
    lr: float | None
    schedule: str
    steps: int | None
    try_: bool
    seed: int

    def __post_init__(self) -> None:
        if self.weights is not None and self.model is None:
            raise InputError("--weights: expected --model, which says whose they are, got none")
        if self.try_ and self.model is not None:
            raise InputError(
                "--try: expected a --variant, as how a --model was trained is not known, got a model"
            )
        if self.model is not None and (self.optimizer is None) != (self.lr is None):
            raise InputError(
                "--model: expected --optimizer and --lr together, what it trained with, or neither"
            )
        if self.arguments and self.optimizer is None:
            raise InputError("--optimizer-arg: expected an --optimizer that takes them, got none")

    def recipe(self, d: int) -> Recipe | None:
        """What the network trains, or trained, with; None for a model of which it is not known."""
        from identity_props.claims import rate, rmsprop
        from identity_props.stack import arguments_of
        from identity_props.training import Recipe

        if self.optimizer is not None:
            arguments = tuple(arguments_of(self.arguments).items())
            return Recipe(self.optimizer, self.lr or rate(d), arguments, self.schedule)
        if self.model is not None:
            return None
        recipe = rmsprop(d, self.schedule)
        return recipe if self.lr is None else replace(recipe, lr=self.lr)

    def trial(self, pixels: Pixels) -> Trial:
        """What is trained here."""
        from identity_props.claims import budget
        from identity_props.models import Variant
        from identity_props.training import Trial

        recipe = self.recipe(pixels.d)
        assert recipe is not None, "there is no --model"
        variant = Variant(self.variant, self.depth, self.scaling)
        return Trial(variant, recipe, budget(pixels.d) if self.steps is None else self.steps)

    def explained(self, pixels: Pixels) -> Explanation:
        """The network, trained first where it has to be, its error in parts, and the advice."""
        from identity_props import advice, networks
        from identity_props.explain import Advice, explain
        from identity_props.settling import STEPS

        with steps_bar() as (move, line):
            if self.model is None:
                trial, name = self.trial(pixels), f"{self.variant}, depth {self.depth}"
                heard = _Heard(move, trial.steps + STEPS)
                network = networks.trained(trial, pixels, self.seed, heard)
            else:
                sys.path.insert(0, "")  # names from the folder that the user is in, as python -m has it
                trial, name, heard = None, self.model, _Heard(move, STEPS)
                network = networks.loaded(self.model, self.weights)
            recipe = self.recipe(pixels.d)
            found = explain(network, pixels.scaled(self.scaling), recipe, name, self.seed, heard)
            changes = advice.advised(found, trial, pixels)
            if not (self.try_ and trial):
                told = tuple(Advice(change.name, change.why, found.fvu_pixels) for change in changes)
                return replace(found, advice=told)
            heard.planned += (len(changes) + (len(changes) > 1)) * trial.steps
            made = []
            for one in advice.tried(found, trial, pixels, self.seed, heard):
                made.append(one)
                line(f"tried: {one.name}")
            return replace(found, advice=tuple(made))


class _Heard:
    """Counts steps and moves the bar."""

    def __init__(self, move: Callable[[int, int], None], planned: int) -> None:
        self.move, self.planned, self.done = move, planned, 0

    def __call__(self, step: int) -> None:
        self.done += 1
        if self.done % 10 == 0:
            self.move(self.done, self.planned)

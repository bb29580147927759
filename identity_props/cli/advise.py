"""The command ``identity-props advise``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from identity_props.cli.given import PATH
from identity_props.cli.terminal import ALL_HOLD, put, say, show

if TYPE_CHECKING:
    from identity_props.cli.asked import Asked
    from identity_props.task.data import Pixels

ASKED = {
    "variant": (str, "Network, such as plain-relu."),
    "depth": (click.IntRange(min=1), "Its layers."),
    "width": (click.IntRange(min=1), "Units of its hidden layers."),
    "scaling": (str, "Of input and target: none, unit, standardise or whiten."),
    "optimizer": (str, "As in the atlas, such as RMSprop."),
    "batch": (click.IntRange(min=0), "Examples of a batch."),
    "init": (str, "Initial weights."),
    "schedule": (str, "Of the rate."),
    "lr": (click.FloatRange(min=0, min_open=True), "Rate."),
}
OF = {
    "data": (str, "Data, where the atlas has several."),
    "side": (click.IntRange(min=1), "Pixels a side, likewise."),
    "steps": (click.IntRange(min=1), "Budget, likewise."),
}


def knobs(command: Any) -> Any:
    """One option a knob."""
    for name, (kind, told) in reversed((ASKED | OF).items()):
        command = click.option(f"--{name}", name, type=kind, help=told)(command)
    return command


@click.command()
@knobs
@click.option("--atlas", "path", type=PATH, help="Folder or file.  [default: the question's corner]")
@click.option("--most", type=click.IntRange(1), default=6, show_default=True, help="Ways to show.")
@click.option("--json", "as_json", is_flag=True, help="Print advice.json instead of the table.")
def advise(path: Path | None, most: int, as_json: bool, **given: Any) -> int:
    """Say which knobs to turn to learn the identity: the fewest first, in order of how sure.

    Trains nothing, and reads it off an atlas. Knobs that are not given are left as each cell has them.
    """
    from identity_props.atlas.advising import advised, of_one
    from identity_props.atlas.reading import opened
    from identity_props.errors import InputError

    asked = {name: value for name, value in given.items() if value is not None and name in ASKED}
    if not asked:
        raise InputError("advise: expected knobs such as --depth 4 --optimizer RMSprop --lr 1e-3, got none")
    cells = of_one(opened(path), {name: given[name] for name in OF if given[name] is not None})
    found = advised(cells, asked, most)
    from identity_props.report import advice

    if as_json:
        show(advice.document(found))
        return ALL_HOLD
    put(advice.told(found))
    table = advice.table(found)
    show(table) if table else put("no cell of this atlas learns")
    if table:
        put(advice.FOOT)
    return ALL_HOLD


def say_hint(asked: Asked, pixels: Pixels) -> None:
    """Say what the question's corner advises where ``explain --try`` trained a network that it could hold."""
    from identity_props.atlas.advising import hint
    from identity_props.atlas.axes import optimizer_of

    recipe, ours = asked.recipe(pixels.d), asked.model is None and not asked.arguments
    if not (asked.try_ and ours and recipe is not None and (pixels.name, pixels.d) == ("digits", 49)):
        return
    optimizer = recipe.optimizer.rpartition(":")[2]
    if optimizer_of(optimizer) != (recipe.optimizer, recipe.arguments):  # such as torch's own RMSprop
        return
    knobs = {"variant": asked.variant, "depth": asked.depth, "scaling": asked.scaling}
    told = hint({**knobs, "optimizer": optimizer, "schedule": asked.schedule, "lr": recipe.lr})
    if told:
        say(told)

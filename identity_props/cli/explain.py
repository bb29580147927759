"""The command ``identity-props explain``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from identity_props.cli.advise import say_hint
from identity_props.cli.asked import Asked
from identity_props.cli.compare import compare
from identity_props.cli.given import PATH, names_from_here
from identity_props.cli.pixels import data_of
from identity_props.cli.terminal import ALL_HOLD, options, say, show
from identity_props.cli.waiting import wait_briefly

DATA = ("side", "data_dir", "download", "shape", "test", "target", "test_target")


@click.command()
@click.option(
    "--variant",
    default="plain-relu",
    show_default=True,
    metavar="NAME",
    help="Network to train: plain-relu, linear-output, linear, residual or scaled-input.",
)
@click.option("--depth", type=int, default=1, show_default=True, help="Its layers.")
@click.option(
    "--scaling",
    metavar="NAME",
    help="Of its input and target: none (as they are), unit (0-1), standardise or whiten."
    "  [default: unit; of a file none]",
)
@click.option(
    "--model",
    metavar="PKG.MOD:NAME",
    help="Factory of a trained network of your own, of torch or of Keras on torch, in place of training one.",
)
@click.option(
    "--weights",
    type=PATH,
    help="Its weights: safetensors, a state_dict of torch.save, .keras or .weights.h5; never unpickled.",
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
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=128, show_default=True, help="Examples a step."
)
@click.option(
    "--try",
    "try_",
    is_flag=True,
    help="Train what is advised too, and show what it gives; a --model with its --optimizer, --lr and --steps,"
    " or its --train, from what its factory builds.",
)
@click.option(
    "--train", metavar="PKG.MOD:FIT", help="fit(model, x, target) trains a --model that is changed by --try."
)
@click.option(
    "--curve", type=PATH, help="Its losses while it trained, .npy or .csv: flat, it is not trained yet."
)
@click.option(
    "--wanted",
    type=click.FloatRange(0, 1, min_open=True),
    default=1e-3,
    show_default=True,
    help="FVU that a layer that is too narrow is to be widened for.",
)
@options("data", "test", "shape", "side", "data_dir", "download", "seed")
@click.option(
    "--target", type=PATH, metavar="FILE", help="What a file's examples are mapped to, if not to themselves."
)
@click.option("--test-target", type=PATH, metavar="FILE", help="Likewise of the examples of --test.")
@click.option(
    "--compare",
    "compared",
    nargs=2,
    type=PATH,
    metavar="A.JSON B.JSON",
    help="Explain nothing: two explanation.json of the same data side by side, part by part.",
)
@click.option(
    "--out", type=PATH, help="Folder to write explanation.json, or comparison.json, and report.html to."
)
@click.option("--force", is_flag=True, help="Replace those that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print explanation.json instead of the tables.")
def explain(
    data: str,
    compared: tuple[Path, Path] | None,
    out: Path | None,
    force: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Say why a network is not the identity: its test error in parts that add up, and what to do.

    A --variant is trained here first: --depth 4 --scaling none --data mnist --side 28 is the network of the
    question with --steps 9380. A --model is taken as it is, and maps pixels [n, d] under --scaling to [n, d].
    """
    if compared is not None:
        return compare(compared, out, force, as_json)
    wait_briefly()
    from identity_props.claims.running import threads
    from identity_props.engine.training import flushed_denormals
    from identity_props.report import documents, files, page
    from identity_props.report.explain import FILE, document, tables
    from identity_props.stack.stack import Stack
    from identity_props.stack.unchanged import unchanged
    from identity_props.task.reading import NAMED, read_curve

    click.get_current_context().with_resource(names_from_here())
    chosen = {name: given.pop(name) for name in DATA}
    given["scaling"] = given["scaling"] or ("unit" if data in NAMED else "none")
    asked = Asked(**given | {"curve": read_curve(given["curve"])})
    click.get_current_context().with_resource(flushed_denormals(helpers=True))  # before torch has threads
    if out is not None:
        files.check_free(out, force, FILE, page.FILE)
        files.make(out)
    pixels = data_of(data, seed=asked.seed, **chosen)
    # more threads than `run` has wait for each other longer than they work where layers are narrow
    with unchanged(threads(1, pixels)):
        found = asked.explained(pixels)
    context = documents.context(pixels, Stack(), asked.seed, 1)
    context["stack"] = asked.parts(context["stack"])
    made = document(found, context)
    show(made if as_json else tables(found))
    say_hint(asked, pixels)
    if out is not None:
        html = files.replace_file(out / page.FILE, page.of_explanation(found, context))
        say(f"wrote {files.write(out, made, FILE)} and {html}")
    return ALL_HOLD

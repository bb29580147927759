"""What ``check`` is told of a layer of any kind: its factory, its input, and what it has to equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.conformance.asked import AskedLayer

WHERE = ("device", "mode")  # options of parts that are a layer's too
LAYERED = ("layer", "layer_arguments", "shapes", "kind", "like_layer")
LAYER = [
    click.option(
        "--layer",
        metavar="PKG.MOD:FACTORY",
        help="Layer of any kind: a class or function that makes a torch.nn.Module.",
    ),
    click.option(
        "--layer-arg", "layer_arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
    ),
    click.option(
        "--input-shape",
        "shapes",
        multiple=True,
        metavar="SIZES",
        help="Shape of one example of its input, such as 3,7,7; repeat for further inputs.",
    ),
    click.option(
        "--input-kind",
        "kind",
        type=click.Choice(["float", "tokens"]),
        default="float",
        show_default=True,
        help="Numbers, or ids of tokens.",
    ),
    click.option("--like-layer", metavar="PKG.MOD:FACTORY", help="Layer that it has to equal."),
]


def asked_layer(given: dict[str, Any], seed: int, guard: float | None, device: str, mode: str) -> AskedLayer:
    """The layer, from what the options say; raises InputError where they lack an input."""
    from identity_props.conformance import asked

    if not given["shapes"]:
        raise InputError("--layer: expected an --input-shape, such as 3,7,7, got none")
    named = {"layer": given["layer"], "arguments": given["layer_arguments"], "like": given["like_layer"]}
    where = {"seed": seed, "device": device, "mode": mode}
    return asked.AskedLayer({**named, "shapes": given["shapes"], "kind": given["kind"], **where}, guard)

"""What ``check`` is told to judge: parts, what they are to be like, where they run, a layer, or a trainer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from identity_props.cli.given import TRAINER
from identity_props.cli.layer import LAYER, LAYERED, WHERE, asked_layer
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.conformance.asked import Asked

LIKE = (
    "like",
    "like_arguments",
    "like_linear",
    "like_loss",
    "like_step",
    "like_batches",
    "clip",
    "like_tolerance",
    "novel",
)
PARTS = [
    click.option("--optimizer", metavar="PKG.MOD:NAME", help="Optimizer to judge.  [default: the laws' own]"),
    click.option(
        "--optimizer-arg", "arguments", multiple=True, metavar="KEY=VALUE", help="Its arguments; repeat."
    ),
    click.option("--linear", metavar="PKG.MOD:NAME", help="Linear layer to judge.  [default: nn.Linear]"),
    click.option("--activation", metavar="PKG.MOD:NAME", help="Stands in for ReLU.  [default: torch.relu]"),
    click.option(
        "--init", metavar="PKG.MOD:NAME", help="Draws a layer's parameters in place.  [default: Glorot's]"
    ),
    click.option("--loss", metavar="PKG.MOD:NAME", help="Loss(prediction, target).  [default: mse_loss]"),
    click.option("--step", metavar="PKG.MOD:NAME", help="Takes a step, (optimizer, loss)."),
    click.option("--batches", metavar="PKG.MOD:NAME", help="Yields batches, (data, size, generators)."),
    click.option("--like", metavar="PKG.MOD:NAME", help="Optimizer that it has to equal; or paper:adam."),
    click.option("--like-arg", "like_arguments", multiple=True, metavar="KEY=VALUE", help="Repeat for more."),
    click.option("--like-linear", metavar="PKG.MOD:NAME", help="Layer that it has to equal."),
    click.option("--like-loss", metavar="PKG.MOD:NAME", help="Loss that it has to equal."),
    click.option("--like-step", metavar="PKG.MOD:NAME", help="Step that it has to equal."),
    click.option(
        "--like-batches", metavar="PKG.MOD:NAME", help="Batches that it has to equal, of equal seeds."
    ),
    click.option("--clip", type=float, metavar="NORM", help="Norm of all gradients at which --step clips."),
    click.option(
        "--like-tolerance", default=0.0, metavar="X", help="Distance allowed, relative, beside rounding."
    ),
    click.option("--novel", is_flag=True, help="It is meant to be no published optimizer."),
    click.option(
        "--lr", default="auto", show_default=True, help="Learning rate to learn at; auto searches one."
    ),
    click.option(
        "--device", default="cpu", show_default=True, metavar="cpu|cuda|cuda:N", help="Where to train."
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float64", "float32", "bfloat16"]),
        default="float32",
        show_default=True,
        help="Of training, and of the laws that hold in it; other laws are measured in float64.",
    ),
    click.option(
        "--mode",
        type=click.Choice(["eager", "compiled"]),
        default="eager",
        show_default=True,
        help="Loss and step as they are, or through torch.compile.",
    ),
    click.option(
        "--ranks",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Processes that train data-parallel, under DistributedDataParallel with gloo.",
    ),
]
JUDGED = [
    *LAYER,
    *TRAINER,
    click.option(
        "--accept",
        multiple=True,
        metavar="RULE",
        help="Rule that the trainer is meant to follow, such as means or carried; repeat.",
    ),
]


def what_to_judge(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what is judged."""
    for option in reversed([*PARTS, *JUDGED]):
        function = option(function)
    return function


def asked_of(seed: int, guard: float | None, quick: bool, **given: Any) -> Asked:
    """What is judged, from what the options say; raises InputError where they say nothing, or contradict."""
    from identity_props.conformance import asked

    trainer, command, arguments, accept = (
        given.pop(name) for name in ("trainer", "command", "trainer_arguments", "accept")
    )
    layer = {name: given.pop(name) for name in LAYERED}
    if trainer is not None or command is not None or arguments:
        _no_parts({**given, **layer}, quick, "a trainer", ("ranks",))
        return asked.AskedTrainer(trainer, arguments, command, accept, given["ranks"], seed, guard)
    if accept:
        raise InputError("--accept: expected a --trainer or a --command that follows it, got neither")
    if layer["layer"] is not None:
        _no_parts(given, quick, "a layer", WHERE)
        return asked_layer(layer, seed, guard, **{name: given[name] for name in WHERE})
    for option, _ in _named(layer):
        raise InputError(f"{option}: expected a --layer, got none")
    like = {name.removeprefix("like_"): given.pop(name) for name in LIKE}
    like["optimizer"] = like.pop("like")
    rate = None if given["lr"] == "auto" else _rate(given["lr"])
    return asked.AskedParts({**given, "lr": rate}, like, seed, guard, quick)


def _no_parts(given: dict[str, Any], quick: bool, beside: str, but: tuple[str, ...] = ()) -> None:
    """Raise InputError for options that say nothing of what is judged, which brings its own parts."""
    if quick:
        raise InputError(f"--quick: expected parts, got {beside}, all of whose rows are quick")
    for option, value in _named(given, but):
        raise InputError(f"{option}: expected no part beside {beside}, got {value!r}")


def _named(given: dict[str, Any], but: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Options that the command line names, with their values."""
    context = click.get_current_context()
    for name, value in given.items():
        if name not in but and context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            yield next(p.opts[0] for p in context.command.params if p.name == name), value


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise InputError(f"--lr: expected auto or a finite rate above 0, got {text!r}")
    return rate

"""A bench from what a command line or an option says."""

from __future__ import annotations

from collections.abc import Sequence

from identity_props.errors import InputError
from identity_props.layers.bench import LayerBench
from identity_props.stack.stack import arguments_of, resolve


def shape_of(text: str) -> tuple[int, ...]:
    """Sizes from text such as 3,7,7; raises InputError for what is none."""
    try:
        sizes = tuple(int(size) for size in text.split(","))
    except ValueError:
        sizes = (0,)
    if min(sizes) < 1:
        raise InputError(f"input shape: expected sizes of 1 or more, such as 3,7,7, got {text!r}")
    return sizes


def shapes_of(given: Sequence[int] | Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Shapes of one example of each input, from one shape or one an input."""
    sizes = [size for size in given if isinstance(size, int)]
    return (tuple(sizes),) if sizes else tuple(tuple(shape) for shape in given if not isinstance(shape, int))


def bench_of(
    layer: str,
    shapes: Sequence[str],
    kind: str = "float",
    arguments: Sequence[str] = (),
    like: str | None = None,
    seed: int = 0,
    device: str = "cpu",
    mode: str = "eager",
) -> LayerBench:
    """A bench from what a command line says; raises InputError or MissingError."""
    factory, reference = resolve(layer), resolve(like) if like else None
    each = tuple(map(shape_of, shapes))
    return LayerBench(factory, each, kind, arguments_of(arguments), reference, seed, device, mode)

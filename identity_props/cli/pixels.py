"""The data that a command is given."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identity_props.cli.terminal import say
from identity_props.errors import InputError

if TYPE_CHECKING:
    from identity_props.task.data import Pixels


def data_of(
    data: str, side: str, data_dir: Path | None, download: bool, shape: tuple[int, int] | None, **given: Any
) -> Pixels:
    """The data that the options name; what it is warned of goes to stderr."""
    from identity_props.task.reading import NAMED, load

    if data in NAMED:
        for name, value in (given | {"shape": shape}).items():
            if value is not None and name != "seed":
                option = name.replace("_", "-")
                raise InputError(f"--{option}: expected --data FILE, which it is about, got {data}")
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always", UserWarning)
        pixels = load(data, int(side), data_dir, download, shape=shape, **given)
    for one in heard:
        say(f"note: {one.message}")
    return pixels

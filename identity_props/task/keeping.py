"""Files that spare the next process some time, and that nothing depends on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

CACHE = Path(os.path.expanduser("~/.cache/identity-props"))


def keep(file: Path, content: bytes) -> None:
    """Write a file whole, and its folder; where that is not possible there is none."""
    with suppress(OSError):  # no reason to stop
        file.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            part.write(content)
        Path(part.name).replace(file)

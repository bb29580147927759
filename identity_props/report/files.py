"""Results as files: written whole or not at all, and never over what is there unless told."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from identity_props.errors import InputError


def check_free(out: Path, force: bool, *names: str) -> None:
    """Raise InputError where a file of these names is already there and is not to be replaced."""
    for name in names:
        if os.path.exists(out / name) and not force:
            raise InputError(f"{out / name}: is already there; --force replaces it, another --out keeps it")


def make(out: Path, option: str = "--out") -> None:
    """Make the folder and see that a file can be written there; raises InputError, naming the option."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise InputError(f"{option} {out}: expected a folder to write to, got: {error.strerror}") from error


def write(out: Path, document: dict[str, Any], name: str) -> Path:
    """Write a document as JSON, see ``replace_file``; returns its path."""
    return replace_file(out / name, json.dumps(document, indent=2, allow_nan=False) + "\n")


def replace_file(path: Path, text: str) -> Path:
    """Write a file whole or not at all, a reader never sees a part of it; returns its path.

    Raises InputError where there is no place or right to.
    """
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=path.name, delete=False, encoding="utf-8"
        ) as file:
            try:
                print(text, file=file, end="", flush=True)
                os.chmod(file.name, 0o644)  # a temporary file is private, a result is not
                os.replace(file.name, path)
            finally:
                Path(file.name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be written, got: {error.strerror}") from error
    return path

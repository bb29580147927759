"""A program in any language as a trainer, by the text of a command."""

from __future__ import annotations

import shlex
import string
import subprocess
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from identity_props.errors import InputError
from identity_props.stack.processes import end_descendants, temporary_folder
from identity_props.trainers.protocol import OPTIONS, Asked, NotOffered, Trained, TrainedError

FILES = ("data", "start", "out", "held")
NEEDED = ("data", "start", "out")
ALIASES = {"weight_decay": "decay"}


class Command:
    """A program as a trainer: ``fit(asked)`` runs its text with what is asked in place of {lr} and the like.

    {data} and {held} are .npy [n, d], {start} .npy [d, d], {out} the file in which it leaves .npy or .safetensors
    [d, d]. What the text does not name, it does not offer. Switches are 1 and 0; 0 stands also for no stop and
    no average, inf for no clip. {weight_decay} is another name of {decay}. Raises InputError for a text that lacks one
    of the three, or names what is no option.
    """

    def __init__(self, text: str) -> None:
        try:
            self.words = shlex.split(text)
            named = {
                name
                for word in self.words
                for _, name, _, _ in string.Formatter().parse(word)
                if name is not None
            }
        except ValueError as error:
            raise InputError(
                f"command: expected words with {{lr}} and the like, got {text!r}: {error}"
            ) from error
        valid = {*FILES, *OPTIONS, *ALIASES} - {"examples", "frozen", "tokens", "packing", "modes"}
        if not named <= valid or not named >= {*NEEDED}:
            raise InputError(
                f"command: expected {{data}}, {{start}} and {{out}}, and of others {{{'}, {'.join(sorted(valid - {*FILES}))}}}, "
                f"got {text!r}"
            )
        self.named = named

    def __call__(self, asked: Asked) -> Trained:
        """Run it, in a folder of its own files."""
        if len(asked.start) > 1:
            raise NotOffered("several layers")
        with temporary_folder() as folder:
            values = self._values(asked, Path(folder))
            try:
                code, said = run_program([word.format(**values) for word in self.words])
            except (OSError, ValueError) as error:
                raise TrainedError(f"cannot be started: {error}") from error
            if code:
                raise TrainedError(f"ends with exit code {code}: {said[-1] if said else 'it says nothing'}")
            return Trained(_read(Path(values["out"])))

    def _values(self, asked: Asked, folder: Path) -> dict[str, str]:
        values = {name: str(folder / f"{name}.npy") for name in FILES}
        np.save(values["data"], rowwise(asked.examples.numpy()))
        np.save(values["start"], rowwise(asked.start[0].numpy()))
        if "held" in self.named:
            held = asked.held
            np.save(values["held"], rowwise((asked.examples[:0] if held is None else held).numpy()))
        options = self.named - {*FILES}
        return values | {name: _text(name, getattr(asked, ALIASES.get(name, name))) for name in options}


rowwise = np.ascontiguousarray  # numpy would keep other orders, which a program need not read


def _text(name: str, value: Any) -> str:
    if name == "clip" and value is None:
        return "inf"
    if value is None or isinstance(value, bool):
        return str(int(bool(value)))
    return repr(value) if isinstance(value, float) else str(value)


def run_program(words: list[str]) -> tuple[int, list[str]]:
    """Run a program to its end: its exit code and its lines of errors. What it waits for then ends with it."""
    with TemporaryFile("w+", errors="replace") as said:  # a pipe would wait for what it leaves running
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        try:
            process.wait()
        finally:
            end_descendants(process.pid)
            process.kill()
            process.wait()
        said.seek(0)
        return process.returncode, [line.strip() for line in said.read().strip().splitlines()]


def _read(out: Path) -> Any:
    """The array in a .npy or .safetensors file, whatever it is called."""
    if not out.exists() and out.with_suffix(".safetensors").exists():
        out = out.with_suffix(".safetensors")
    try:
        with out.open("rb") as file:
            numpy = file.read(6) == b"\x93NUMPY"
        if numpy:
            return np.load(out, allow_pickle=False)
        (found,) = load_file(out).values()
    except FileNotFoundError as error:
        raise TrainedError("leaves no file {out}") from error
    except (OSError, ValueError, EOFError, SafetensorError) as error:
        raise TrainedError(
            f"leaves a file {{out}} that is no .npy or .safetensors of one array: {error}"
        ) from error
    return found

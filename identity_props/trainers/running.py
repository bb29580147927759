"""How a trainer is brought, by name, by a function's name or as a command, and where it runs."""

from __future__ import annotations

import os
import pickle
import shlex
import signal
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from identity_props.errors import InputError, MissingError
from identity_props.stack.processes import (
    SPAWN,
    Leash,
    as_started_by_the_user,
    end_descendants,
    tie_to_parent,
)
from identity_props.stack.stack import arguments_of, resolve
from identity_props.trainers.bench import Bench
from identity_props.trainers.names import NAMES, module_of
from identity_props.trainers.protocol import (
    OPTIONS,
    Asked,
    Fit,
    Left,
    NotOffered,
    Trained,
    TrainedError,
    attempted,
)


@dataclass(frozen=True)
class Trainer:
    """A trainer by the name of ours, by pkg.mod:fit with its arguments, or as the text of a command."""

    name: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    command: str = ""

    def __str__(self) -> str:
        given = "".join(f" {key}={value}" for key, value in self.arguments.items())
        return f"command {self.command}" if self.command else f"trainer {self.name}{given}"

    def fit(self) -> Fit:
        """The function; raises InputError for a name or text that is none, MissingError for a package not here."""
        if self.command:
            return Command(self.command)
        if ":" in self.name:
            found = resolve(self.name)
        elif self.name in NAMES:
            found = _ours(self.name)
        else:
            raise InputError(f"trainer: expected {', '.join(NAMES)} or pkg.mod:fit, got {self.name!r}")
        if not callable(found):
            raise InputError(f"trainer {self.name}: expected a function fit(asked), got {found!r}")
        return partial(found, **self.arguments) if self.arguments else found

    def designs(self) -> dict[str, tuple[str, str]]:
        """Of one of ours, the rules that its framework documents, and where, by the law that asks."""
        return getattr(module_of(self.name), "DESIGNS", {}) if self.name in NAMES else {}


def trainer_of(name: str | None, arguments: Sequence[str], command: str | None) -> Trainer:
    """A trainer from what a command line says; raises InputError for none, or two."""
    if bool(name) == bool(command):
        raise InputError("trainer: expected a name, pkg.mod:fit or a command, and one of them alone")
    if arguments and command:
        raise InputError(
            "trainer arguments: expected them in the command's own text, got KEY=VALUE beside it"
        )
    return Trainer(name or "", arguments_of(arguments), command or "")


def _ours(name: str) -> Fit:
    try:
        found: Fit = module_of(name).fit
    except ModuleNotFoundError as error:
        raise MissingError(
            f"trainer {name}: there is no package {error.name!r}; pip install 'identity-props[trainers]'"
        ) from error
    return found


# A command --------------------------------------------------------------------------------------------

FILES = ("data", "start", "out", "held")
NEEDED = ("data", "start", "out")


class Command:
    """A program as a trainer: ``fit(asked)`` runs its text with what is asked in place of {lr} and the like.

    {data} and {held} are .npy [n, d], {start} .npy [d, d], {out} the file in which it leaves .npy or .safetensors
    [d, d]. What the text does not name, it does not offer. Switches are 1 and 0; 0 stands also for no clip,
    no stop and no average. Raises InputError for a text that lacks one of the three, or names what is no option.
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
        valid = {*FILES, *OPTIONS} - {"examples", "frozen", "tokens"}
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
        with TemporaryDirectory(prefix="identity-props-") as folder:
            values = self._values(asked, Path(folder))
            try:
                code, said = _run([word.format(**values) for word in self.words])
            except (OSError, ValueError) as error:
                raise TrainedError(f"cannot be started: {error}") from error
            if code:
                raise TrainedError(f"ends with exit code {code}: {said[-1] if said else 'it says nothing'}")
            return Trained(_read(Path(values["out"])))

    def _values(self, asked: Asked, folder: Path) -> dict[str, str]:
        values = {name: str(folder / f"{name}.npy") for name in FILES}
        np.save(values["data"], asked.examples.numpy())
        np.save(values["start"], asked.start[0].numpy())
        if "held" in self.named:
            held = asked.held
            np.save(values["held"], (asked.examples[:0] if held is None else held).numpy())
        options = self.named - {*FILES}
        return values | {name: _text(getattr(asked, name)) for name in options}


def _text(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return str(int(bool(value)))
    return repr(value) if isinstance(value, float) else str(value)


def _run(words: list[str]) -> tuple[int, list[str]]:
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


# Where it runs ----------------------------------------------------------------------------------------


@contextmanager
def bench_of(trainer: Trainer, seed: int = 0, ranks: int = 1, resumes: bool = True) -> Iterator[Bench]:
    """A bench for a trainer, which will be asked to resume; what it has started ends with it."""
    fit = trainer.fit()
    if trainer.command:
        yield Bench(fit, None, partial(_by_itself, fit), seed, ranks)
        return
    second = _Second(trainer)
    try:
        first = partial(_prepared, fit, second) if resumes else fit
        yield Bench(first, second, partial(spread, trainer), seed, ranks)
    finally:
        second.end()


def _prepared(fit: Fit, second: _Second, asked: Asked) -> Any:
    """What the trainer makes of it here; one that looks whether to resume will be asked to, in the other process."""
    found = fit(asked)
    if "resume" in asked.read:
        second.start()
    return found


def _by_itself(fit: Fit, asked: Sequence[Asked]) -> list[list[Left | Exception]]:
    """A program starts its ranks by itself."""
    return [[attempted(fit, one)] for one in asked]


class _Second:
    """A second process, in which trainings are resumed: what the first keeps in globals is not there."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.process: Any = None

    def __call__(self, asked: Asked) -> Left:
        """What the trainer makes of it there; raises what it raises."""
        self.start()
        try:
            self.line.send_bytes(pickle.dumps(asked))  # not as torch sends tensors, through files and sockets
            found = pickle.loads(self.line.recv_bytes())
        except (EOFError, OSError) as error:
            self.end()
            raise TrainedError("ends its process") from error
        except BaseException:  # it hangs
            self.end()
            raise
        if isinstance(found, Exception):
            raise found
        left: Left = found
        return left

    def start(self) -> None:
        """Start it, unless it is there; it takes as long as the trainer's imports."""
        if self.process is not None and self.process.is_alive():
            return
        self.line, other = SPAWN.Pipe()
        self.leash = Leash()
        self.process = SPAWN.Process(target=_second, args=(self.trainer, other, self.leash.end))
        self.process.start()
        other.close()

    def end(self) -> None:
        """End it, and what it has started."""
        if self.process is None:
            return
        self.leash.let_go()
        self.process.join(1)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.join()
        self.process = None


def _second(trainer: Trainer, line: Connection, leash: Connection) -> None:
    os.setpgid(0, 0)
    as_started_by_the_user()
    tie_to_parent(leash, at_end=lambda: os.killpg(os.getpid(), signal.SIGKILL))
    fit = trainer.fit()
    while True:
        asked = pickle.loads(line.recv_bytes())
        line.send_bytes(pickle.dumps(attempted(fit, asked)))


# Ranks ------------------------------------------------------------------------------------------------


def spread(trainer: Trainer, asked: Sequence[Asked]) -> list[list[Left | Exception]]:
    """What each rank makes of each thing asked, under torch's own launcher; raises TrainedError where that fails."""
    ranks = asked[0].ranks
    with TemporaryDirectory(prefix="identity-props-") as name:
        folder = Path(name)
        (folder / "job").write_bytes(
            pickle.dumps((trainer, [replace(one, folder=folder) for one in asked], sys.path))
        )
        _launch(ranks, folder)
        files = [folder / f"left-{rank}" for rank in range(ranks)]
        if not all(file.exists() for file in files):
            raise TrainedError(f"{ranks} ranks: a rank left nothing")
        return [[*each] for each in zip(*(pickle.loads(file.read_bytes()) for file in files), strict=True)]


def _launch(ranks: int, folder: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    code, said = _run([sys.executable, *launcher, "-m", "identity_props.trainers.rank", str(folder)])
    if code:
        errors = [line for line in said if "Error" in line]
        raise TrainedError(f"{ranks} ranks end with exit code {code}: {' '.join(errors[:1])}")

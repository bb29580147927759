"""How a trainer is brought, by name, by a function's name or as a command, and where it runs."""

from __future__ import annotations

import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from inspect import signature
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from identity_props.errors import InputError, MissingError
from identity_props.stack.processes import (
    SPAWN,
    Leash,
    as_started_by_the_user,
    temporary_folder,
    tie_to_parent,
)
from identity_props.stack.stack import arguments_of, resolve
from identity_props.trainers.bench import Bench
from identity_props.trainers.command import Command, run_program
from identity_props.trainers.names import NAMES, module_of
from identity_props.trainers.protocol import (
    Asked,
    Fit,
    Left,
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
        return _with(self.name, found, self.arguments) if self.arguments else found

    def designs(self) -> dict[str, tuple[str, str]]:
        """Of one of ours, the rules that its framework documents, and where, by the law that asks."""
        return getattr(module_of(self.name), "DESIGNS", {}) if self.name in NAMES else {}

    @property
    def version(self) -> str | None:
        """Of one of ours, that of its framework."""
        if self.name not in NAMES:
            return None
        module_of(self.name)  # first, as Keras is told its backend there
        return getattr(import_module(NAMES[self.name]), "__version__", None)


def trainer_of(name: str | None, arguments: Sequence[str], command: str | None) -> Trainer:
    """A trainer from what a command line says; raises InputError for none, or two."""
    if bool(name) == bool(command):
        raise InputError("trainer: expected a name, pkg.mod:fit or a command, and one of them alone")
    if arguments and command:
        raise InputError(
            "trainer arguments: expected them in the command's own text, got KEY=VALUE beside it"
        )
    return Trainer(name or "", arguments_of(arguments), command or "")


def _with(name: str, fit: Fit, arguments: Mapping[str, Any]) -> Fit:
    """The function with arguments of its own; raises InputError where it takes no such ones."""
    try:
        taken = signature(fit)
    except ValueError:  # some of C have none
        return partial(fit, **arguments)
    try:
        taken.bind(None, **arguments)
    except TypeError as error:
        given = ", ".join(arguments)
        raise InputError(f"trainer {name}: expected arguments of {taken}, got {given}: {error}") from error
    return partial(fit, **arguments)


def _ours(name: str) -> Fit:
    try:
        found: Fit = module_of(name).fit
    except ModuleNotFoundError as error:
        raise MissingError(
            f"trainer {name}: there is no package {error.name!r}; pip install 'identity-props[trainers]'"
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
    with temporary_folder() as name:
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
    launcher += [f"--log-dir={folder}"]  # else it leaves a folder of its own where it is killed
    code, said = run_program([sys.executable, *launcher, "-m", "identity_props.trainers.rank", str(folder)])
    if code:
        errors = [line for line in said if "Error" in line]
        raise TrainedError(f"{ranks} ranks end with exit code {code}: {' '.join(errors[:1])}")

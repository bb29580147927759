"""Rows measured in a process of their own: parts that end it, or hang where no alarm reaches them, are rows that
say so, and the others still run.

torch is imported by that process alone, until a row comes.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

from identity_props.errors import InputError
from identity_props.stack.guard import told_to
from identity_props.stack.importing import import_all
from identity_props.stack.processes import (
    FOLDERS,
    SPAWN,
    Leash,
    as_started_by_the_user,
    end_descendants,
    temporary_folder,
    tie_to_parent,
)

if TYPE_CHECKING:
    from identity_props.conformance.asked import Asked, Made, Named
    from identity_props.conformance.rows import Row

NAMED, ROW, FINISHED, RAISED, ENDED = "named", "row", "finished", "raised", "ended"
LOOK_EVERY, PATIENCE = 0.5, 2.0  # seconds, for a process whose pipe a fork holds; for one to end by itself
LATE = 5.0  # seconds after a limit, within which a process says itself that a step hangs


@contextmanager
def here(asked: Asked) -> Iterator[tuple[Named, Iterator[Row]]]:
    """What is judged by name, and its rows as they come, in this process, which a part may end."""
    with asked.made() as (named, rows):
        yield named, rows(())


@contextmanager
def judged(asked: Asked) -> Iterator[tuple[Named, Iterator[Row]]]:
    """What is judged by name, and its rows as they come; nothing is left running.

    Raises what making the stack raises, and InputError where that ends the process.
    """
    with working(asked) as judge:
        named = judge.named()
        yield named, judge.rows(named)


@contextmanager
def working(asked: Made) -> Iterator[Judge]:
    """The process that makes and measures; it ends here, and what it has left in its temporary folder."""
    with temporary_folder() as folder:
        judge = Judge(asked, folder)
        try:
            yield judge
        finally:
            judge.end()


class Judge:
    """The process that measures rows, and the next one where it ends before they do."""

    def __init__(self, asked: Made, folder: str) -> None:
        self.asked, self.folder, self.patience = asked, folder, 0.0
        self.done: list[Row] = []
        self._start()

    def _start(self) -> None:
        self.heard, said = SPAWN.Pipe(duplex=False)
        self.leash, self.limit = Leash(), SPAWN.RawArray("d", 2)
        arguments = (self.asked, pickle.dumps(self.done), self.folder, said, self.leash.end, self.limit)
        self.process = SPAWN.Process(target=_judge, args=arguments)
        self.process.start()
        said.close()
        self.ended = False

    def named(self) -> Named:
        """What the stack is called, the first that is heard of it."""
        told, what = self.next()
        if told == ENDED:
            raise InputError(f"parts: expected modules that can be imported, got one that {what[1]}")
        named: Named = what
        return named

    def rows(self, named: Named) -> Iterator[Row]:
        """All rows, a failure for each that ends the process."""
        from identity_props.conformance.rows import FAIL, enough, not_run

        for name in named.rows:
            if self.ended and enough(self.done):
                yield not_run(name)
                continue
            if self.ended:
                self._start()
                self.named()
            told, what = self.next()
            if told == FINISHED:  # with fewer rows, where the first says all
                break
            self.done.append(_failing(name, named, *what) if told == ENDED else what)
            yield self.done[-1]
            if self.asked.alone and self.done[0].verdict == FAIL:
                break
        self.patience = PATIENCE if named.parts["ranks"] > 1 else 0.0  # ranks end with it, in order

    def next(self) -> tuple[str, Any]:
        """What the process says next, else kind and note of its end; raises what it raised."""
        while not wait([self.heard, self.process.sentinel], LOOK_EVERY) and self.process.is_alive():
            if 0 < self.limit[0] < time.monotonic() - LATE:
                return self._ended(*hung(self.limit[1]))
        told, what = self._word()
        if told == RAISED:
            raise what
        if told == ENDED:
            self.process.join(PATIENCE)
            return self._ended(*how(self.process.exitcode))
        return told, what

    def _ended(self, kind: str, note: str) -> tuple[str, tuple[str, str]]:
        self.ended = True
        self.end()
        return ENDED, (kind, note)

    def _word(self) -> tuple[str, Any]:
        try:
            return pickle.loads(self.heard.recv_bytes()) if self.heard.poll() else (ENDED, None)
        except (EOFError, OSError):  # it ended within a word
            return ENDED, None

    def end(self) -> None:
        """End the process, and what it has started and left."""
        self.process.join(self.patience)
        self.leash.let_go()
        self.process.join(PATIENCE)
        if self.process.pid is not None:
            if self.process.is_alive():  # and cannot end by itself what it has started
                end_descendants(self.process.pid)
            _kill_group(self.process.pid)
        self.process.kill()
        self.process.join()


def _failing(name: str, named: Named, kind: str, note: str) -> Row:
    """The row in which the process ended."""
    from identity_props.conformance.checking import failed
    from identity_props.conformance.rows import FAIL, Row

    return failed(Row(name, FAIL, kind=kind, note=note), named)


def how(code: int | None) -> tuple[str, str]:
    """Kind and note of a process that ended by itself; without a code it has closed its pipe and went on."""
    from identity_props.conformance.rows import CRASHES, EXITS

    if code is None or code >= 0:
        return EXITS, f"ends the process with exit code {code or 0}"
    name = signal.Signals(-code).name
    return CRASHES, f"is killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")


def hung(seconds: float) -> tuple[str, str]:
    """Kind and note of a process in which not even the alarm of its limit is heard."""
    from identity_props.conformance.rows import HANGS

    return HANGS, f"keeps Python from running for longer than {seconds:g} s"


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError, PermissionError):  # there is none, or none left but zombies
        os.killpg(leader, signal.SIGKILL)


# In the process -------------------------------------------------------------------------------------------


def _judge(asked: Made, done: bytes, folder: str, said: Connection, leash: Connection, limit: Any) -> None:
    told_to(limit)
    os.setpgid(0, 0)  # what parts start and leave belongs to it, and ends with it
    if asked.quiet:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(2, 1)  # the parent's stdout is for the result alone
    FOLDERS.append(folder)
    as_started_by_the_user()
    sys.path.insert(0, "")  # names from the folder that the user is in, as python -m has it
    tie_to_parent(leash, at_end=_end_all)
    import_all()
    try:
        for told in _told(asked, pickle.loads(done)):
            said.send_bytes(pickle.dumps(told))
    except Exception as error:
        said.send_bytes(pickle.dumps((RAISED, error)))


def _end_all() -> None:
    end_descendants(os.getpid())
    _kill_group(os.getpid())


def _told(asked: Made, done: Sequence[Row]) -> Iterator[tuple[str, Any]]:
    with asked.made() as (named, rows):
        yield NAMED, named
        for row in rows(done):
            yield ROW, row
    yield FINISHED, None

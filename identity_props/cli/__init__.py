"""The command ``identity-props``, one module a command; what imports torch is imported where it is needed."""

from __future__ import annotations

import errno
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from types import FrameType

import click

from identity_props.cli import advise, atlas, audit, check, claims, explain, faults, gate, laws, ledger, run
from identity_props.cli.terminal import BAD_INPUT, INTERRUPTED, ONE_FAILS, PIPE_CLOSED, drop, lost, put, say
from identity_props.errors import InputError, MissingError


@click.group(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="identity-props", prog_name="identity-props")
@click.pass_context
def commands(context: click.Context) -> None:
    """Who learns the identity? Property tests with a known right answer for training stacks.

    \b
    Exit codes: 0 all hold, 1 one fails, 2 bad input, 3 the device, data or package
    asked for is not there, 130 interrupted, likewise 129 hung up and 143 terminated.
    """
    if context.invoked_subcommand is None:
        put(context.get_help())


for command in (
    run.run,
    check.check,
    ledger.ledger,
    explain.explain,
    gate.gate,
    atlas.atlas,
    advise.advise,
    audit.audit,
    claims.list_claims,
    laws.list_laws,
    faults.list_faults,
):
    commands.add_command(command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; every error is one line on stderr.

    Where the reader of stdout has gone, the code is that of Unix tools, which the signal PIPE ends.
    """
    lost.clear()
    with _ended_as_by_ctrl_c() as signals:
        try:
            code = _run(arguments)
        except (Exception, KeyboardInterrupt) as error:
            if not signals and not isinstance(error, KeyboardInterrupt):
                raise
            # it came within an import, such as numpy's, that cannot be begun again, or while an error was told
            code = _failed("interrupted, and nothing was finished", INTERRUPTED)
    if isinstance(next(iter(lost), None), BrokenPipeError):
        return PIPE_CLOSED
    if lost:
        return _failed(f"stdout: expected to be written to, got: {lost[0].strerror}", BAD_INPUT)
    return 128 + signals[0] if code == INTERRUPTED and signals else code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        return int(commands.main(arguments, standalone_mode=False) or 0)
    except click.ClickException as error:
        return _failed(error.format_message(), BAD_INPUT)
    except (InputError, MissingError) as error:
        return _failed(str(error), error.exit_code)
    except BrokenProcessPool:
        return _failed("a worker process died, perhaps for want of memory: try fewer --jobs", ONE_FAILS)
    except (KeyboardInterrupt, click.Abort):
        return _failed("interrupted, and nothing was finished", INTERRUPTED)
    except SystemExit:  # click's way out of --help where stdout's reader has gone
        return PIPE_CLOSED
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        lost.append(error)  # of --help, too
        drop(sys.stdout)
        return BAD_INPUT


@contextmanager
def _ended_as_by_ctrl_c() -> Iterator[list[int]]:
    """Let SIGTERM and SIGHUP interrupt as Ctrl-C does, unless they are ignored, as under nohup; those that came."""
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:
                before[number] = signal.signal(number, interrupt)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _failed(message: str, code: int) -> int:
    say(f"identity-props: {' '.join(message.split())}")
    return code

"""Processes: none outlives its parent, a forked one does not come back, and a part that ends its own is a row."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial

import psutil
import pytest
import torch
from torch.optim import SGD

from identity_props.conformance import checking, following, learning
from identity_props.conformance.checking import check
from identity_props.conformance.rows import FAIL, NOT_RUN, PASS
from identity_props.laws import LAWS
from identity_props.stack.guard import ForkError, alive, no_forks
from identity_props.stack.loop import take_step
from identity_props.stack.processes import Unnamed
from identity_props.stack.stack import Stack

pytestmark = pytest.mark.usefixtures("no_ranks")

PARTS = """
import itertools, multiprocessing, os, signal, sys, time
import torch
from identity_props.conformance import checking, learning

checking.LAWS = {name: checking.LAWS[name] for name in ("gd-trajectory", "representable", "resume", "evaluate")}
learning.budget = lambda d: 100


class Leaves(torch.optim.SGD):
    def step(self, closure=None):
        os._exit(3)


class Exits(torch.optim.SGD):
    def step(self, closure=None):
        sys.exit(3)


class Crashes(torch.optim.SGD):
    def step(self, closure=None):
        os.kill(os.getpid(), signal.SIGSEGV)


class CrashesLoaded(torch.optim.SGD):
    def load_state_dict(self, state):
        os.kill(os.getpid(), signal.SIGSEGV)


class Forks(torch.optim.SGD):
    def step(self, closure=None):
        os.fork()
        return super().step(closure)


class Hangs(torch.optim.SGD):
    def step(self, closure=None):
        while True:
            time.sleep(0.01)


class HangsInC(torch.optim.SGD):
    def load_state_dict(self, state):
        1 in itertools.repeat(0)  # no signal is heard


class Prints(torch.optim.SGD):
    def step(self, closure=None):
        print("noise")
        os.write(1, b"noise")
        return super().step(closure)
"""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def of_session(leader):
    """Processes of a session that are no zombies."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError):
            if os.getsid(one.pid) == leader and one.status() != psutil.STATUS_ZOMBIE:
                found.append(one.pid)
    return found


def until(met, seconds=120):
    deadline = time.monotonic() + seconds
    while not met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.fixture
def started(tmp_path):
    """Starts a command in a session of its own, with a folder of its own for what is temporary."""
    (tmp_path / "parts.py").write_text(PARTS)
    (tmp_path / "temporary").mkdir()
    leaders = []

    def start(*arguments):
        command = [sys.executable, "-m", "identity_props", *arguments]
        environment = ENVIRONMENT | {"TMPDIR": str(tmp_path / "temporary")}
        with (tmp_path / "log").open("w") as log:
            one = subprocess.Popen(
                command,
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                # a shell that starts this in the background has it ignored
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        leaders.append(one)
        return one

    yield start
    for one in leaders:
        for pid in of_session(one.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.wait()
        one.stdout.close()


# The parent ends ----------------------------------------------------------------------------------------

CLAIMS = "scaled-whiten,plain-relu-4-seed"  # one soon, one late
RUN = ("run", "--claims", CLAIMS, "--jobs", "2", "--replicas", "64", "--out", "out")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "code", "to"),
    [
        ("SIGKILL", -9, os.kill),
        ("SIGTERM", 143, os.kill),
        ("SIGTERM", 143, os.killpg),
        ("SIGHUP", 129, os.killpg),
    ],
)
def test_a_run_that_is_ended_leaves_no_process_and_no_file_and_keeps_what_is_finished(
    name, code, to, started, tmp_path
):
    running = started(*RUN)
    assert until(lambda: "holds scaled-whiten" in (tmp_path / "log").read_text())
    assert len(of_session(running.pid)) >= 3
    to(running.pid, getattr(signal, name))
    assert running.wait(20) == code
    assert until(lambda: not of_session(running.pid), 5)
    assert not list((tmp_path / "temporary").glob("identity-*"))
    if name != "SIGHUP":  # which ends multiprocessing's tracker as well; the next one complains
        assert "Traceback" not in (tmp_path / "log").read_text()
    if name != "SIGKILL":
        document = json.loads((tmp_path / "out" / "results.json").read_text())
        assert document["interrupted"] is True
        assert [claim["name"] for claim in document["claims"]] == ["scaled-whiten"]


OTHERS = [
    ("check", "--optimizer", "torch.optim:SGD", "--ranks", "2"),
    ("audit", "--faults", "rate-0.9-sgd", "--jobs", "2"),
    ("ledger", "--trainer", "plain", "--examples", "256", "--epochs", "64"),
]


@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("command", OTHERS, ids=lambda command: command[0])
def test_no_process_of_another_command_outlives_it(name, command, started, tmp_path):
    running = started(*command)
    most = 4 if command[0] == "check" else 3
    assert until(lambda: len(of_session(running.pid)) >= most)
    time.sleep(2)  # into the work
    os.kill(running.pid, getattr(signal, name))
    assert running.wait(20) == {"SIGKILL": -9, "SIGTERM": 143}[name]
    assert until(lambda: not of_session(running.pid), 5)
    assert not list((tmp_path / "temporary").glob("identity-*"))


@pytest.mark.processes
def test_a_signal_that_is_ignored_stays_ignored(started, tmp_path):
    code = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    code += "from identity_props.cli import _ended_as_by_ctrl_c as block\n"
    code += "with block(): signal.raise_signal(signal.SIGHUP)\n"
    code += "try:\n with block() as came: signal.raise_signal(signal.SIGTERM)\n"
    code += "except KeyboardInterrupt: print(came, signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"[{signal.SIGTERM.value}] True\n"


def test_a_file_without_a_name_is_read_whole_and_as_often_as_one_likes(tmp_path):
    work = Unnamed.of(partial(pickle.dump, [1, 2]))
    assert pickle.loads(work.read_bytes()) == pickle.loads(work.read_bytes()) == [1, 2]
    work.close()


# A part forks --------------------------------------------------------------------------------------------

forks = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def wait_for_forks():
    """Until they have ended; multiprocessing's tracker, which other tests of this worker need, stays."""
    for one in psutil.Process().children():
        with suppress(ChildProcessError, psutil.NoSuchProcess):
            if "resource_tracker" not in " ".join(one.cmdline()):
                os.waitpid(one.pid, 0)


class Stays(SGD):
    """Forks, and both go on, in one of several ways."""

    way = "return"

    def step(self, closure=None):
        if not os.fork():
            if self.way == "raise":
                raise ValueError
            if self.way == "exit":
                sys.exit(3)
        return super().step(closure)


@forks
@pytest.mark.processes
@pytest.mark.parametrize("way", ["return", "raise", "exit"])
def test_a_forked_process_ends_where_it_would_come_back(way, tmp_path):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer, here = type("One", (Stays,), {"way": way})([parameter], lr=0.1), os.getpid()
    try:
        take_step(optimizer, lambda: parameter.sum())
    finally:
        with (tmp_path / "pids").open("a") as file:
            print(os.getpid(), file=file)
    wait_for_forks()
    assert (tmp_path / "pids").read_text() == f"{here}\n"


@forks
@pytest.mark.processes
def test_a_fork_that_comes_back_is_told_of_in_its_own_block_alone():
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = Stays([parameter], lr=0.1)
    with no_forks():
        with pytest.raises(ForkError), no_forks():  # noqa: PT012
            take_step(optimizer, lambda: parameter.sum())
            wait_for_forks()
            alive()
        alive()


class Helped(SGD):
    """Has a forked process work for it, as a loader has."""

    helped = False

    def step(self, closure=None):
        if not self.helped:  # once an optimizer, as a pool takes a tenth of a second
            with multiprocessing.get_context("fork").Pool(1) as pool:
                assert pool.map(abs, [-1]) == [1]
        self.helped = True
        return super().step(closure)


@pytest.fixture
def few(monkeypatch, one_family):
    monkeypatch.setattr(learning, "budget", lambda d: 4)
    monkeypatch.setattr(checking, "LAWS", {name: LAWS[name] for name in ("evaluate", "representable")})


@forks
@pytest.mark.processes
def test_forked_processes_that_end_by_themselves_are_nobody_s_business(few):
    found = {row.name: row for row in check(Stack(optimizer=Helped, lr=1.0))}
    assert {found[name].verdict for name in ("moves", "evaluate", "representable")} == {PASS}


# A part exits, crashes, forks, hangs ---------------------------------------------------------------------


def judged(started, optimizer, *arguments):
    """Exit code and rows by name of a check, and the most processes that it had at once."""
    running = started("check", "--optimizer", f"parts:{optimizer}", "--lr", "10", "--json", *arguments)
    most = 0
    while running.poll() is None:
        most = max(most, len(of_session(running.pid)))
        time.sleep(0.05)
    out = running.stdout.read()
    assert until(lambda: not of_session(running.pid), 5)  # multiprocessing's tracker goes last
    return running.returncode, {row["name"]: row for row in json.loads(out)["rows"]}, most


@pytest.mark.processes
@pytest.mark.parametrize(
    ("optimizer", "kind", "note", "others"),
    [
        ("Leaves", "exits", "ends the process with exit code 3", {"evaluate": NOT_RUN}),
        ("Crashes", "crashes", "is killed by SIGSEGV", {"evaluate": NOT_RUN}),
        ("Exits", "error", "SystemExit: 3", {"representable": PASS}),
        (
            "Forks",
            "forks",
            "a process that it forked came back into training, and was ended",
            {"representable": PASS},
        ),
        ("Hangs", "hangs", "no step ended within 2 s", {}),
    ],
)
def test_a_part_that_ends_forks_or_hangs_at_each_step_is_a_row(optimizer, kind, note, others, started):
    began = time.monotonic()
    guard = ("--guard", "2") if optimizer == "Hangs" else ()  # a busy machine may take two seconds for a step
    code, rows, most = judged(started, optimizer, *guard)
    assert code == 1
    assert (rows["moves"]["verdict"], rows["moves"]["kind"]) == (FAIL, kind)
    assert rows["moves"]["note"].endswith(f": {note}")
    assert {name: rows[name]["verdict"] for name in others} == others
    laws = ["gd-trajectory", "representable", "resume", "evaluate"]
    assert list(rows) == ["moves", "recognised", *laws, "learns-identity"]
    assert most <= 40  # of forks that came back and went on there would be twice as many after each step
    assert time.monotonic() - began < 120  # four starts of a process at most, on a slow machine


@pytest.mark.processes
def test_a_part_that_crashes_where_it_is_loaded_fails_those_rows_alone(started):
    _, rows, _ = judged(started, "CrashesLoaded")
    assert {name for name, row in rows.items() if row["verdict"] == FAIL} == {"recognised", "resume"}
    assert rows["recognised"]["kind"] == rows["resume"]["kind"] == "crashes"
    assert rows["evaluate"]["verdict"] == PASS


@pytest.mark.processes
def test_a_part_that_hangs_where_no_alarm_is_heard_fails_those_rows_alone(started):
    _, rows, _ = judged(started, "HangsInC", "--guard", "20")  # 20 s once, then 2 s
    hanging = {name: row["note"] for name, row in rows.items() if row["kind"] == "hangs"}
    note = "keeps Python from running for longer than {} s"
    assert hanging == {"recognised": note.format(20), "resume": note.format(2)}
    assert rows["evaluate"]["verdict"] == PASS


@pytest.mark.processes
def test_what_a_part_prints_does_not_mix_with_json(started, tmp_path):
    code, rows, _ = judged(started, "Prints")
    assert (code, rows["moves"]["verdict"]) == (0, PASS)
    assert "noise" in (tmp_path / "log").read_text()


@pytest.mark.processes
@pytest.mark.parametrize(
    ("body", "name", "code", "message"),
    [
        ("", "no_such:Name", 3, "there is no module 'no_such' to import"),
        ("", "given:Name", 2, "module 'given' has no 'Name'"),
        ("import sys; sys.exit(4)", "given:Name", 2, "importing 'given' raised SystemExit: 4"),
        ("import os; os._exit(4)", "given:Name", 2, "got one that ends the process with exit code 4"),
    ],
)
def test_what_cannot_be_made_is_one_line_and_its_exit_code(body, name, code, message, started, tmp_path):
    (tmp_path / "given.py").write_text(body)
    running = started("check", "--optimizer", name)
    running.wait()
    out = running.stdout.read()
    err = (tmp_path / "log").read_text()
    assert (running.returncode, out, err.count("\n")) == (code, "", 1)
    assert message in err


class Hangs(SGD):
    def step(self, closure=None):
        while True:
            time.sleep(0.01)


def test_after_three_rows_that_hang_the_rest_is_not_run(monkeypatch, one_family):
    monkeypatch.setattr(following, "LEAST_GUARD", 0.1)
    rows = list(check(Stack(optimizer=Hangs, lr=1.0), guard=0.5))
    assert [row.kind for row in rows].count("hangs") == 3
    last = next(k for k, row in enumerate(rows) if row.verdict == NOT_RUN)
    assert {row.verdict for row in rows[last:]} == {NOT_RUN}
    assert rows[last].note == "not tried, as 3 rows hang or end the process"
    unknown = next(row for row in rows if row.name == "gd-trajectory")
    assert unknown.note == "its steps hang, so not known to be gradient-descent"

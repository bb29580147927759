"""A Dask cluster: a scheduler and workers in processes of their own, that come, go, and are killed."""

import json
import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from itertools import repeat
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytest.importorskip("pyarrow")
from identity_props.atlas.axes import Grid
from identity_props.atlas.exploring import Plan, explore
from identity_props.atlas.store import Atlas, Settings
from identity_props.claims.registry import matching
from identity_props.claims.running import judge_all
from identity_props.cli import main
from identity_props.conformance import clustered, isolated
from identity_props.conformance.asked import AskedTrainer
from identity_props.errors import InputError, MissingError
from identity_props.faults import audit
from identity_props.stack import alone
from identity_props.stack import cluster as of_dask
from identity_props.stack.crews import crew, each
from identity_props.task.data import digits
from identity_props.trainers import TRAINER_LAWS

pytestmark = [
    pytest.mark.processes,
    pytest.mark.filterwarnings("ignore"),  # distributed's own, of sockets and of a port that is taken
]
SETTINGS = Settings("digits", 7, "", 40, 2, 0)
AXES = {
    "variant": "linear,plain-relu,residual",
    "depth": "1:3",
    "optimizer": "SGD,RMSprop",
    "lr": "0.001,0.01",
}
PLAN = Plan([Grid.of(AXES, 49)], SETTINGS)


@pytest.fixture(scope="module")
def pixels():
    return digits(7, train=128, test=64)


@contextmanager
def started(module, *arguments, before="pass"):
    code = f"{before}; from distributed.cli.{module} import main; main()"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def scheduler(tmp_path):
    """Its address, and its process."""
    file = tmp_path / "scheduler.json"
    local = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
    with started("dask_scheduler", *local) as process:
        while not (file.exists() and file.read_text().endswith("}")):
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], process


def worker(address, folder, threads=1, nanny=False, before="pass"):
    settings = ["--nthreads", str(threads), "--no-dashboard", "--local-directory", str(folder)]
    settings.append("--nanny" if nanny else "--no-nanny")
    return started("dask_worker", address, *settings, before=before)


def there(address, count):
    """Wait until as many workers have joined."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count)


def made(folder):
    folder.mkdir()
    return Atlas(folder)


def told(atlas):
    """Rows without how long they took."""
    return sorted(repr({k: v for k, v in row.items() if k != "seconds"}) for row in atlas.rows())


def test_a_worker_that_is_killed_loses_nothing_and_one_that_joins_helps_and_the_bits_are_those_of_here(
    scheduler, tmp_path, pixels
):
    address, _ = scheduler
    here, far = (made(tmp_path / name) for name in ("here", "far"))
    with crew(pixels, 1, 1) as alone:
        assert sum(explore(PLAN, here, alone, here.keys())) == PLAN.count()
    with worker(address, tmp_path) as first, worker(address, tmp_path):
        there(address, 2)
        with crew(pixels, 1, 1, address) as cluster:
            count = 0
            for finished in explore(PLAN, far, cluster, far.keys()):
                if count == 0:
                    first.kill()
                count += finished
    assert count == PLAN.count()
    assert told(far) == told(here)


def test_the_claims_of_run_are_judged_there_as_here(scheduler, tmp_path, pixels):
    claims = matching("scaled-whiten")
    with worker(scheduler[0], tmp_path):
        there(scheduler[0], 1)
        (far,) = judge_all(claims, pixels, scheduler=scheduler[0])
    (here,) = judge_all(claims, pixels, jobs=1)
    assert far.fvu == here.fvu


def test_a_task_that_raises_is_told_once_and_not_tried_again(scheduler, tmp_path):
    with worker(scheduler[0], tmp_path):
        there(scheduler[0], 1)
        with crew(tmp_path / "tried", 1, 1, scheduler[0]) as cluster:
            error = cluster.submit(raising).exception()
    assert isinstance(error, InputError)
    assert (tmp_path / "tried").read_text() == "x"


def raising(file):
    with open(file, "a") as tried:
        tried.write("x")
    raise InputError("own fault")


def test_a_task_that_kills_its_workers_is_given_up_and_told(scheduler, tmp_path):
    with ExitStack() as workers:
        for _ in range(4):  # one more than are allowed to be lost
            workers.enter_context(worker(scheduler[0], tmp_path))
        there(scheduler[0], 4)
        with crew(None, 1, 1, scheduler[0]) as cluster:
            error = cluster.submit(killed).exception()
    assert isinstance(error, MissingError)
    assert "a task was given up" in str(error)


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def joined(pixels, address):
    with crew(pixels, 1, 1, address):
        pass


def test_workers_of_other_versions_or_of_several_threads_are_named(scheduler, tmp_path, pixels, monkeypatch):
    with worker(scheduler[0], tmp_path, threads=2):
        there(scheduler[0], 1)
        with pytest.raises(InputError, match=r"worker tcp://.*: expected --nthreads 1, .* got 2"):
            joined(pixels, scheduler[0])
        monkeypatch.setattr(alone, "_version", lambda package: "9.9")
        with pytest.raises(
            InputError, match=r"worker tcp://.*: expected the versions of here, got .* in place of 9.9"
        ):
            joined(pixels, scheduler[0])


OLD_TORCH = """import importlib.metadata as of; real = of.version
of.version = lambda name: '1.0' if name == 'torch' else real(name)
pass"""
WITHOUT_US = "import sys; sys.modules['identity_props'] = None"


@pytest.mark.parametrize(
    ("before", "message"),
    [
        (OLD_TORCH, r"worker tcp://.*: expected the versions of here, got torch 1.0 in place of"),
        (WITHOUT_US, r"worker tcp://.*: expected identity-props .*, got: .*identity_props"),
    ],
)
def test_a_worker_of_another_torch_or_without_this_package_is_named(scheduler, tmp_path, before, message):
    with worker(scheduler[0], tmp_path, before=before):
        there(scheduler[0], 1)
        with pytest.raises(InputError, match=message):
            joined(None, scheduler[0])


def test_one_of_another_torch_that_joins_later_is_named_too(scheduler, tmp_path):
    with worker(scheduler[0], tmp_path):
        there(scheduler[0], 1)
        with pytest.raises(InputError, match=r"worker tcp://.* got torch 1.0 in place of"):
            joining_later(scheduler[0], worker(scheduler[0], tmp_path, before=OLD_TORCH))


def joining_later(address, other):
    with crew(None, 1, 1, address) as cluster, other:
        for _ in each(cluster, at_leisure, repeat(())):
            pass


def at_leisure(_):
    time.sleep(0.2)


def test_where_there_is_no_worker_that_is_said_once_and_work_begins_when_one_joins(
    scheduler, tmp_path, monkeypatch
):
    monkeypatch.setattr(of_dask, "PATIENCE", 0.5)
    monkeypatch.setattr(of_dask, "LOOK_EVERY", 0.2)
    address, said = scheduler[0], []
    with ExitStack() as workers:

        def say(line):
            said.append(line)
            if line == f"waiting for a worker of {address}":
                workers.enter_context(worker(address, tmp_path))

        with crew(1, 1, 1, address, say) as cluster:
            assert [found for _, found in each(cluster, plus, [(1,), (2,)])] == [2, 3]
    assert said == [f"waiting for a worker of {address}", f"a worker of {address} has come"]


def plus(held, given):
    return held + given


def killing(process, address, pixels, kept):
    with crew(pixels, 1, 1, address) as cluster:
        for _ in explore(PLAN, kept, cluster, kept.keys()):
            process.kill()


def test_a_scheduler_that_goes_away_is_told_and_what_is_finished_is_kept(scheduler, tmp_path, pixels):
    address, process = scheduler
    kept = made(tmp_path / "map")
    with worker(address, tmp_path):
        there(address, 1)
        with pytest.raises(MissingError, match="went away; what is finished is kept"):
            killing(process, address, pixels, kept)
    assert 0 < len(kept.keys()) < PLAN.count()
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)  # its traceback on stderr


# What may hang, and starts processes ---------------------------------------------------------------


def test_tasks_apart_have_a_main_thread_whose_alarms_ring_and_may_start_processes(scheduler, tmp_path):
    with worker(scheduler[0], tmp_path, nanny=True):  # under a nanny, whose worker is a daemon
        there(scheduler[0], 1)
        with crew(None, 1, 1, scheduler[0], apart=True) as cluster:
            first, second = (found for _, found in each(cluster, told_of_its_thread, [(), ()]))
    assert first == second
    assert first["main"]
    assert first["rang"]
    assert first["child"] == 0
    with crew(None, 1, 1, apart=True) as here:  # as on this machine
        assert here.submit(told_of_its_thread).result()["pid"] != os.getpid()


def told_of_its_thread(_):
    rang = []
    main = threading.current_thread() is threading.main_thread()
    if main:
        signal.signal(signal.SIGALRM, lambda *_: rang.append(True))
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        time.sleep(0.2)
    child = multiprocessing.get_context("spawn").Process(target=abs, args=(1,))
    child.start()
    child.join()
    return {"main": main, "rang": bool(rang), "child": child.exitcode, "pid": os.getpid()}


def test_faults_are_seen_there_as_here(scheduler, tmp_path):
    faults = audit.matching("frozen-for-ever")
    here = [*audit.audit(faults, 1)]
    with worker(scheduler[0], tmp_path), worker(scheduler[0], tmp_path):
        there(scheduler[0], 2)
        far = [*audit.audit(faults, 1, scheduler[0])]
    assert sorted(map(repr, far)) == sorted(map(repr, here))
    assert {one.verdict for one in far} == {"seen", "clean"}


def test_laws_of_a_trainer_are_parted_and_none_is_left_out():
    assert [name for part in clustered.laws() for name in part] == [*TRAINER_LAWS]
    assert len(clustered.laws()) >= 4


def trainer(name, laws=()):
    return AskedTrainer(name, (), None, (), 1, 0, 600.0, laws)


def test_a_trainer_is_judged_there_as_here_whether_it_trains_once(scheduler, tmp_path, monkeypatch):
    parts = [("trajectory", "steps"), ("velocity",)]
    monkeypatch.setattr(clustered, "laws", lambda: parts)
    with isolated.judged(trainer("plain", laws=(*parts[0], *parts[1]))) as (_, judged):
        here = [*judged]
    with worker(scheduler[0], tmp_path, nanny=True), worker(scheduler[0], tmp_path):
        there(scheduler[0], 2)
        with clustered.judged(trainer("plain"), scheduler[0], print) as (named, judged):
            far = sorted(judged, key=lambda row: named.rows.index(row.name))
    assert named.rows == ("trains", *TRAINER_LAWS)
    assert far == sorted(here, key=lambda row: named.rows.index(row.name))
    assert len(far) == 4


def test_of_a_trainer_that_does_not_train_one_row_is_told(scheduler, tmp_path, capsys):
    with worker(scheduler[0], tmp_path, nanny=True), worker(scheduler[0], tmp_path):
        there(scheduler[0], 2)
        code = main(
            ["check", "--trainer", "builtins:print", "--guard", "600", "--scheduler", scheduler[0], "--json"]
        )
    assert code == 1
    assert [(row["name"], row["verdict"]) for row in json.loads(capsys.readouterr().out)["rows"]] == [
        ("trains", "fail")
    ]


@pytest.mark.parametrize(
    "others", [["--optimizer", "torch.optim:SGD"], ["--trainer", "plain", "--in-process"]]
)
def test_parts_are_not_checked_on_a_cluster(others, capsys):
    assert main(["check", *others, "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "--scheduler: expected a --trainer or a --command" in capsys.readouterr().err


def test_the_page_of_real_trainers_is_measured_there(scheduler, tmp_path):
    root, docs = Path(__file__).parent.parent, tmp_path / "docs/explanation"
    shutil.copytree(root / "docs/explanation", docs)
    shutil.copytree(root / "benchmarks", tmp_path / "benchmarks")
    script, file = docs / "real_trainers.py", docs / "real-trainers.json"
    file.write_text("[]")
    with worker(scheduler[0], tmp_path):
        there(scheduler[0], 1)
        only = ["--only", "plain", "--ranks", "1", "--tables", "--scheduler", scheduler[0]]
        subprocess.run([sys.executable, script, *only], check=True, capture_output=True)
    (found,) = json.loads(file.read_text())
    assert (found["name"], found["ranks"]) == ("plain", 1)
    assert [row["name"] for row in found["rows"]] == ["trains", *TRAINER_LAWS]
    assert {row["verdict"] for row in found["rows"]} <= {"pass", "design", "not applicable"}

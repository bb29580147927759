"""A Dask cluster: a scheduler and workers in processes of their own, that come, go, and are killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

pytest.importorskip("distributed")
pytest.importorskip("pyarrow")
from identity_props.atlas.axes import Grid
from identity_props.atlas.exploring import Plan, explore
from identity_props.atlas.store import Atlas, Settings
from identity_props.claims.registry import matching
from identity_props.claims.running import judge_all
from identity_props.errors import InputError, MissingError
from identity_props.stack import crews
from identity_props.stack.crews import crew
from identity_props.task.data import digits

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
def started(module, *arguments):
    code = f"from distributed.cli.{module} import main; main()"
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
        while not file.exists():
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], process


def worker(address, folder, threads=1):
    settings = ("--nthreads", str(threads), "--no-nanny", "--no-dashboard", "--local-directory", str(folder))
    return started("dask_worker", address, *settings)


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
        monkeypatch.setattr(crews, "_version", lambda package: "9.9")
        with pytest.raises(
            InputError, match=r"worker tcp://.*: expected the versions of here, got .* in place of 9.9"
        ):
            joined(pixels, scheduler[0])


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

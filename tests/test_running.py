"""Judging many claims: what is shared, what does not depend on the processes, and how it stops."""

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from identity_props.claims import running
from identity_props.claims.registry import CLAIMS as ALL
from identity_props.claims.registry import matching
from identity_props.claims.running import Progress, default_jobs, judge_all, threads
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from tests.drawing import drawn

CLAIMS = matching("linear-1,residual-1*,scaled-whiten")
QUICK = matching("scaled-*")


def by_name(outcomes):
    return {outcome.claim.name: outcome for outcome in outcomes}


def test_every_claim_is_judged_and_what_they_share_is_trained_once(small, monkeypatch):
    trained = []

    def counted(trial, pixels, seeds, *arguments):
        trained.append((trial, seeds))
        return train(trial, pixels, seeds, *arguments)

    train = running.train
    monkeypatch.setattr(running, "train", counted)
    outcomes = by_name(judge_all(CLAIMS, small, jobs=1))
    assert sorted(outcomes) == sorted(claim.name for claim in CLAIMS)
    assert len({trial for trial, seeds in trained}) == 3
    assert len(trained) == len(set(trained))


@pytest.mark.processes
def test_the_outcomes_do_not_depend_on_the_number_of_processes(small):
    one, two = (by_name(judge_all(QUICK, small, jobs=jobs)) for jobs in (1, 2))
    for name, outcome in one.items():
        assert outcome.verdict == two[name].verdict
        assert outcome.fvu == pytest.approx(two[name].fvu, rel=1e-3)


def test_progress_ends_where_the_plan_ends(small):
    heard = []
    list(judge_all(QUICK, small, jobs=1, on_progress=heard.append))
    assert heard[-1] == Progress(heard[-1].planned, heard[-1].planned)
    assert heard[-1].planned > 0


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.processes)])
def test_an_interruption_stops_all_training_within_a_moment(jobs, small):
    def interrupt(progress):
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(judge_all(matching("plain-relu-*"), small, replicas=64, jobs=jobs, on_progress=interrupt))
    # in full it takes a minute and more; two processes take some seconds to import torch
    assert time.monotonic() - started < 30
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("train")]


def test_a_worker_counts_denormals_as_zero_on_all_of_its_threads(tmp_path):
    def all_zero(count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            return bool((torch.full((1_000_000,), 1e-40) * 1 == 0).all())
        finally:
            torch.set_num_threads(before)

    work = tmp_path / "work"
    work.write_bytes(pickle.dumps((None, None)))
    with ThreadPoolExecutor(
        1, "train", running._start, (work, None, None, torch.get_num_threads())
    ) as worker:
        assert worker.submit(all_zero, 2).result()
    with ThreadPoolExecutor(1) as other:
        assert not other.submit(all_zero, 2).result()


def test_what_cannot_be_run_is_refused_before_any_process_starts(small):
    with pytest.raises(InputError, match="claims: expected at least one"):
        next(judge_all([], small))
    with pytest.raises(InputError, match="jobs: expected at least 1, got 0"):
        next(judge_all(CLAIMS, small, jobs=0))
    with pytest.raises(InputError, match="replicas: expected at least 1, got 0"):
        next(judge_all(CLAIMS, small, replicas=0, jobs=1))


def test_processes_share_the_cores(monkeypatch, small):
    monkeypatch.setattr(running, "cores", lambda: 6)
    every = [claim for claim in ALL.values() if not claim.slow]
    assert default_jobs(Stack(), every, small) == 6
    assert default_jobs(Stack(), QUICK, small) == 2  # one a trial
    wide = drawn(d=running.WIDE)
    assert [threads(jobs, wide) for jobs in (1, 2, 4, 6, 9)] == [6, 3, 1, 1, 1]
    assert threads(1, small) == 1

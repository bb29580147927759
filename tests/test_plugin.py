"""The plugin: free for other projects, and threads and distribution where the suite asks for them."""

import json
import os
import subprocess
import sys
from contextlib import chdir
from pathlib import Path

import pytest
import torch

from identity_props.cli import main
from identity_props.plugin import _place


@pytest.fixture
def project(tmp_path):
    """Runs pytest on one test file in a folder of its own, in a process of its own."""

    def run(body, *arguments, ini="", **environment):
        (tmp_path / "test_it.py").write_text(body)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{ini}\n")
        left_out = ("PYTEST", *(["NUM_THREADS"] if "def test_threads" in body else []))
        inherited = {k: v for k, v in os.environ.items() if not any(name in k for name in left_out)}
        command = [Path(sys.executable).parent / "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=inherited | environment, capture_output=True, text=True, check=False
        )

    return run


THREADS = "import os\ndef test_threads(): assert os.environ.get('OMP_NUM_THREADS') == {!r}"


def test_a_project_that_does_not_use_it_never_imports_torch(project):
    done = project("import sys\ndef test_it(): assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_workers_get_one_thread_each_where_the_ini_option_asks(project):
    done = project(THREADS.format("1"), "-n", "1", ini="identity_workers = true")
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_threads_that_the_user_set_stay(project):
    done = project(THREADS.format("3"), "-n", "1", ini="identity_workers = true", OMP_NUM_THREADS="3")
    assert done.returncode == 0, done.stdout


@pytest.mark.processes
def test_other_projects_keep_their_threads(project):
    assert project(THREADS.format(None), "-n", "1").returncode == 0


CONTROLLER = """
def pytest_unconfigure(config):
    if not hasattr(config, "workerinput"):
        print("dist", config.option.dist)
"""


@pytest.mark.parametrize(("given", "used"), [((), "worksteal"), (("--dist", "loadfile"), "loadfile")])
@pytest.mark.processes
def test_tests_are_stolen_between_workers_unless_the_user_says_otherwise(given, used, project, tmp_path):
    (tmp_path / "conftest.py").write_text(CONTROLLER)
    done = project("def test_it(): pass", "-n", "1", *given, ini="identity_workers = true")
    assert f"dist {used}" in done.stdout


def test_the_suite_has_its_workers_placed_in_any_project(project, tmp_path):
    (tmp_path / "conftest.py").write_text(CONTROLLER)
    done = project("", "--pyargs", "identity_props.suite", "-n", "1", "--help")
    assert "dist worksteal" in done.stdout


def test_its_options_reach_its_fixtures(here):
    body = "def test_it(identity_pixels, identity_stack): assert (identity_pixels.d, identity_stack.device) == (196, 'cpu')"
    code, out, _ = here(body, "--identity-side", "14")
    assert code == 0, out


def test_the_installed_suite_runs_outside_of_its_repository_on_the_user_s_parts(here, tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    suite = ("--pyargs", "identity_props.suite", "-k", "gd-trajectory-float64 or declared")
    options = ("--identity-optimizer", "mine:Mine", "--identity-like", "torch.optim:SGD")
    code, out, _ = here("", *suite, *options)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "2 failed" in out
    assert "like-optimizer fail: wrong step: measured" in out
    assert "gd-trajectory: |W - predicted| / |predicted|: measured" in out


COUNTED = """
import pytest, torch
from identity_props.suite.conftest import _threads_as_the_commands_have_them

before = torch.get_num_threads()

@pytest.fixture(scope="session", autouse=True)
def two_threads():
    torch.set_num_threads(2)
    yield
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)

def test_a_law(): assert torch.get_num_threads() == 1

def test_a_claim(identity_pixels): assert torch.get_num_threads() == {}
"""


@pytest.mark.parametrize(("side", "threads"), [("7", 1), ("28", 2)])
def test_the_suite_has_one_thread_where_layers_are_narrow_and_gives_the_others_back(
    side, threads, here, few_digits
):
    code, out, _ = here(COUNTED.format(threads), "--identity-side", side)
    assert code == 0, out


MINE = """
import torch

class Mine(torch.optim.SGD):
    def __init__(self, params, lr, **arguments):
        super().__init__(params, 0.9 * lr, **arguments)
"""


def test_workers_share_the_memory_of_a_gpu(monkeypatch):
    shares = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *share: shares.append(share))
    for worker in range(3):
        environment = {"PYTEST_XDIST_WORKER": f"gw{worker}", "PYTEST_XDIST_WORKER_COUNT": "3"}
        assert _place(environment) == f"cuda:{worker % 2}"
    assert shares == [(0.5, 0), (0.5, 1), (0.5, 0)]


def test_absent_mnist_is_an_error_not_a_pass(here):
    body = "def test_it(identity_pixels): pass"
    code, out, _ = here(body, "--identity-data", "mnist", "--identity-data-dir", ".")
    assert code == 1
    assert "MissingError: MNIST: expected" in out


def test_the_stack_under_test_is_named_by_options(here, tmp_path):
    (tmp_path / "named_here.py").write_text("import torch\n\nclass Mine(torch.optim.SGD): pass")
    body = "def test_it(identity_stack, identity_traits):\n"
    body += "    assert identity_stack.optimizer.__name__ == 'Mine'\n"
    body += "    assert identity_stack.arguments == {'momentum': 0.5}\n"
    body += "    assert 'gradient-descent' not in identity_traits and 'momentum' in identity_traits"
    options = ("--identity-optimizer", "named_here:Mine", "--identity-optimizer-arg", "momentum=0.5")
    code, out, _ = here(body, *options)
    assert code == 0, out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--identity-device", "cuda:99"), "ERROR: device cuda:99: torch sees"),
        (("--identity-baseline", "absent.json"), "baseline absent.json: there is none; --update records one"),
        (("--identity-update",), "expected an --identity-baseline to record in, got none"),
        (("--identity-optimizer", "no_such:Name"), "no_such:Name: there is no module 'no_such' to import"),
        (("--identity-optimizer", "SGD"), "expected pkg.mod:Name"),
        (("--identity-optimizer-arg", "momentum=1"), "expected an optimizer that takes them"),
        (
            ("--identity-like", "torch.optim:SGD"),
            "like: expected an optimizer to compare with torch.optim:SGD, got none",
        ),
        (("--identity-like-arg", "lr=1"), "like arguments: expected an optimizer that takes them"),
        (("--identity-like-linear", "torch.nn:Liner"), "module 'torch.nn' has no 'Liner'"),
        (("--identity-ranks", "0"), "ranks: expected at least 1, got 0"),
        (("--identity-ranks", "2", "--identity-mode", "compiled"), "ranks: expected mode eager"),
    ],
)
def test_a_stack_or_baseline_that_is_not_there_ends_the_run_in_one_clear_line(options, message, here):
    code, _, error = here("def test_it(): pass", *options)
    assert code == pytest.ExitCode.USAGE_ERROR
    assert message in error
    assert error.strip().count("\n") == 0


GATED = ("--pyargs", "identity_props.suite", "-k", "scaled-whiten", "--identity-baseline", "base.json")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A baseline of one claim, as the command records it."""
    with chdir(tmp_path_factory.mktemp("recorded")):
        assert main(["gate", "--baseline", "base.json", "--update", "--claims", "scaled-whiten"]) == 0
        return Path("base.json").read_text()


@pytest.fixture
def baseline(tmp_path, recorded):
    """That baseline, in the project's folder."""
    file = tmp_path / "base.json"
    file.write_text(recorded)
    return file


def test_claims_are_compared_with_a_baseline(here, baseline):
    code, out, _ = here("", *GATED, "--junitxml", "junit.xml", "-o", "junit_family=xunit1")
    assert "The gate passes: 2 comparisons, 2 same." in out
    assert code == 0
    assert 'property name="identity"' in baseline.with_name("junit.xml").read_text()


RECORDS = """
import json, pathlib, pytest

@pytest.mark.parametrize("name", ["one", "two"])
def test_it(name, record_property):
    record = json.loads(pathlib.Path("base.json").read_text())
    record["claims"] = {name: record["claims"][name]}
    record_property("identity", json.dumps(record))
"""


@pytest.mark.processes
def test_what_all_workers_recorded_is_compared(project, baseline):
    recorded = json.loads(baseline.read_text())
    (claim,) = recorded["claims"].values()
    baseline.write_text(json.dumps(recorded | {"claims": {"one": claim, "two": claim}}))
    done = project(RECORDS, "-n", "2", "--identity-baseline", "base.json")
    assert "The gate passes: 4 comparisons, 4 same." in done.stdout, done.stdout
    assert done.returncode == 0


UPDATE = ("--identity-baseline", "base.json", "--identity-update")


def test_claims_are_recorded_beside_the_others_of_the_file(here, tmp_path):
    suite = ("--pyargs", "identity_props.suite", "-k", "scaled-whiten")
    code, out, _ = here("", *suite, *UPDATE)
    assert code == 0, out
    assert "wrote base.json: 1 of 1 claims are new" in out
    file = tmp_path / "base.json"
    assert [*json.loads(file.read_text())["claims"]] == ["scaled-whiten"]


def test_a_run_with_a_test_that_fails_is_not_recorded(here, baseline):
    before = baseline.read_text()
    body = RECORDS.replace('["one", "two"]', '["scaled-whiten"]') + "\ndef test_other(): assert False\n"
    code, out, _ = here(body, *UPDATE)
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "expected tests that pass, got others; nothing is recorded" in out
    assert baseline.read_text() == before


def test_a_claim_that_changed_or_is_missing_fails_the_run_though_every_test_passes(here, baseline):
    recorded = json.loads(baseline.read_text())
    recorded["claims"]["scaled-whiten"]["end"] = [-20 - k / 100 for k in range(16)]
    recorded["claims"]["linear-1"] = recorded["claims"]["scaled-whiten"]
    baseline.write_text(json.dumps(recorded))
    code, out, _ = here("", *GATED)
    assert "1 passed" in out
    assert code == pytest.ExitCode.TESTS_FAILED
    said = [line.split()[:2] for line in out.splitlines() if line.startswith(("linear-1", "scaled"))]
    assert said == [["linear-1", "missing"], ["scaled-whiten/end", "worse"]]


def test_a_run_that_compares_nothing_fails(here, baseline):
    code, out, _ = here("def test_it(): pass", "--identity-baseline", "base.json")
    assert "gate: expected claims to compare, got none" in out
    assert code == pytest.ExitCode.TESTS_FAILED

"""The pytest plugin: options and fixtures of the suite, and the placement of xdist workers.

It is loaded in every project that has this package installed, so it imports nothing heavy and
changes nothing about workers unless the ini option ``identity_workers`` is true or the installed
suite is what runs.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from identity_props.errors import InputError, MissingError

if TYPE_CHECKING:
    from identity_props.claims.verdict import Outcome, Trainer
    from identity_props.conformance.rows import Reference
    from identity_props.gate import Change
    from identity_props.stack.stack import Stack
    from identity_props.task.data import Pixels

RECORD = "identity"
SUITE = "identity_props.suite"
NAME = {"metavar": "PKG.MOD:NAME"}
ARGUMENT = {"action": "append", "default": [], "metavar": "KEY=VALUE", "help": "argument of it; repeat"}
# of --identity-...: those that make the stack, then the others
STACK: dict[str, dict[str, Any]] = {
    "optimizer": {**NAME, "help": "optimizer under test"},
    "optimizer-arg": ARGUMENT,
    "linear": {**NAME, "help": "linear layer under test"},
    "activation": {**NAME, "help": "what stands in for ReLU"},
    "init": {**NAME, "help": "draws a layer's parameters in place"},
    "loss": {**NAME, "help": "loss(prediction, target)"},
    "step": {**NAME, "help": "takes a training step, (optimizer, loss)"},
    "batches": {**NAME, "help": "yields batches, (data, size, generators)"},
    "like": {**NAME, "help": "optimizer that the one under test has to equal, or paper:adam"},
    "like-arg": ARGUMENT,
    "like-linear": {**NAME, "help": "layer that the one under test has to equal"},
    "like-loss": {**NAME, "help": "loss that the one under test has to equal"},
    "like-step": {**NAME, "help": "step that the one under test has to equal"},
    "like-batches": {**NAME, "help": "batches that those under test have to equal, of equal seeds"},
    "clip": {"type": float, "metavar": "NORM", "help": "norm of all gradients at which the step clips"},
    "like-tolerance": {
        "type": float,
        "default": 0.0,
        "metavar": "X",
        "help": "relative distance allowed to a part that rounds on purpose (default: rounding)",
    },
    "novel": {
        "action": "store_true",
        "default": False,
        "help": "the optimizer under test is meant to be none that is published",
    },
    "device": {
        "default": "cpu",
        "metavar": "DEVICE",
        "help": "cpu, cuda (one GPU a worker, in turn) or cuda:N (default: cpu)",
    },
    "dtype": {
        "choices": ("float64", "float32", "bfloat16"),
        "default": "float32",
        "help": "dtype of training (default: float32)",
    },
    "mode": {
        "choices": ("eager", "compiled"),
        "default": "eager",
        "help": "compiled sends loss and step through torch.compile (default: eager)",
    },
    "ranks": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "processes that train data-parallel, with gloo (default: 1)",
    },
}
# those that make the reference, in the order of reference_of
LIKE = (
    *("like", "like-arg", "like-linear", "like-loss", "like-step", "like-batches"),
    *("clip", "like-tolerance", "novel"),
)
OPTIONS: dict[str, dict[str, Any]] = STACK | {
    "data": {
        "choices": ("digits", "mnist"),
        "default": "digits",
        "help": "data the claims are judged on (default: digits)",
    },
    "side": {"type": int, "choices": (7, 14, 28), "default": 7, "help": "pixels a side (default: 7)"},
    "data-dir": {"metavar": "DIR", "help": "folder that holds MNIST/raw (default: $IDENTITY_PROPS_DATA)"},
    "replicas": {
        "type": int,
        "metavar": "N",
        "help": "networks a claim, doubled while it is undecided (default: 8, with a baseline 16)",
    },
    "seed": {"type": int, "default": 0, "metavar": "N", "help": "seed of the first replica (default: 0)"},
    "baseline": {"metavar": "FILE", "help": "baseline that the claims are compared with, see gate"},
    "strict": {"action": "store_true", "help": "better, faster or other machines fail there too"},
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the --identity-... options and the ini option identity_workers."""
    group = parser.getgroup("identity", "identity_props: who learns the identity?")
    for name, how in OPTIONS.items():
        group.addoption(f"--identity-{name}", **how)
    parser.addini(
        "identity_workers",
        type="bool",
        default=False,
        help="one torch thread per xdist worker unless OMP/MKL variables are set, --dist worksteal",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; a stack that is not there is a usage error, before any test."""
    config.addinivalue_line("markers", "mnist: needs the MNIST files")
    config.addinivalue_line("markers", "audit: plants every fault, 5 minutes; run with -m audit")
    config.addinivalue_line("markers", "slow: takes minutes to hours; run with -m slow")
    config.addinivalue_line("markers", "identity: judges a stack; -m identity runs these alone")
    try:
        if any(_given(config, name) != how.get("default") for name, how in STACK.items()):
            here = str(config.invocation_params.dir)
            sys.path.insert(0, here)  # names from there, as python -m has it, until the end of the session
            config.add_cleanup(partial(_forget, here))
            _like(config, _stack(config))
        _gate(config)
    except (InputError, MissingError) as error:
        raise pytest.UsageError(str(error)) from error


def _forget(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)


def _gate(config: pytest.Config) -> None:
    """Compare in the end, in the process that hears of all workers."""
    baseline = _given(config, "baseline")
    if baseline and not hasattr(config, "workerinput"):
        from identity_props.gate import read

        config.pluginmanager.register(_Gate(read(Path(baseline)), _given(config, "strict")))


class _Gate:
    """Collects what the claims recorded, on whatever worker, and compares it once all are done."""

    def __init__(self, baseline: dict[str, Any], strict: bool) -> None:
        self.baseline, self.strict = baseline, strict
        self.records: list[dict[str, Any]] = []
        self.changes: list[Change] = []
        self.error = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.records += [json.loads(str(v)) for name, v in report.user_properties if name == RECORD]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from identity_props.gate import compare, merged, passes

        try:
            self.changes = compare(self.baseline, merged(self.records))
        except InputError as error:
            self.error = str(error)
        if not passes(self.changes, self.strict) and session.exitstatus in (0, 5):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from identity_props.gate import passes
        from identity_props.report.tables import gate_lines

        terminalreporter.section("identity gate")
        terminalreporter.write(self.error or gate_lines(self.changes, passes(self.changes, self.strict)))
        terminalreporter.ensure_newline()


def _given(config: pytest.Config, name: str) -> Any:
    return config.getoption("identity_" + name.replace("-", "_"))


def _stack(config: pytest.Config) -> Stack:
    from identity_props.stack.building import build_once
    from identity_props.stack.stack import stack_of

    names = STACK.keys() - {"optimizer-arg", *LIKE}
    given = {name: _given(config, name) for name in names}
    stack = stack_of(arguments=_given(config, "optimizer-arg"), **given)
    build_once(stack)
    return stack


def _like(config: pytest.Config, stack: Stack) -> Reference:
    from identity_props.conformance.rows import reference_of

    return reference_of(stack, *(_given(config, name) for name in LIKE))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Set threads and distribution before xdist, whose workers inherit this environment."""
    ours = config.getini("identity_workers") or any(SUITE in argument for argument in config.args)
    if ours and config.getoption("numprocesses", None):
        if not any(variable in os.environ for variable in THREADS):
            os.environ.update(dict.fromkeys(THREADS, "1"))
        if config.option.dist == "no":
            config.option.dist = "worksteal"
    return (yield)


@pytest.fixture(scope="session")
def identity_pixels(pytestconfig: pytest.Config) -> Pixels:
    """The data of --identity-data at --identity-side; absent or damaged files are an error."""
    from identity_props.task.data import load

    return load(*(_given(pytestconfig, name) for name in ("data", "side", "data-dir")))


@pytest.fixture(scope="session")
def identity_stack(pytestconfig: pytest.Config) -> Stack:
    """The stack that the options describe; xdist workers take the visible GPUs in turn."""
    stack = _stack(pytestconfig)
    return replace(stack, device=_place(os.environ)) if stack.device == "cuda" else stack


def _place(environment: Mapping[str, str]) -> str:
    """The GPU of this xdist worker, taken in turn, and its share of that GPU's memory set."""
    import torch

    worker = int(environment.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(environment.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    gpus = torch.cuda.device_count()
    torch.cuda.set_per_process_memory_fraction(1 / math.ceil(workers / gpus), worker % gpus)
    return f"cuda:{worker % gpus}"


@pytest.fixture(scope="session")
def identity_replicas(pytestconfig: pytest.Config) -> int:
    """Networks a claim: as the option says, else 8, or 16 to compare with a baseline."""
    given: int | None = _given(pytestconfig, "replicas")
    return given if given is not None else 16 if _given(pytestconfig, "baseline") else 8


@pytest.fixture
def identity_record(
    record_property: Callable[[str, object], None],
    identity_pixels: Pixels,
    identity_stack: Stack,
    pytestconfig: pytest.Config,
) -> Callable[[Outcome], None]:
    """Records an outcome with its test: for the gate, and as a property in JUnit's XML."""
    import torch

    from identity_props.gate import record
    from identity_props.report.documents import context

    jobs = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    made = context(identity_pixels, identity_stack, _given(pytestconfig, "seed"), jobs)
    made["threads"] = torch.get_num_threads()
    return lambda outcome: record_property(RECORD, json.dumps(record([outcome], made), allow_nan=False))


@pytest.fixture(scope="session")
def identity_like(pytestconfig: pytest.Config, identity_stack: Stack) -> Reference:
    """What --identity-like and its kin declare the stack's parts to be."""
    return _like(pytestconfig, identity_stack)


@pytest.fixture(scope="session")
def identity_traits(identity_stack: Stack, identity_like: Reference) -> frozenset[str]:
    """What the parts of the stack are found or declared to be; laws that need more do not apply."""
    from identity_props.conformance.rows import declared
    from identity_props.conformance.traits import traits

    return traits(declared(identity_stack, identity_like))


@pytest.fixture(scope="session")
def identity_train(identity_pixels: Pixels, identity_stack: Stack) -> Trainer:
    """Trains trials on that data and stack; what two claims share is trained once a worker."""
    from identity_props.claims.verdict import trainer

    return trainer(identity_pixels, identity_stack)

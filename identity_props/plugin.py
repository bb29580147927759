"""The pytest plugin: options and fixtures of the suite, and the placement of xdist workers.

It is loaded in every project that has this package installed, so it imports nothing heavy and
changes nothing about workers unless the ini option ``identity_workers`` is true.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from identity_props.errors import InputError, MissingError

if TYPE_CHECKING:
    from identity_props.conformance import Reference
    from identity_props.data import Pixels
    from identity_props.gate import Change
    from identity_props.stack import Stack
    from identity_props.verdict import Outcome, Trainer

RECORD = "identity"
SUITE = "identity_props.suite"
PARTS = {
    "optimizer": "optimizer under test",
    "linear": "linear layer under test",
    "activation": "what stands in for ReLU",
    "init": "draws a layer's parameters in place",
    "like": "optimizer that the one under test has to equal",
    "like-linear": "layer that the one under test has to equal",
}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the --identity-... options and the ini option identity_workers."""
    group = parser.getgroup("identity", "identity_props: who learns the identity?")
    group.addoption(
        "--identity-data",
        choices=("digits", "mnist"),
        default="digits",
        help="data the claims are judged on (default: digits)",
    )
    group.addoption(
        "--identity-side", type=int, choices=(7, 14, 28), default=7, help="pixels a side (default: 7)"
    )
    group.addoption(
        "--identity-data-dir",
        metavar="DIR",
        help="folder that holds MNIST/raw (default: $IDENTITY_PROPS_DATA)",
    )
    group.addoption(
        "--identity-replicas",
        type=int,
        metavar="N",
        help="networks a claim, doubled while it is undecided (default: 8, with a baseline 16)",
    )
    group.addoption(
        "--identity-baseline", metavar="FILE", help="baseline that the claims are compared with, see gate"
    )
    group.addoption(
        "--identity-strict", action="store_true", help="better, faster or other machines fail there too"
    )
    group.addoption(
        "--identity-seed", type=int, default=0, metavar="N", help="seed of the first replica (default: 0)"
    )
    group.addoption(
        "--identity-device",
        default="cpu",
        metavar="DEVICE",
        help="cpu, cuda (one GPU a worker, in turn) or cuda:N (default: cpu)",
    )
    for part, what in PARTS.items():
        group.addoption(f"--identity-{part}", metavar="PKG.MOD:NAME", help=what)
    for part in ("optimizer", "like"):
        group.addoption(
            f"--identity-{part}-arg",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            help="argument of that optimizer; repeat",
        )
    group.addoption(
        "--identity-dtype",
        choices=("float64", "float32", "bfloat16"),
        default="float32",
        help="dtype of training (default: float32)",
    )
    group.addoption(
        "--identity-mode",
        choices=("eager", "compiled"),
        default="eager",
        help="compiled sends loss and step through torch.compile (default: eager)",
    )
    group.addoption(
        "--identity-ranks",
        type=int,
        default=1,
        metavar="N",
        help="processes that train data-parallel, with gloo (default: 1)",
    )
    parser.addini(
        "identity_workers",
        type="bool",
        default=False,
        help="one torch thread per xdist worker unless OMP/MKL variables are set, --dist worksteal",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers; a stack that is not there is a usage error, before any test."""
    config.addinivalue_line("markers", "mnist: needs the MNIST files")
    config.addinivalue_line("markers", "slow: takes minutes to hours; run with -m slow")
    config.addinivalue_line("markers", "identity: judges a stack; -m identity runs these alone")
    if any(config.getoption(_option(name)) != default for name, default in NOTHING_ASKED.items()):
        sys.path.insert(0, str(config.invocation_params.dir))  # names from there, as python -m has it
        try:
            _stack(config)
            _like(config)
        except (InputError, MissingError) as error:
            raise pytest.UsageError(str(error)) from error

    baseline = config.getoption("identity_baseline")
    if baseline and not hasattr(config, "workerinput"):
        from identity_props.gate import read

        try:
            config.pluginmanager.register(_Gate(read(Path(baseline)), config.getoption("identity_strict")))
        except InputError as error:
            raise pytest.UsageError(str(error)) from error


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
        from identity_props.report import gate_lines

        terminalreporter.section("identity gate")
        terminalreporter.write(self.error or gate_lines(self.changes, passes(self.changes, self.strict)))
        terminalreporter.ensure_newline()


NOTHING_ASKED: dict[str, object] = {"device": "cpu", "mode": "eager", "ranks": 1}
NOTHING_ASKED |= dict.fromkeys(PARTS) | {"optimizer-arg": [], "like-arg": []}


def _option(name: str) -> str:
    return "identity_" + name.replace("-", "_")


def _stack(config: pytest.Config) -> Stack:
    from identity_props.stack import stack_of

    names = ("optimizer", "linear", "activation", "init", "device", "dtype", "mode", "ranks")
    given = {name: config.getoption(_option(name)) for name in names}
    return stack_of(arguments=config.getoption("identity_optimizer_arg"), **given)


def _like(config: pytest.Config) -> Reference:
    from identity_props.conformance import Reference
    from identity_props.stack import arguments_of, resolve

    optimizer, linear = config.getoption("identity_like"), config.getoption("identity_like_linear")
    if optimizer and not config.getoption("identity_optimizer"):
        raise InputError("--identity-like: expected an --identity-optimizer to compare with it, got none")
    return Reference(
        resolve(optimizer) if optimizer else None,
        arguments_of(config.getoption("identity_like_arg")),
        resolve(linear) if linear else None,
    )


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
    from identity_props.data import load

    name, side = pytestconfig.getoption("identity_data"), pytestconfig.getoption("identity_side")
    return load(name, side, pytestconfig.getoption("identity_data_dir"))


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
    given = pytestconfig.getoption("identity_replicas")
    return given if given is not None else 16 if pytestconfig.getoption("identity_baseline") else 8


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
    from identity_props.report import context

    jobs = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    made = context(identity_pixels, identity_stack, pytestconfig.getoption("identity_seed"), jobs)
    made["threads"] = torch.get_num_threads()
    return lambda outcome: record_property(RECORD, json.dumps(record([outcome], made), allow_nan=False))


@pytest.fixture(scope="session")
def identity_like(pytestconfig: pytest.Config) -> Reference:
    """What --identity-like and --identity-like-linear declare the stack's parts to be."""
    return _like(pytestconfig)


@pytest.fixture(scope="session")
def identity_traits(identity_stack: Stack, identity_like: Reference) -> frozenset[str]:
    """What the parts of the stack are found or declared to be; laws that need more do not apply."""
    from identity_props.conformance import declared
    from identity_props.traits import traits

    return traits(declared(identity_stack, identity_like))


@pytest.fixture(scope="session")
def identity_train(identity_pixels: Pixels, identity_stack: Stack) -> Trainer:
    """Trains trials on that data and stack; what two claims share is trained once a worker."""
    from identity_props.verdict import trainer

    return trainer(identity_pixels, identity_stack)

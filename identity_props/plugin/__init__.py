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
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from identity_props.errors import InputError, MissingError
from identity_props.plugin.layer import identity_layer, layer_of
from identity_props.plugin.options import LAYER, LIKE, OPTIONS, STACK, TRAINER

if TYPE_CHECKING:
    from identity_props.claims.registry import Claim
    from identity_props.claims.verdict import Outcome
    from identity_props.claims.verdict import Trainer as Train
    from identity_props.conformance.rows import Reference, Row
    from identity_props.gate import Change
    from identity_props.stack.stack import Stack
    from identity_props.task.data import Pixels
    from identity_props.trainers.running import Trainer

__all__ = ["identity_layer"]  # a fixture
RECORD = "identity"
SUITE = "identity_props.suite"
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
        own = {**STACK, **TRAINER, **LAYER}
        if any(_given(config, name) != how.get("default") for name, how in own.items()):
            here = str(config.invocation_params.dir)
            sys.path.insert(0, here)  # names from there, as python -m has it, until the end of the session
            config.add_cleanup(partial(_forget, here))
            _like(config, _stack(config))
            _trainer(config).fit()
            layer_of(config)
        _gate(config)
    except (InputError, MissingError) as error:
        raise pytest.UsageError(str(error)) from error


def _forget(folder: str) -> None:
    if folder in sys.path:
        sys.path.remove(folder)


def _gate(config: pytest.Config) -> None:
    """Compare in the end, in the process that hears of all workers."""
    baseline = _given(config, "baseline")
    if _given(config, "update") and not baseline:
        raise InputError("--identity-update: expected an --identity-baseline to record in, got none")
    if baseline and not hasattr(config, "workerinput"):
        recorded = _recorded(config)
        config.pluginmanager.register(
            _Gate(Path(baseline), recorded, _given(config, "strict"), _given(config, "update"))
        )


def _recorded(config: pytest.Config) -> dict[str, Any] | None:
    """The baseline that is given, None where there is none, or none yet."""
    from identity_props.gate import check_place, read

    if (given := _given(config, "baseline")) is None:
        return None
    check_place(file := Path(given))
    return None if _given(config, "update") and not file.exists() else read(file)


class _Gate:
    """Collects what the claims recorded, on whatever worker, and compares or records it once all are done."""

    def __init__(self, file: Path, baseline: dict[str, Any] | None, strict: bool, update: bool) -> None:
        self.file, self.baseline, self.strict, self.update = file, baseline, strict, update
        self.records: list[dict[str, Any]] = []
        self.changes: list[Change] = []
        self.said = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.records += [json.loads(str(v)) for name, v in report.user_properties if name == RECORD]

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from identity_props.gate import compare, merged, passes

        try:
            after = merged(self.records)
            if self.update:
                self.said = self._record(after, session.exitstatus)
                return
            self.changes = compare(self.baseline or {}, after)
        except InputError as error:
            self.said = str(error)
        if not passes(self.changes, self.strict) and session.exitstatus in (0, 5):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def _record(self, after: dict[str, Any], status: int) -> str:
        """Write the baseline; raises InputError for a run with a test that fails, which is not recorded."""
        from identity_props.gate import text, with_kept
        from identity_props.report.files import replace_file

        if status != pytest.ExitCode.OK:
            raise InputError("--identity-update: expected tests that pass, got others; nothing is recorded")
        made = with_kept(self.baseline, after)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        return f"wrote {replace_file(self.file, text(made))}: {len(after['claims'])} of {len(made['claims'])} claims are new"

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        from identity_props.gate import passes
        from identity_props.report.tables import gate_lines

        terminalreporter.section("identity gate")
        terminalreporter.write(self.said or gate_lines(self.changes, passes(self.changes, self.strict)))
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


def _trainer(config: pytest.Config) -> Trainer:
    from identity_props.conformance.training import check_accepted
    from identity_props.trainers.running import trainer_of

    check_accepted(_given(config, "accept"))
    return trainer_of(_given(config, "trainer"), _given(config, "trainer-arg"), None)


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
    from identity_props.task.reading import load

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

    from identity_props.gate import record, stack_of_record
    from identity_props.report.documents import context

    jobs = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    made = context(identity_pixels, identity_stack, _given(pytestconfig, "seed"), jobs)
    made["threads"], made["stack"] = torch.get_num_threads(), stack_of_record(identity_stack)
    return lambda outcome: record_property(RECORD, json.dumps(record([outcome], made), allow_nan=False))


@pytest.fixture(scope="session")
def identity_own(
    pytestconfig: pytest.Config, identity_pixels: Pixels, identity_stack: Stack
) -> Callable[[str], Claim]:
    """A claim of an optimizer of its own by name, at the rate of the baseline, or searched to be recorded; or a skip."""
    from identity_props.gate import own_claims, rates_of, stack_of_record

    baseline, update = _recorded(pytestconfig), _given(pytestconfig, "update")
    same = baseline is not None and baseline["stack"] == stack_of_record(identity_stack)
    rates = rates_of(baseline) if same or not update else {}

    def claim(name: str) -> Claim:
        if identity_stack.optimizer is None or _given(pytestconfig, "baseline") is None:
            pytest.skip("of an optimizer of its own, at the rate that --identity-baseline keeps")
        if not update and name not in rates:
            pytest.skip("not in the baseline, as it did not hold where that was recorded")
        found = own_claims([name], identity_stack, identity_pixels, rates)[name]
        return pytest.skip(found) if isinstance(found, str) else found

    return claim


@pytest.fixture(scope="session")
def identity_like(pytestconfig: pytest.Config, identity_stack: Stack) -> Reference:
    """What --identity-like and its kin declare the stack's parts to be."""
    return _like(pytestconfig, identity_stack)


@pytest.fixture(scope="session")
def identity_trainer(pytestconfig: pytest.Config) -> Iterator[Callable[[str], Row]]:
    """What a law of trainers, by name, says of the trainer that --identity-trainer names."""
    from identity_props.conformance.training import row_of
    from identity_props.trainers import TRAINER_LAWS
    from identity_props.trainers.running import bench_of

    trainer, accept = _trainer(pytestconfig), _given(pytestconfig, "accept")
    with bench_of(trainer, _given(pytestconfig, "seed"), _given(pytestconfig, "ranks")) as bench:
        yield lambda law: row_of(TRAINER_LAWS[law], bench, accept, trainer.designs())


@pytest.fixture(scope="session")
def identity_traits(identity_stack: Stack, identity_like: Reference) -> frozenset[str]:
    """What the parts of the stack are found or declared to be; laws that need more do not apply."""
    from identity_props.conformance.following import THREADS
    from identity_props.conformance.meant import traits_meant
    from identity_props.conformance.rows import declared
    from identity_props.stack.unchanged import unchanged

    with unchanged(THREADS):
        return traits_meant(identity_stack, declared(identity_stack, identity_like))


@pytest.fixture(scope="session")
def identity_train(identity_pixels: Pixels, identity_stack: Stack) -> Train:
    """Trains trials on that data and stack; what two claims share is trained once a worker."""
    from identity_props.claims.verdict import trainer

    return trainer(identity_pixels, identity_stack)

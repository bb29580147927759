"""The pytest plugin: options and fixtures of the suite, and the placement of xdist workers.

It is loaded in every project that has this package installed, so it imports nothing heavy and
changes nothing about workers unless the ini option ``identity_workers`` is true.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from identity_props.errors import InputError, MissingError

if TYPE_CHECKING:
    from identity_props.data import Pixels
    from identity_props.stack import Stack
    from identity_props.verdict import Trainer

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
        default=8,
        metavar="N",
        help="networks a claim, doubled while it is undecided (default: 8)",
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
    group.addoption("--identity-optimizer", metavar="PKG.MOD:NAME", help="optimizer under test")
    group.addoption(
        "--identity-optimizer-arg",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="argument of that optimizer; repeat",
    )
    group.addoption("--identity-linear", metavar="PKG.MOD:NAME", help="linear layer under test")
    group.addoption(
        "--identity-dtype",
        choices=("float64", "float32", "bfloat16"),
        default="float32",
        help="dtype of training (default: float32)",
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
    if any(config.getoption(f"identity_{name}") for name in ("optimizer", "optimizer_arg", "linear")) or (
        config.getoption("identity_device") != "cpu"
    ):
        try:
            _stack(config)
        except (InputError, MissingError) as error:
            raise pytest.UsageError(str(error)) from error


def _stack(config: pytest.Config) -> Stack:
    from identity_props.stack import stack_of

    names = ("optimizer", "optimizer_arg", "linear", "device", "dtype")
    return stack_of(*(config.getoption(f"identity_{name}") for name in names))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, object, object]:
    """Set threads and distribution before xdist, whose workers inherit this environment."""
    if config.getini("identity_workers") and config.getoption("numprocesses", None):
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
    if stack.device != "cuda":
        return stack
    import torch

    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return replace(stack, device=f"cuda:{worker % torch.cuda.device_count()}")


@pytest.fixture(scope="session")
def identity_traits(identity_stack: Stack) -> frozenset[str]:
    """What the stack's optimizer is found to be; laws that need more do not apply."""
    from identity_props.traits import traits

    return traits(identity_stack)


@pytest.fixture(scope="session")
def identity_train(identity_pixels: Pixels, identity_stack: Stack) -> Trainer:
    """Trains trials on that data and stack; what two claims share is trained once a worker."""
    from identity_props.verdict import trainer

    return trainer(identity_pixels, identity_stack)

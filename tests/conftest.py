"""What several test files need. torch is imported by those alone that test: xdist's controller does not wait for it."""

import os
from functools import partial

import pytest


@pytest.fixture(scope="session")
def small():
    from tests.drawing import drawn

    return drawn()


@pytest.fixture(scope="session")
def mnist_28(pytestconfig):
    from identity_props.errors import MissingError
    from identity_props.task.data import mnist

    try:
        return mnist(28, pytestconfig.getoption("identity_data_dir"))
    except MissingError as absent:
        pytest.skip(str(absent))


@pytest.fixture
def here(tmp_path, monkeypatch, capsys):
    """Runs pytest on one test file in a folder of its own, in this process; exit code, output and errors."""

    def run(body, *arguments):
        file = tmp_path / f"test_{tmp_path.name}.py"  # of a name that no earlier run has imported
        file.write_text(body)
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        alone = ("-p", "no:cacheprovider", "--import-mode", "importlib", "--rootdir", ".", "-c", os.devnull)
        return pytest.main([*alone, *arguments, file.name]), *capsys.readouterr()

    return run


@pytest.fixture
def one_family(monkeypatch):
    """One family of data shows a broken part as well as three, in a third of the time."""
    from identity_props.conformance import checking

    monkeypatch.setattr(checking, "FAMILIES", checking.FAMILIES[:1])


@pytest.fixture
def few_digits(monkeypatch):
    """A sixteenth of the digits, for commands whose figures do not matter."""
    from identity_props.task import reading

    monkeypatch.setattr(reading, "digits", partial(reading.digits, train=512, test=128))


@pytest.fixture
def no_ranks():
    """No ranks of other tests of this worker, for tests that count processes, or wait for all."""
    from identity_props.stack import ranks

    for number in [*ranks._groups]:
        ranks._stop(number, wait=True)


@pytest.fixture
def laws_left():
    """Leaves laws of some names in the registry, until all are back in the order in which they are asked."""
    from identity_props.laws import LAWS

    whole = dict(LAWS)

    def leave(names):
        for name in LAWS.keys() - names:
            del LAWS[name]

    yield leave
    LAWS.clear()
    LAWS.update(whole)

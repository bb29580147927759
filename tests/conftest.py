"""What several test files need: data sets small enough to train on in no time, and MNIST."""

import os

import pytest
import torch

from identity_props.data import Pixels, mnist
from identity_props.errors import MissingError


def drawn(d=4, train=64, test=32, seed=0, low=0.0, high=255.0):
    """Pixels [n, d], uniform on low to high, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = low + (high - low) * torch.rand(train + test, d, generator=generator, dtype=torch.float64)
    return Pixels("drawn", x[:train], x[train:])


@pytest.fixture(scope="session")
def small():
    return drawn()


@pytest.fixture(scope="session")
def mnist_28(pytestconfig):
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

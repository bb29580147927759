"""The stack: resolving names, and what is refused."""

import pytest
import torch

from identity_props.errors import InputError, MissingError
from identity_props.stack import Stack, resolve


def test_a_name_is_resolved_to_the_object_itself():
    assert resolve("torch.optim:SGD") is torch.optim.SGD


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("SGD", InputError, "expected pkg.mod:Name, such as torch.optim:SGD, got 'SGD'"),
        ("torch.optim:", InputError, "expected pkg.mod:Name"),
        ("torch.optim:Sgd", InputError, "module 'torch.optim' has no 'Sgd'"),
        ("no_such.package:Name", MissingError, "no module 'no_such' to import"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(name, error, message):
    with pytest.raises(error, match=message):
        resolve(name)


def test_a_device_or_dtype_that_cannot_train_is_refused():
    with pytest.raises(InputError, match="device: expected cpu, cuda or cuda:N, got 'gpu'"):
        Stack(device="gpu")
    with pytest.raises(InputError, match=r"dtype: expected a floating one, got torch\.int32"):
        Stack(dtype=torch.int32)


def test_a_gpu_that_is_not_there_is_missing():
    with pytest.raises(MissingError, match=r"torch sees .* CUDA devices; --device cpu works"):
        Stack(device="cuda:99")


def test_a_stack_describes_itself_by_name():
    described = Stack(optimizer=torch.optim.SGD, dtype=torch.float64).describe()
    assert described == {
        "optimizer": "torch.optim.sgd:SGD",
        "linear": "torch.nn.modules.linear:Linear",
        "device": "cpu",
        "dtype": "float64",
    }

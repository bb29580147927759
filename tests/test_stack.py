"""The stack: resolving names, and what is refused."""

import pytest
import torch

from identity_props.errors import InputError, MissingError
from identity_props.stack.stack import Stack, arguments_of, resolve, stack_of


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


def test_a_mode_or_number_of_ranks_that_is_not_there_is_refused(monkeypatch):
    with pytest.raises(InputError, match="mode: expected eager or compiled, got 'jit'"):
        Stack(mode="jit")
    with pytest.raises(InputError, match="ranks: expected at least 1, got 0"):
        Stack(ranks=0)
    with pytest.raises(InputError, match="ranks: expected mode eager for more than 1, got 'compiled'"):
        Stack(ranks=2, mode="compiled")
    monkeypatch.setattr(torch.distributed, "is_gloo_available", lambda: False)
    with pytest.raises(MissingError, match="ranks: expected a torch with gloo for 2; 1 works without"):
        Stack(ranks=2)


def test_a_dtype_that_the_device_lacks_is_missing(monkeypatch):
    def lacking(*shape, dtype, **arguments):
        raise TypeError("no such dtype here")

    monkeypatch.setattr(torch, "ones", lacking)
    with pytest.raises(MissingError, match=r"device cpu: has no torch\.float64: no such dtype here"):
        Stack(dtype=torch.float64)


def test_a_gpu_that_is_not_there_is_missing():
    with pytest.raises(MissingError, match=r"torch sees .* CUDA devices; --device cpu works"):
        Stack(device="cuda:99")


def test_a_stack_describes_itself_by_name():
    described = Stack(optimizer=torch.optim.SGD, dtype=torch.float64).describe()
    assert described == {
        "optimizer": "torch.optim.sgd:SGD",
        "linear": "torch.nn.modules.linear:Linear",
        "activation": "torch:relu",
        "init": "the recipe's",
        "loss": "torch.nn.functional:mse_loss",
        "step": "identity_props.loop:take_step",
        "batches": "identity_props.loop:shuffled",
        "device": "cpu",
        "dtype": "float64",
        "mode": "eager",
        "ranks": 1,
    }


def test_a_stack_is_shown_by_what_is_unusual_about_it():
    assert str(Stack(optimizer=torch.optim.SGD, ranks=2)) == "optimizer torch.optim.sgd:SGD, ranks 2"
    assert str(Stack()) == "torch's own parts"


@pytest.mark.parametrize(
    ("pairs", "arguments"),
    [
        ([], {}),
        (
            ["lr=0.1", "nesterov=True", "betas=(0.9,0.99)"],
            {"lr": 0.1, "nesterov": True, "betas": (0.9, 0.99)},
        ),
        (["rule=heavy", "path=a=b"], {"rule": "heavy", "path": "a=b"}),
    ],
)
def test_arguments_are_read_as_python_values_or_else_as_text(pairs, arguments):
    assert arguments_of(pairs) == arguments


@pytest.mark.parametrize("pair", ["momentum", "=1", "a b=1", ""])
def test_an_argument_that_is_not_key_value_is_refused(pair):
    with pytest.raises(InputError, match="argument: expected key=value"):
        arguments_of([pair])


def test_a_stack_is_made_from_names():
    stack = stack_of("torch.optim:SGD", ["momentum=0.5"], "torch.nn:Linear", dtype="float64", lr=0.5)
    assert stack.optimizer is torch.optim.SGD
    assert (stack.arguments, stack.dtype, stack.lr) == ({"momentum": 0.5}, torch.float64, 0.5)
    with pytest.raises(InputError, match="expected an optimizer that takes them, got none"):
        stack_of(arguments=["momentum=0.5"])
    with pytest.raises(InputError, match="dtype: expected one of float64, float32, bfloat16, got 'half'"):
        stack_of(dtype="half")
    with pytest.raises(InputError, match=r"optimizer: expected a class or function, got 'heavy'"):
        Stack(optimizer="heavy")


def test_a_module_that_raises_while_it_is_imported_is_refused_by_name(tmp_path, monkeypatch):
    (tmp_path / "raises_at_import.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="importing 'raises_at_import' raised ZeroDivisionError"):
        resolve("raises_at_import:Name")

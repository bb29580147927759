"""Checkpoints and networks as they are found: read where it is plain what is meant, else one line says what was expected."""

import pytest
import torch
from torch import nn

from identity_props.errors import InputError
from identity_props.explanation.checkpoints import read_into, unwrapped
from identity_props.explanation.networks import loaded, on_rows
from identity_props.task.data import Pixels, digits


def net():
    return nn.Sequential(nn.Linear(49, 5), nn.BatchNorm1d(5), nn.Linear(5, 49))


def prefixed(by, state):
    return {by + name: value for name, value in state.items()}


class Holder(nn.Module):
    """A module that has a network under a name, as a LightningModule has."""

    def __init__(self, name="model"):
        super().__init__()
        setattr(self, name, net())


SAVED = {
    "as it is": lambda state: state,
    "DataParallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "both": lambda state: prefixed("module._orig_mod.", state),
    "a layer compiled": lambda state: {
        name.replace("0.", "0._orig_mod.", 1): one for name, one in state.items()
    },
    "with its optimizer": lambda state: {
        "model_state_dict": state,
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.1}]},
        "epoch": 3,
    },
    "Lightning": lambda state: {
        "state_dict": prefixed("model.", state) | {"metric.total": torch.zeros(())},
        "callbacks": {"best": {"score": torch.zeros(()), "monitor": "loss"}},
        "optimizer_states": [{"state": {0: {"step": torch.ones(())}}, "param_groups": []}],
        "global_step": 9,
    },
}


@pytest.mark.parametrize("name", SAVED)
def test_weights_are_found_in_what_a_training_saves(name, tmp_path):
    model, file = net(), tmp_path / "net.ckpt"
    torch.save(SAVED[name](net().state_dict()), file)
    read_into(model, "net", file)
    saved = SAVED["as it is"](torch.load(file, weights_only=True))
    values = [*(saved.get("state_dict") or saved.get("model_state_dict") or saved).values()]
    assert all(map(torch.equal, model.state_dict().values(), values))


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_a_wrapped_network_takes_the_weights_of_a_bare_one(wrap, tmp_path):
    bare, wrapped, file = net(), wrap(net()), tmp_path / "net.pt"
    torch.save(bare.state_dict(), file)
    read_into(wrapped, "net", file)
    assert all(map(torch.equal, bare.state_dict().values(), unwrapped(wrapped).state_dict().values()))


def test_a_module_that_is_called_module_is_no_wrapper(tmp_path):
    holder, file = Holder("module"), tmp_path / "net.pt"
    torch.save(holder.state_dict(), file)
    other = Holder("module")
    read_into(other, "net", file)
    assert all(map(torch.equal, holder.state_dict().values(), other.state_dict().values()))
    assert unwrapped(other) is other


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda s: {"model": s, "ema": s}, "expected one state_dict, got model, ema; save the one"),
        (
            lambda s: prefixed("gen.", s) | prefixed("disc.", s),
            "expected one network, got disc., gen.; save the one",
        ),
        (lambda s: s | {"7.weight": torch.zeros(2)}, "Unexpected key"),
        (lambda s: prefixed("module.", dict([*s.items()][1:])), "Missing key"),
        (lambda s: {"epoch": 3}, "expected tensors by name, as state_dict"),
        (lambda s: prefixed("net", s), "Missing key"),
    ],
)
def test_weights_of_which_it_is_not_plain_are_refused(saved, message, tmp_path):
    file = tmp_path / "net.pt"
    torch.save(saved(net().state_dict()), file)
    with pytest.raises(InputError, match=message.replace(".", r"\.")) as raised:
        read_into(net(), "net", file)
    assert "\n" not in str(raised.value)


class Answers(nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


PIXELS = digits(7, train=64, test=32).scaled("unit")
TABLE = Pixels("table", PIXELS.train, PIXELS.test)


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        (lambda x: (x, x[:, :3]), r"got tuple of \[2, 49\], \[2, 3\]"),
        (lambda x: {"made": x, "z": None}, r"got dict of made \[2, 49\], z NoneType"),
        (lambda x: None, "got NoneType"),
    ],
)
@pytest.mark.parametrize("pixels", [PIXELS, TABLE], ids=["pictures", "table"])
def test_an_answer_that_is_no_tensor_is_told_with_what_it_holds(answer, got, pixels):
    with pytest.raises(InputError, match=f"expected a tensor from it, {got}; build a module whose"):
        on_rows(Answers(answer), pixels)


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: x.unflatten(1, (7, 7)),
        lambda x: x.reshape(-1, 1, 7, 7),
        lambda x: x.transpose(-1, -2).reshape(len(x), 7, 7) if x.ndim == 3 else x[:, :2, :2],
        lambda x: torch.nn.functional.max_pool2d(x, 3, 1, 1) if x.ndim == 4 else x[:, :2],
    ],
)
def test_a_network_of_pictures_or_their_rows_is_one_of_rows(answer):
    y = on_rows(Answers(answer), PIXELS)(PIXELS.test)
    assert y.shape == PIXELS.test.shape


def test_a_convolution_that_refuses_pictures_says_why():
    with pytest.raises(InputError, match=r"expected to take pictures \[n, 1, 7, 7\].* to have 3 channels"):
        on_rows(nn.Conv2d(3, 3, 3), PIXELS)


def test_a_factory_of_a_wrapped_network_gives_the_network(tmp_path, monkeypatch):
    (tmp_path / "wrapped_here.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.DataParallel(nn.Linear(49, 49))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert type(loaded("wrapped_here:build", None)) is nn.Linear

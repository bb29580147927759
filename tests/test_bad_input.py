"""Bad input of every kind: one line and an exit code, never a traceback, and no bug of ours is hidden."""

import math
import os
import random
import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file

from identity_props.cli import laws, main
from identity_props.conformance.assertions import assert_learns_identity
from identity_props.conformance.checking import MOVES, check
from identity_props.conformance.rows import FAIL, Reference
from identity_props.errors import InputError, MissingError
from identity_props.explanation.networks import loaded
from identity_props.stack.stack import Stack

SGD, Adam = torch.optim.SGD, torch.optim.Adam


class Refuses(SGD):
    """A bug of its own."""

    def __init__(self, params, lr):
        raise AttributeError("own bug")


class Timid(SGD):
    def __init__(self, params, lr):
        if lr > 1:
            raise ValueError("too fast for me")
        super().__init__(params, lr)


class NoOptimizer:
    def __init__(self, params, **arguments):
        pass


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ({"optimizer": SGD, "arguments": {"foo": 1}}, "got an unexpected keyword argument 'foo'"),
        ({"optimizer": Adam, "arguments": {"betas": (2, 3)}}, "got betas=(2, 3): Invalid beta"),
        ({"optimizer": Adam, "arguments": {"betas": 3, "eps": 1e-3}}, "got betas=3: 'int' object is not"),
        ({"optimizer": Adam, "arguments": {"lr": 1}}, "expected no lr among its arguments"),
        ({"optimizer": Adam, "arguments": {"params": 1}}, "multiple values for argument 'params'"),
        ({"optimizer": Timid, "lr": 2.0}, "expected a rate that it takes, got 2: too fast for me"),
        ({"optimizer": NoOptimizer}, "expected an optimizer, which has a step, got NoOptimizer"),
        ({"optimizer": math.sqrt}, "optimizer math:sqrt: expected an optimizer"),
        ({"optimizer": torch.nn.Linear}, "expected an optimizer that takes (params, lr)"),
        ({"lr": 1e300}, "lr: expected a finite rate above 0, got 1e+300, more than float32 holds"),
        ({"lr": 0.0}, "lr: expected a finite rate above 0, got 0.0"),
        ({"device": "meta"}, "device meta: has no torch.float32"),
    ],
)
@pytest.mark.parametrize("judge", [lambda stack: next(check(stack)), assert_learns_identity])
def test_what_is_given_for_an_optimizer_is_refused_before_any_row(stack, message, judge):
    with pytest.raises((InputError, MissingError)) as refused:
        judge(Stack(**stack))
    assert message in str(refused.value)


def test_a_reference_is_refused_as_well():
    with pytest.raises(InputError, match=r"like torch.optim.sgd:SGD: .*'foo'"):
        next(check(Stack(optimizer=SGD), Reference(optimizer=SGD, arguments={"foo": 1})))


def test_a_constructor_that_raises_of_its_own_is_one_failing_row():
    (row,) = check(Stack(optimizer=Refuses))
    assert (row.name, row.verdict, row.kind) == (MOVES, FAIL, "error")
    assert "AttributeError: own bug" in row.note


LONG = "x" * 5000


@pytest.mark.parametrize("path", [LONG, "loop", "loop/file"], ids=["long", "loop", "in-loop"])
@pytest.mark.parametrize(
    "command",
    [
        ["run", "--out"],
        ["check", "--out"],
        ["explain", "--out"],
        ["gate", "--baseline"],
        ["gate", "--update", "--baseline"],
        ["gate", "--baseline", "base.json", "--summary"],
        ["run", "--data", "mnist", "--data-dir"],
        ["explain", "--model", "torch.nn:Identity", "--weights"],
    ],
    ids=" ".join,
)
def test_a_path_that_cannot_be_followed_is_one_line(command, path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main([*command, path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert f"Invalid value for '{command[-1]}'" in err


def test_a_data_folder_that_cannot_be_followed_is_absent(monkeypatch, capsys):
    monkeypatch.setenv("IDENTITY_PROPS_DATA", LONG)
    assert main(["run", "--data", "mnist"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--optimizer", "math:sqrt", "--lr", "1"], "optimizer math:sqrt: expected an optimizer"),
        (["--optimizer", "torch.optim:Adam", "--optimizer-arg", "betas=3"], "got betas=3"),
        (["--lr", "1e300"], "more than float32 holds"),
        (["--seed", str(2**70)], "Invalid value for '--seed'"),
        (["--optimizer", "tests.test_bad_input:Refuses"], "training with it raised AttributeError: own bug"),
    ],
)
def test_explain_refuses_what_it_cannot_train_with(arguments, message, few_digits, capsys):
    assert main(["explain", "--steps", "5", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert message in err


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(laws, "put", lambda text: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["laws"])


PROGRAM = [sys.executable, "-m", "identity_props"]


@pytest.mark.processes
@pytest.mark.parametrize("command", [["laws"], ["--help"], ["check", "--optimizer", "torch.optim:SGD"]])
def test_a_full_disk_behind_stdout_is_one_line(command):
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == (
        "identity-props: stdout: expected to be written to, got: No space left on device"
    )
    assert "Traceback" not in ended.stderr


@pytest.mark.processes
@pytest.mark.parametrize("command", [["laws"], ["--help"]], ids=" ".join)
def test_a_reader_that_has_gone_ends_the_command_quietly_as_it_ends_unix_tools(command):
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run([*PROGRAM, *command], stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


@pytest.mark.processes
def test_a_full_disk_behind_stderr_changes_no_verdict():
    with open("/dev/full", "w") as full:
        ended = subprocess.run([*PROGRAM, "nonsense"], stdout=subprocess.PIPE, stderr=full)
    assert ended.returncode == 2


def network():
    return torch.nn.Linear(4, 4)


@pytest.fixture
def whole(tmp_path):
    """Weights in three formats, as bytes by their file's ending."""
    state = network().state_dict()
    torch.save(state, tmp_path / "zip.pt")
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    save_file(state, tmp_path / "one.safetensors")
    return [(path.suffix, path.read_bytes()) for path in sorted(tmp_path.iterdir())]


def damaged(data, draw):
    """Bytes changed, cut off, turned round or put in."""
    data, at = bytearray(data), draw.randrange(len(data))
    match draw.randrange(4):
        case 0:
            for _ in range(draw.choice([1, 2, 8, 64])):
                data[draw.randrange(len(data))] = draw.randrange(256)
        case 1:
            del data[at:]
        case 2:
            data[at : at + 40] = data[at : at + 40][::-1]
        case 3:
            data[at:at] = draw.randbytes(draw.randrange(1, 20))
    return data


def test_damaged_weights_are_refused_in_one_line_or_load(whole, tmp_path):
    draw, refused = random.Random(0), []
    for _ in range(500):
        ending, data = draw.choice(whole)
        file = tmp_path / f"damaged{ending}"
        file.write_bytes(damaged(data, draw))
        try:
            loaded("tests.test_bad_input:network", file)
        except InputError as error:
            refused.append(str(error).startswith(f"--weights {file}: expected"))
    assert all(refused)
    assert len(refused) > 300


class Runs:
    def __reduce__(self):
        return os.mkdir, ("executed",)


@pytest.mark.parametrize(
    "kind",
    [
        Runs(),
        {"weight": Runs()},
        [torch.zeros(4, 4)],
        {1: torch.zeros(4, 4)},
        {"weight": 1.0},
        {"weight": torch.zeros(4, 4).to_sparse(), "bias": torch.zeros(4)},
        {"weight": torch.zeros(4, 4, device="meta"), "bias": torch.zeros(3)},
        None,
        torch.zeros(4),
    ],
    ids=range(9),
)
def test_weights_of_a_wrong_kind_are_refused_and_never_run(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(kind, "kind.pt")
    with pytest.raises(InputError, match=r"--weights kind.pt: expected"):
        loaded("tests.test_bad_input:network", tmp_path.__class__("kind.pt"))
    assert not (tmp_path / "executed").exists()


def test_an_archive_that_is_no_checkpoint_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("a/b", "c")
    with pytest.raises(InputError, match="a damaged one"):
        loaded("tests.test_bad_input:network", tmp_path / "other.pt")

"""The command: exit codes, one-line errors, and nothing half-written."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from identity_props import __version__, cli
from identity_props.cli import main

QUICK = ("run", "--claims", "scaled-*", "--jobs", "1")
HERE = ("check", "--in-process")


def test_run_prints_a_table_and_writes_results(few_digits, tmp_path, capsys):
    assert main([*QUICK, "--out", str(tmp_path / "new" / "folder")]) == 0
    out, err = capsys.readouterr()
    assert "2 of 2 claims hold" in out
    assert "1/2 holds scaled-" in err
    document = json.loads((tmp_path / "new/folder/results.json").read_text())
    assert [claim["name"] for claim in document["claims"]] == ["scaled-standardise", "scaled-whiten"]
    assert document["interrupted"] is False


def test_json_goes_to_stdout_alone(few_digits, capsys):
    assert main([*QUICK, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["claims"][0]["verdict"] == "holds"


def test_a_claim_that_does_not_hold_gives_exit_code_one(few_digits, monkeypatch, capsys):
    monkeypatch.setattr("identity_props.claims.base.NEAR_IDENTITY", 0.0)
    assert main([*QUICK]) == 1
    assert "0 of 2 claims hold" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["run", "--claims", "lineer"], 2, "'lineer' matches none of linear-1"),
        (["run", "--side", "9"], 2, "'9' is not one of '7', '14', '28'"),
        (["run", "--data", "cifar"], 2, "data: expected digits, mnist or a file (.csv, .npy, "),
        (["run", "--replicas", "0"], 2, "0 is not in the range x>=1"),
        (["run", "--replicas", "many"], 2, "'many' is not a valid integer"),
        (["run", "--seed", "-1"], 2, "-1 is not in the range 0<=x<="),
        (["run", "--jobs", "0"], 2, "0 is not in the range x>=1"),
        (["run", "--scaling", "log"], 2, "No such option"),
        (["walk"], 2, "No such command 'walk'"),
        (["run", "--device", "gpu"], 2, "expected cpu, cuda or cuda:N, got 'gpu'"),
        (["run", "--device", "cuda:99"], 3, "torch sees"),
        (["run", "--out", "/proc/identity"], 2, "--out /proc/identity: expected a folder to write to"),
        ([*HERE, "--optimizer", "SGD"], 2, "expected pkg.mod:Name, such as torch.optim:SGD, got 'SGD'"),
        ([*HERE, "--optimizer", "no_such:Name"], 3, "no module 'no_such' to import"),
        ([*HERE, "--optimizer", "math:pi"], 2, "optimizer: expected a class or function, got 3.14"),
        ([*HERE, "--optimizer-arg", "lr=1"], 2, "expected an optimizer that takes them"),
        ([*HERE, "--optimizer", "torch.optim:SGD", "--optimizer-arg", "lr"], 2, "expected key=value"),
        (
            [*HERE, "--like", "torch.optim:SGD"],
            2,
            "like: expected an optimizer to compare with torch.optim:SGD",
        ),
        ([*HERE, "--lr", "-1"], 2, "--lr: expected auto or a finite rate above 0, got '-1'"),
        ([*HERE, "--lr", "nan"], 2, "--lr: expected auto"),
        ([*HERE, "--dtype", "half"], 2, "'half' is not one of"),
        (["run", "--claims", "seed-network-1"], 2, "seed-network-1 do not apply to digits with 49 pixels"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_its_exit_code(arguments, code, message, capsys):
    assert main(arguments) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("identity-props: ")
    assert message in err
    assert err.count("\n") == 1


def test_absent_mnist_is_exit_code_three(tmp_path, capsys):
    assert main(["run", "--data", "mnist", "--data-dir", str(tmp_path)]) == 3
    assert "allow --download" in capsys.readouterr().err


def test_damaged_mnist_is_exit_code_two(tmp_path, capsys):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(b"damaged")
    assert main(["run", "--data", "mnist", "--data-dir", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "expected an IDX file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_results_that_are_there_are_refused_before_anything_is_trained(few_digits, tmp_path, capsys):
    (tmp_path / "results.json").write_text("precious")
    assert main(["run", "--out", str(tmp_path)]) == 2
    assert "--force replaces it" in capsys.readouterr().err
    assert (tmp_path / "results.json").read_text() == "precious"
    assert main([*QUICK, "--out", str(tmp_path), "--force"]) == 0
    assert "precious" not in (tmp_path / "results.json").read_text()


def test_claims_lists_each_with_its_evidence_and_error_rates(capsys):
    assert main(["claims"]) == 0
    listed = capsys.readouterr().out
    assert "plain-relu-4-seed: plain ReLU, depth 4" in listed
    assert "said wrongly with probability 0.01 at most" in listed


def test_laws_lists_each_with_its_source_and_tolerance(capsys):
    assert main(["laws"]) == 0
    listed = capsys.readouterr().out
    assert "gd-trajectory: full-batch gradient descent is W_k - I" in listed
    assert "tolerance  Rounding over k steps" in listed


def test_a_law_by_name_is_told_in_full_with_the_faults_that_break_it(capsys):
    assert main(["laws", "gd-trajectory", "moves"]) == 0
    told = capsys.readouterr().out
    assert "applies to affine layer, gradient-descent, mean squared error" in told
    assert "    rate-0.9-sgd: " in told
    assert "moves: sixteen steps" in told


def test_a_law_that_is_not_there_is_refused_with_the_nearest_name(capsys):
    assert main(["laws", "gd-trajectry"]) == 2
    assert (
        "expected gd-trajectory or trajectory or bias-trajectory, got 'gd-trajectry'"
        in capsys.readouterr().err
    )


CHECK = (*HERE, "--optimizer", "torch.optim:SGD", "--lr", "1")


def test_check_prints_a_row_for_each_law_and_exits_with_zero(one_family, capsys):
    assert main([*CHECK, "--like", "torch.optim:SGD", "--all"]) == 0
    out = capsys.readouterr().out
    assert "like-optimizer       pass" in out
    assert "gd-trajectory        pass" in out
    assert "adam-first-step      n/a" in out
    assert "0 fail" in out


def test_check_exits_with_one_where_a_row_fails_and_says_which_in_json(one_family, capsys):
    assert (
        main(
            [
                *CHECK,
                "--optimizer-arg",
                "dampening=0.5",
                "--optimizer-arg",
                "momentum=0.5",
                "--like",
                "torch.optim:SGD",
                "--like-arg",
                "momentum=0.5",
                "--json",
            ]
        )
        == 1
    )
    document = json.loads(capsys.readouterr().out)
    failed = [row for row in document["rows"] if row["verdict"] == "fail"]
    assert failed[0]["name"] == "like-optimizer"
    assert failed[0]["measured"] > failed[0]["allowed"]


@pytest.mark.parametrize(
    "command", [["identity_props"], ["identity_props", "run"], ["identity_props", "check"]]
)
def test_help_answers_without_torch(command):
    code = f"import runpy, sys; sys.argv = {[*command, '--help']}\n"
    code += "try: runpy.run_module('identity_props', run_name='__main__')\n"
    code += "except SystemExit as end: assert not end.code\n"
    code += "assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: " in shown.stdout


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out


def interrupted(tmp_path, claims, after):
    """A run in a process group of its own, interrupted once its stderr holds ``after``."""
    log = tmp_path / "log"
    command = [
        sys.executable,
        "-m",
        "identity_props",
        "run",
        "--claims",
        claims,
        "--out",
        str(tmp_path / "out"),
    ]
    with log.open("w") as stderr:
        running = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
            # a shell that starts this in the background has it ignored
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        deadline = time.monotonic() + 120
        while after not in log.read_text() and time.monotonic() < deadline and running.poll() is None:
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)  # as a terminal does
        out, _ = running.communicate(timeout=60)
    return running.returncode, out, log.read_text(), Path(tmp_path / "out" / "results.json")


@pytest.mark.processes
def test_ctrl_c_keeps_the_claims_that_are_finished(tmp_path):
    code, out, err, file = interrupted(tmp_path, "scaled-whiten,plain-relu-4-seed", "holds scaled-whiten")
    assert code == 130
    assert "Traceback" not in err
    assert "1 of 1 claims hold" in out
    document = json.loads(file.read_text())
    assert document["interrupted"] is True
    assert [claim["name"] for claim in document["claims"]] == ["scaled-whiten"]


def test_a_signal_within_an_import_that_cannot_be_begun_again_ends_as_any_other(monkeypatch, capsys):
    def interrupted(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            raise ImportError("cannot load module more than once per process")

    monkeypatch.setattr(cli.commands, "main", interrupted)
    assert main(["claims"]) == 128 + signal.SIGTERM
    assert "interrupted" in capsys.readouterr().err


def test_an_interrupt_while_an_error_is_told_ends_as_any_other(monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    assert cli.main(["claims"]) == 130
    assert capsys.readouterr().err == "identity-props: interrupted, and nothing was finished\n"

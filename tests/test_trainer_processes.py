"""Trainers that hang, exit, fork, print, or start what stays; programs as trainers: rows, and nothing is left."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from identity_props.conformance.asked import AskedTrainer
from identity_props.conformance.isolated import judged
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, NOT_RUN, PASS
from identity_props.conformance.training import TRAINS
from identity_props.errors import InputError, MissingError
from identity_props.trainers.protocol import Asked, NotOffered, TrainedError, trained_by
from identity_props.trainers.running import NAMES, Command, Trainer, bench_of, trainer_of

FITS = """
import os, subprocess, sys, tempfile, time
from dataclasses import replace
import torch
from torch.utils.data import DataLoader, TensorDataset
from identity_props.trainers import TRAINER_LAWS
from identity_props.trainers.plain import Plain, trained

for name in [*TRAINER_LAWS]:
    if name not in ("steps", "clip", "velocity", "decay", "resume-epoch"):
        del TRAINER_LAWS[name]

KEPT = []


def hangs(asked):
    time.sleep(1000)


def hangs_where_it_clips(asked):
    while asked.clip is not None or asked.momentum or asked.decay:
        pass
    return trained(Plain, asked)


def hangs_resumed(asked):
    while asked.resume:
        pass
    return trained(Plain, asked)


def leaves(asked):
    os._exit(3)


def leaves_where_it_clips(asked):
    if asked.clip is not None:
        os._exit(3)
    return trained(Plain, asked)


def leaves_resumed(asked):
    if asked.resume:
        os._exit(3)
    return trained(Plain, asked)


def exits(asked):
    sys.exit(3)


def forks(asked):
    os.fork()
    return trained(Plain, asked)


def starts(asked):
    subprocess.Popen(["sleep", "1000"])
    if not os.fork():
        time.sleep(1000)
    return trained(Plain, asked)


def prints(asked):
    print("noise")
    os.write(1, b"noise")
    os.write(2, b"noise")
    return trained(Plain, asked)


def loads_in_workers(asked):
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for (x,) in DataLoader(TensorDataset(asked.examples), asked.batch_size, num_workers=1):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(network(x), x).backward()
            optimizer.step()
    return [p.detach() for p in network.parameters()]


def needs_a_launcher(asked):
    asked.ranks, torch.distributed.get_world_size(), os.environ["RANK"]
    torch.distributed.barrier()


class KeepsVelocity(Plain):
    def save(self):
        super().save()
        KEPT.append(self.optimizer.state_dict())

    def load(self):
        super().load()
        if not KEPT:
            self.optimizer.state.clear()


def keeps_in_globals(asked):
    return trained(KeepsVelocity, asked)


class LicenseError(Exception):
    def __init__(self, code, text):
        super().__init__(text)


def raises_resumed(asked):
    if asked.resume:
        raise LicenseError(3, "no license")
    return trained(Plain, asked)
"""
PROGRAM = Path(__file__).parent / "program.py"
WORDS = "{data} {start} {out} --lr {lr} --batch-size {batch_size} --epochs {epochs}"
OFFERED = ("accumulate", "clip", "momentum", "schedule", "stop", "resume", "folder")
WHOLE = " ".join([WORDS, *(f"--{name} {{{name}}}" for name in OFFERED)])


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch, no_ranks):
    """A folder for what is temporary; when all is done it is empty, and no process is left."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    (tmp_path / "fits.py").write_text(FITS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before = {one.pid for one in psutil.Process().children(recursive=True)}  # of other tests of this worker
    yield folder
    assert not [*folder.glob("identity-props-*")]
    now = psutil.Process().children(recursive=True)
    assert not [said(one) for one in now if one.pid not in before and "resource_tracker" not in said(one)]


def said(process):
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "resource_tracker"  # it has ended


def rows_of(name=None, command=None, guard=60.0, ranks=1):
    with judged(AskedTrainer(name, (), command, (), ranks, 0, guard)) as (_, rows):
        return {row.name: row for row in rows}


def program(body, words="{data} {start} {out}"):
    """The text of a command that runs a few lines of Python."""
    Path("short.py").write_text(
        f"import os, sys, time\nimport numpy as np\ndata, start, out = sys.argv[1:4]\n{body}"
    )
    return f"{sys.executable} short.py {words}"


# Functions --------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [
        ("hangs", "hangs", "no step ended within 2 s"),
        ("leaves", "exits", "ends the process with exit code 3"),
        ("exits", "error", "SystemExit: 3"),
        ("forks", "forks", "a process that it forked came back into training, and was ended"),
        ("needs_a_launcher", "error", "ValueError: Default process group has not been initialized"),
    ],
)
def test_a_trainer_that_never_trains_is_one_row(name, kind, note):
    rows = rows_of(f"fits:{name}", guard=2 if name == "hangs" else 60)  # a busy machine takes its time
    assert [*rows] == [TRAINS]
    assert (rows[TRAINS].verdict, rows[TRAINS].kind) == (FAIL, kind)
    assert note in rows[TRAINS].note


@pytest.mark.processes
def test_a_hang_costs_its_limit_once_and_then_less():
    rows = rows_of("fits:hangs_where_it_clips", guard=20)
    assert {name: row.verdict for name, row in rows.items()} == {
        **{
            TRAINS: PASS,
            "steps": PASS,
            "clip": FAIL,
            "velocity": FAIL,
            "decay": FAIL,
            "resume-epoch": NOT_RUN,
        },
    }
    limits = [rows[name].note for name in ("clip", "velocity", "decay")]
    assert limits == [f"no step ended within {seconds} s" for seconds in (20, 2, 2)]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "law", "kind", "note"),
    [
        ("leaves_where_it_clips", "clip", "exits", "ends the process with exit code 3"),
        ("leaves_resumed", "resume-epoch", "leaves no weights", "ends its process"),
        ("hangs_resumed", "resume-epoch", "hangs", "no step ended within 15 s"),
        ("keeps_in_globals", "resume-epoch", "not resumed", "what is lost: the momentum"),
        ("raises_resumed", "resume-epoch", "leaves no weights", "raises LicenseError: no license"),
    ],
)
def test_what_breaks_in_one_law_is_its_row_and_the_others_pass(name, law, kind, note):
    rows = rows_of(f"fits:{name}", guard=15 if name == "hangs_resumed" else 60)
    found = rows.pop(law)
    assert (found.verdict, found.kind) == (FAIL, kind)
    assert note in found.note
    assert {row.verdict for row in rows.values()} == {PASS}


@pytest.mark.processes
@pytest.mark.parametrize("name", ["prints", "starts", "loads_in_workers"])
def test_trainers_that_print_start_processes_or_load_in_workers_are_not_accused(name, capfd):
    assert {row.verdict for row in rows_of(f"fits:{name}").values()} <= {PASS, NOT_APPLICABLE}
    assert "noise" not in capfd.readouterr().out


@pytest.mark.processes
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nowhere", "nowhere"),
        ("raise RuntimeError('no license')", "no license"),
        ("import sys; sys.exit(4)", "4"),
        ("import os; os._exit(4)", "exit code 4"),
    ],
)
def test_a_module_that_cannot_be_imported_is_a_line(text, message, tmp_path):
    (tmp_path / "ruin.py").write_text(text)
    with pytest.raises((InputError, MissingError), match=message) as error:
        rows_of("ruin:fit")
    assert "\n" not in str(error.value)


@pytest.mark.processes
def test_plain_on_two_ranks_keeps_their_laws(temporary):
    with bench_of(Trainer("plain"), ranks=2) as bench:
        from identity_props.conformance.training import row_of
        from identity_props.trainers import TRAINER_LAWS

        assert [row_of(TRAINER_LAWS[name], bench).verdict for name in ("ranks", "ranks-uneven")] == [
            PASS,
            PASS,
        ]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("fit", "code"), [("fits:exits", 1), ("fits:nothing", 2), ("nobody", 2), ("plain", 0)]
)
def test_the_command_ends_with_the_right_code(fit, code, temporary):
    command = [sys.executable, "-m", "identity_props", "check", "--trainer", fit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    if code == 2:
        (line,) = done.stderr.strip().splitlines()
        assert fit.partition(":")[2] in line


def marked(folder):
    """Command lines of the processes whose temporary files go to a folder."""
    found = []
    for one in psutil.process_iter():
        with suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE and one.environ().get("TMPDIR") == str(folder):
                found.append(said(one))
    return found


@pytest.mark.processes
@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_check_that_is_ended_while_ranks_train_leaves_no_process_and_no_folder(name, temporary):
    command = [sys.executable, "-m", "identity_props", "check", "--trainer", "plain", "--ranks", "2"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=os.environ | {"TMPDIR": str(temporary)}, **quiet) as running:
        deadline = time.monotonic() + 120
        while sum("trainers.rank" in one for one in marked(temporary)) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
        os.kill(running.pid, getattr(signal, name))
    deadline = time.monotonic() + 10
    while marked(temporary) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not marked(temporary)
    assert not [one.name for one in temporary.iterdir() if "inductor" not in one.name]


# Trainers by name ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, (), None), "trainer: expected a name, pkg.mod:fit or a command, and one of them alone"),
        (("plain", (), "true"), "trainer: expected a name, pkg.mod:fit or a command, and one of them alone"),
        ((None, ("lr=1",), "true"), "trainer arguments: expected them in the command's own text"),
    ],
)
def test_a_trainer_is_brought_in_one_way(given, message):
    with pytest.raises(InputError, match=message):
        trainer_of(*given)


@pytest.mark.parametrize("name", ["nobody", "math:pi", "math:nothing", "no.such.module:fit", ":fit"])
def test_a_name_of_no_trainer_is_said_in_a_line(name):
    with pytest.raises((InputError, MissingError)) as error:
        Trainer(name).fit()
    assert "\n" not in str(error.value)
    assert name in str(error.value) or name.partition(":")[2] in str(error.value)


def test_the_names_are_known():
    assert "plain" in NAMES


# Commands -----------------------------------------------------------------------------------------------


def ask(**options):
    start = (torch.eye(3, dtype=torch.float64),)
    return Asked(start, torch.eye(3, dtype=torch.float64), 0.1, 2, 1, **options)


@pytest.mark.processes
def test_a_program_passes_all_that_it_offers():
    rows = rows_of(command=f"{sys.executable} {PROGRAM} {WHOLE}")
    assert {row.verdict for row in rows.values()} == {PASS, NOT_APPLICABLE}
    passed = {name for name, row in rows.items() if row.verdict == PASS}
    assert passed >= {
        "trajectory",
        "every-example",
        "last-batch",
        "accumulation",
        "unequal",
        "window",
        "clip",
    }
    assert passed >= {
        "schedule",
        "velocity",
        "momentum-rate",
        "resume-epoch",
        "resume-inside",
        "resume-window",
    }


@pytest.mark.processes
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(7)", "ends with exit code 7: it says nothing"),
        ("raise ValueError('no\\ngood')", "ends with exit code 1: good"),
        ("os.abort()", "ends with exit code -6"),
        ("", "leaves no file {out}"),
        (
            "open(out, 'w').write('weights')",
            "leaves a file {out} that is no .npy or .safetensors of one array",
        ),
        ("open(out, 'wb').write(np.lib.format.MAGIC_PREFIX)", "leaves a file {out} that is no .npy"),
        ("open(out, 'w')", "leaves a file {out} that is no .npy"),
        ("os.mkdir(out)", "leaves a file {out} that is no .npy"),
        ("np.save(out, np.array([None]), allow_pickle=True)", "leaves a file {out} that is no .npy"),
        ("np.save(out, np.zeros((3, 4)))", "weights: expected shapes [[3, 3]], got [[3, 4]]"),
        ("np.save(out, np.zeros((3, 3), int))", "weights: expected floating numbers, got [torch.int64]"),
        (
            "from safetensors.numpy import save_file; save_file({'a': np.ones((3, 3)), 'b': np.ones((3, 3))}, out)",
            "leaves a file {out} that is no .npy or .safetensors of one array",
        ),
    ],
)
def test_a_program_that_leaves_no_weights_is_told_so_in_a_line(body, message):
    with pytest.raises(TrainedError) as error:
        trained_by(Command(program(body)), ask())
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.processes
@pytest.mark.parametrize(
    "body",
    [
        "np.save(out, np.load(start) / 2)",
        "from safetensors.numpy import save_file; save_file({'w': np.load(start) / 2}, out)",
        "from safetensors.numpy import save_file; save_file({'w': np.load(start) / 2}, out[:-4] + '.safetensors')",
        "np.save(out, np.asfortranarray(np.load(start).astype('>f8') / 2))",
        "np.save(out, np.load(start) / 2); print('x' * 10**6); print('x' * 10**6, file=sys.stderr)",
        "np.save(out, np.load(start) / 2); assert not sys.stdin.read()",
    ],
)
def test_weights_of_a_program_are_read(body):
    assert trained_by(Command(program(body)), ask()).weights[0].diagonal().tolist() == [0.5] * 3


@pytest.mark.processes
def test_a_program_that_starts_what_stays_is_not_waited_for():
    body = "import subprocess; subprocess.Popen(['sleep', '90']); np.save(out, np.load(start))"
    started = time.monotonic()
    trained_by(Command(program(body)), ask())
    assert time.monotonic() - started < 60
    for one in psutil.process_iter():
        if said(one) == "sleep 90":
            one.kill()


@pytest.mark.processes
def test_a_program_that_hangs_is_one_row_and_all_that_it_waits_for_ends():
    rows = rows_of(command=program("import subprocess; subprocess.run(['sleep', '999'])"), guard=3)
    assert [(row.name, row.kind) for row in rows.values()] == [(TRAINS, "hangs")]
    assert not [one for one in psutil.process_iter() if said(one) == "sleep 999"]


def test_a_program_that_is_not_there_is_said_to_be():
    with pytest.raises(TrainedError, match=r"cannot be started: .*nowhere"):
        trained_by(Command("nowhere {data} {start} {out}"), ask())


def test_a_program_trains_one_layer():
    with pytest.raises(NotOffered, match="several layers"):
        Command("true {data} {start} {out}")(Asked(ask().start * 2, ask().examples, 0.1, 2, 1))


@pytest.mark.parametrize(
    "text",
    [
        *("", "train {data} {start}", "train {data} {out}", "train {data} {start} {out} {rate}"),
        *(
            "train {data} {start} {out} {}",
            "train {data} {start} {out} {0}",
            "train {data} {start} {out {lr}",
        ),
        *(
            "train {data} {start} {out} 'open",
            "train {data} {start} {out} {tokens}",
            "train {data.name} {start} {out}",
        ),
    ],
)
def test_a_text_that_is_no_command_is_said_in_a_line(text):
    with pytest.raises(InputError, match="command: expected") as error:
        Command(text)
    assert "\n" not in str(error.value)
    assert repr(text) in str(error.value)


def test_what_a_text_does_not_name_is_not_offered():
    command = 'sh -c "cp $2 $3" sh {data} {start} {out}'
    assert trained_by(Command(command), ask())
    with pytest.raises(NotOffered, match=r"^accumulate, clip$"):
        trained_by(Command(command), ask(accumulate=2, clip=1.0))


@pytest.mark.parametrize(
    ("option", "value", "text"),
    [
        *(
            ("clip", None, "inf"),
            ("clip", 0.1, "0.1"),
            ("stop", None, "0"),
            ("stop", 3, "3"),
            ("shuffle", True, "1"),
        ),
        *(
            ("resume", False, "0"),
            ("schedule", "linear", "linear"),
            ("lr", None, "0.1"),
            ("average", None, "0"),
        ),
        *(
            ("seed", 7, "7"),
            ("folder", Path("a b"), "a b"),
            ("precision", "full", "full"),
            ("decay", 1e-9, "1e-09"),
        ),
    ],
)
def test_options_are_written_as_programs_read_them(option, value, text, tmp_path):
    given = {} if option == "lr" else {option: value}
    command = (
        f'sh -c "printf %s \\"$1\\" > said; cp \\"$3\\" \\"$4\\"" sh {{{option}}} {{data}} {{start}} {{out}}'
    )
    trained_by(Command(command), ask(**given))
    assert Path("said").read_text() == text


def test_a_program_gets_the_examples_and_what_is_held_out():
    command = 'sh -c "cp $1 data.npy; cp $4 held.npy; cp $2 $3" sh {data} {start} {out} {held}'
    held = 2 * torch.eye(3, dtype=torch.float64)
    trained_by(Command(command), ask(held=held))
    assert np.load("data.npy").tolist() == torch.eye(3).tolist()
    assert np.load("held.npy").tolist() == held.tolist()
    trained_by(Command(command), ask())
    assert np.load("held.npy").shape == (0, 3)

"""The command ledger: what it shows of a trainer that is right, and of one for each way to be wrong."""

import json
import math
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from identity_props.cli import main
from identity_props.report import ledgers
from identity_props.trainers.accounting import STEPS, Training, kept
from identity_props.trainers.bench import Bench
from identity_props.trainers.exposures import by_epochs
from identity_props.trainers.ledger import Account
from identity_props.trainers.plain import Plain, fit, trained
from identity_props.trainers.protocol import NotOffered
from identity_props.trainers.wording import said

WINDOWS = ["--examples", "48", "--batch-size", "8", "--accumulate", "4"]


class Dropped(Plain):
    """Reads an incomplete window and takes no step on it."""

    def windows(self, epoch):
        return [window for window in super().windows(epoch) if len(window) == self.asked.accumulate]


class Carried(Plain):
    """Carries an incomplete window into the next epoch."""

    def steps_of(self):
        size = self.asked.accumulate
        every = [(k, batch) for k in range(self.asked.epochs) for batch in self.micro_batches(k)]
        for at in range(0, len(every), size):
            window = [batch for _, batch in every[at : at + size]]
            for epoch, batch in every[at : at + size]:
                yield epoch, batch, window, batch is window[-1] and len(window) == size

    @property
    def total_steps(self):
        return max(1, self.asked.epochs * len(self.micro_batches(0)) // self.asked.accumulate)


class Doubled(Plain):
    """Reads the last micro-batch of an epoch twice."""

    def micro_batches(self, epoch):
        batches = super().micro_batches(epoch)
        return [*batches, [*batches[-1]]]


class Shifted(Plain):
    """Takes the next example for the target."""

    def target(self, batch):
        return self.asked.examples.roll(1, 0)[batch]


class Peeks(Plain):
    """Trains on what it evaluates."""

    def evaluate(self):
        super().evaluate()
        if self.asked.held is not None:
            (self.network(self.asked.held) - self.asked.held).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()


class Replays(Plain):
    """Trains once more, on resume, on the micro-batch that it stopped after."""

    def load(self):
        super().load()
        self.read -= 1


class Rushes(Plain):
    """Lets the rate fall at each micro-batch."""

    def update(self):
        self.scheduler.step()
        super().update()


def dropped(asked):
    return trained(Dropped, asked)


def carried(asked):
    return trained(Carried, asked)


def doubled(asked):
    return trained(Doubled, asked)


def shifted(asked):
    return trained(Shifted, asked)


def peeks(asked):
    return trained(Peeks, asked)


def replays(asked):
    return trained(Replays, asked)


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def rushes(asked):
    return trained(Rushes, asked)


def bare(asked):
    """A loop that knows no option."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            (network(x) - x).square().mean().backward()
            optimizer.step()
    return network[0].weight


def single(asked):
    """Computes in float32."""
    return bare(asked).float()


def raises(asked):
    raise ValueError("no\nluck")


def nans(asked):
    return asked.start[0] * math.nan


def exits(asked):
    if asked.schedule == "constant":
        with tempfile.TemporaryDirectory(prefix="left-"):
            os._exit(5)
    return asked.start


def hangs(asked):
    while True:
        pass


def of(name):
    return name if name == "plain" else f"tests.test_ledger_command:{name}"


@pytest.fixture
def book(capsys):
    """Runs the command in this process; the document, and its table's text."""

    def run(name, *options):
        command = ["ledger", "--trainer", of(name), "--in-process", *options]
        assert main([*command, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert main(command) == 0
        return document, capsys.readouterr().out

    return run


def columns(document, *places):
    """Weights of some examples, by steps."""
    return [[pytest.approx(row[place], abs=1e-9) for row in document["weights"]] for place in places]


# What it shows --------------------------------------------------------------------------------------


def test_the_plain_loop_steps_on_an_incomplete_window_with_the_mean_of_what_it_holds(book):
    document, text = book("plain", *WINDOWS)
    assert columns(document, 0, 31, 32, 47) == [[1, 0] * 3, [1, 0] * 3, [0, 2] * 3, [0, 2] * 3]
    assert (document["by"], document["ends"], document["steps"]) == ("steps", [2, 4, 6], 6)
    assert document["mixed"] == document["unclear"] == []
    assert max(document["leaks"] + document["moved"]) <= document["near"]
    assert "Examples 0-31 weigh 1 in each epoch, 32-47 weigh 2 in each epoch." in text
    assert "0-31       1 ·       1 ·       1 ·" in text


@pytest.mark.parametrize(
    ("name", "ends", "first", "last", "words"),
    [
        ("dropped", [1, 2, 3], [1, 1, 1], [0, 0, 0], "32-47 are never trained on"),
        ("carried", [1, 3, 4], [1, 1, 0, 1], [0, 1, 1, 0], "32-47 weigh 0, 1 + 1, 0 in epochs 1-3"),
        ("doubled", [2, 4, 6], [1, 0] * 3, [0, 8 / 3] * 3, "40-47 weigh 2.67 in each epoch"),
    ],
)
def test_a_window_or_batch_that_is_treated_otherwise_shows_in_both(name, ends, first, last, words, book):
    document, text = book(name, *WINDOWS)
    assert document["ends"] == ends
    assert columns(document, 0, 47) == [first, last]
    assert words in " ".join(text.split())


def test_a_wrong_target_is_told_as_examples_that_are_mixed(book):
    document, text = book("shifted", *WINDOWS)
    assert document["mixed"] == [*range(48)]
    assert "Examples 0-47 are mixed with others." in text
    assert "mixed" in next(line for line in text.splitlines() if line.startswith("0-47"))


def test_training_on_what_is_evaluated_is_told(book):
    document, text = book("peeks", "--evaluate")
    assert min(document["moved"]) > 0.1
    assert "Directions that are held out moved" in text
    assert "moved" not in book("plain", "--evaluate")[1]


@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
@pytest.mark.parametrize(
    ("name", "words"), [("rushes", "do not follow the falling rate"), ("bare", "offers no falling rate")]
)
def test_where_no_steps_can_be_read_weights_are_those_of_epochs_and_it_says_so(name, words, book):
    document, text = book(name, "--examples", "33")
    assert (document["by"], document["ends"]) == ("epochs", [1, 2, 3])
    assert columns(document, 0, 32) == [[1] * 3, [8] * 3]
    assert words in " ".join(text.split())


def test_float32_is_said_and_its_rounding_is_no_weight(book):
    document, text = book("single")
    assert document["dtype"] == "float32"
    assert "Examples 0-47 weigh 1 in each epoch." in text


def test_shuffled_examples_are_each_trained_on_once_an_epoch_in_another_order(book):
    document, _ = book("plain", "--shuffle", "--epochs", "2", "--examples", "16", "--batch-size", "2")
    first, second = document["weights"][:8], document["weights"][8:]
    assert [sum(column) for column in zip(*first, strict=True)] == pytest.approx([1] * 16)
    assert first != second


def liar(asked):
    found = trained(Plain, asked)
    return replace(found, steps=found.steps + 1)


def test_steps_that_it_reports_and_did_not_take_are_told(book):
    assert "It reports 4 optimizer steps, the weights show 3." in book("liar", "--batch-size", "48")[1]


def test_an_incomplete_last_batch_is_dropped_where_that_is_asked(book):
    document, text = book("plain", "--drop-last", "--examples", "20")
    assert columns(document, 19) == [[0] * 6]
    assert "16-19 are never trained on" in text


def test_tokens_weigh_1_in_long_and_short_sequences_and_nothing_where_they_are_masked(book):
    document, text = book("plain", "--tokens", "--accumulate", "2")
    masked = {*document["masked"]}
    (weights,) = document["weights"]
    assert weights == pytest.approx([0 if k in masked else 1 for k in range(sum(document["lengths"]))])
    assert document["mixed"] == []
    assert "2          - 1 - 1 1 1 1" in text


def test_two_exposures_are_told_from_one_of_the_same_effect_by_a_second_rate():
    weights = [[1.75], [1, 1], [4 / 3, 2], [1, 1, 1], [], [4]]
    accounts = [
        (q, [Account(torch.tensor([math.prod(1 - q * w for w in one) for one in weights]).double(), torch.zeros(6))])
        for q in (1 / 4, 3 / 32)
    ]  # fmt: skip
    found = by_epochs(*accounts, 1e-6)
    assert found.weights[0].tolist() == pytest.approx([sum(one) for one in weights], abs=1e-4)


# Tables that do not fit -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"epochs": 16}, {"examples": 200, "batch_size": 2, "epochs": 2}, {"epochs": 9, "shuffle": True}])  # fmt: skip
def test_a_table_fits_80_columns_and_says_what_it_leaves_out(options):
    from rich.console import Console

    from identity_props.conformance.asked import Named

    found = kept(Bench(fit), Training(**options))
    assert found.by == STEPS
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(ledgers.table(found, Named("trainer plain", {}, "cpu", ())))
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in captured.get()
    assert "more columns" in lines[-1]


def test_many_runs_are_counted_in_words():
    found = kept(Bench(fit), Training(epochs=2, shuffle=True, accumulate=4))
    assert said(found)[0].startswith("examples: ")


# What ends in one line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--examples", "0"], "--examples"),
        (["--accumulate", "0"], "--accumulate"),
        (["--resume-at", "18"], "resume_at: expected more than 0 and less than 18"),
        (["--resume-at", "3", "--ranks", "2"], "resume_at: expected 1 rank"),
        (["--tokens", "--ranks", "2"], "tokens: expected one epoch, in order, on one rank, got ranks"),
        (["--tokens", "--examples", "3"], "--examples: expected none"),
        (["--command", "python x {data}"], "one of them alone"),
    ],
)
def test_what_nobody_could_do_is_one_line_and_exit_code_2(options, words, capsys):
    assert main(["ledger", "--trainer", "plain", "--in-process", *options]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("bare", WINDOWS, "does not: accumulate"),
        ("bare", ["--resume-at", "3"], "does not: stop"),
        ("bare", ["--tokens"], "does not: "),
        ("raises", [], "expected one that leaves weights, got ValueError: no luck"),
        ("nans", [], "expected finite numbers"),
        ("hangs", ["--guard", "0.5"], "no step ended within 0.5 s"),
        ("absent", [], "absent"),
    ],
)
def test_so_is_a_trainer_that_does_not_train_or_does_not_offer_what_is_asked(name, options, words, capsys):
    assert main(["ledger", "--trainer", of(name), "--in-process", *options]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_trainer_that_offers_nothing_beside_raises_of_it_by_name():
    with pytest.raises(NotOffered, match="shuffle"):
        kept(Bench(bare), Training(shuffle=True))


# Files ----------------------------------------------------------------------------------------------


def test_it_writes_its_document_and_page_and_leaves_those_that_are_there(tmp_path, capsys):
    command = ["ledger", "--trainer", "plain", "--in-process", "--out", str(tmp_path)]
    assert main(command) == 0
    page = (tmp_path / "report.html").read_text()
    assert json.loads((tmp_path / "ledger.json").read_text())["schema"] == "identity-props/ledger/1"
    assert "epoch 3" in page
    assert page.count("<figure>") == 2  # 18 steps, ten a picture
    assert main(command) == 2
    assert "ledger.json: is already there" in capsys.readouterr().err
    assert main([*command, "--force"]) == 0


# In a process of its own ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where temporary folders are made."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.processes
def test_it_is_kept_in_a_process_of_its_own_that_leaves_nothing(folder, capsys):
    assert main(["ledger", "--trainer", "plain", *WINDOWS, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ends"] == [2, 4, 6]
    assert [*folder.iterdir()] == []


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "guard", "words"),
    [("exits", "60", "ends the process with exit code 5"), ("hangs", "1", "no step ended within 1 s")],
)
def test_one_that_ends_or_hangs_it_is_one_line_and_leaves_nothing(name, guard, words, folder, capsys):
    assert main(["ledger", "--trainer", of(name), "--guard", guard]) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
    assert [*folder.iterdir()] == []


@pytest.mark.processes
@pytest.mark.parametrize(("name", "weights"), [("plain", [1, 1, 1]), ("replays", [1, 2, 1])])
def test_a_training_that_is_resumed_in_another_process_is_accounted_for_as_a_whole(name, weights, capsys):
    command = ["ledger", "--trainer", of(name), "--resume-at", "8", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    starts = [0, *document["ends"][:-1]]
    found = [
        sum(row[8] for row in document["weights"][start:end])
        for start, end in zip(starts, document["ends"], strict=True)
    ]
    assert found == pytest.approx(weights)


@pytest.mark.processes
def test_on_two_ranks_the_last_example_weighs_as_much_as_a_whole_step(capsys):
    command = ["ledger", "--trainer", "plain", "--examples", "33", "--epochs", "1", "--ranks", "2", "--json"]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert columns(document, 0, 32) == [[1, 0, 0], [0, 0, 16]]
    assert document["differing"] == 0


@pytest.mark.processes
def test_a_program_has_an_account_too(folder, capsys):
    options = ("lr", "batch-size", "epochs", "accumulate", "schedule", "stop", "resume", "folder")
    named = " ".join(f"--{name} {{{name.replace('-', '_')}}}" for name in options)
    text = f"{sys.executable} {Path(__file__).parent / 'program.py'} {{data}} {{start}} {{out}} {named}"
    command = [
        "ledger",
        "--command",
        text,
        "--epochs",
        "2",
        "--accumulate",
        "4",
        "--resume-at",
        "3",
        "--json",
    ]
    assert main(command) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["by"], document["ends"]) == ("steps", [2, 4])
    assert columns(document, 0, 47) == [[1, 0] * 2, [0, 2] * 2]
    assert [*folder.iterdir()] == []

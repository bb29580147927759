"""The page: one file that needs nothing else, for readers with any eyes, screen and hands."""

import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape
from html.parser import HTMLParser

import pytest
import torch

from identity_props.atlas.axes import Cell
from identity_props.atlas.reading import STATES, Seen
from identity_props.claims.registry import CLAIMS, RECIPES
from identity_props.claims.running import judge_all
from identity_props.cli import main
from identity_props.conformance.asked import Named
from identity_props.conformance.rows import Row
from identity_props.engine.trial import Trial
from identity_props.explanation.explain import Advice, explain
from identity_props.explanation.networks import trained
from identity_props.report import atlas, documents, ledgers, page
from identity_props.report.maps import SIGNS, position
from identity_props.stack.stack import Stack
from identity_props.task.data import digits
from identity_props.task.metrics import pixel_variance
from identity_props.task.models import Variant
from identity_props.task.theory import critical_rate, expected_fvu, modes
from identity_props.trainers.accounting import STEPS, Book, Training

HARMFUL = '<script>alert("x")</script>'
CONTEXT = {"seed": 0, "versions": {"torch": "2"}, "machine": {"system": HARMFUL}}
NAMES = ("scaled-standardise", "raw-diverges", "linear-1")


@pytest.fixture(scope="module")
def pixels():
    return digits(7, train=256, test=128)


@pytest.fixture(scope="module")
def explanation(pixels):
    trial = Trial(Variant("plain-relu", 2), RECIPES["seed"](49), 100)
    found = explain(trained(trial, pixels), pixels.scaled("unit"), trial.recipe, HARMFUL)
    return replace(found, advice=(Advice("one", "why", 0.5, math.nan), Advice("two", HARMFUL, 0.5)))


def account():
    """The page of a trainer with a long name, many steps, and examples that are mixed or unclear."""
    weights = torch.rand(30, 8, generator=torch.Generator().manual_seed(0)) * 3
    weights[:, 1] = math.nan
    leaks = torch.tensor([1.0, *[0.0] * 7])
    book = Book(Training(8, 1), STEPS, weights, [10, 20, 30], leaks, torch.zeros(2), [1], torch.float32, 0.1)
    named = Named(HARMFUL, {"trainer": HARMFUL, "ranks": 1}, "cpu", ("ledger",))
    return ledgers.of_ledger(book, named, documents.ledger_results(book, named))


@pytest.fixture(scope="module")
def pages(pixels, explanation):
    claims = [CLAIMS[name] for name in NAMES]
    outcomes = list(judge_all(claims, pixels, jobs=1, replicas=8, explained=True))
    curves = ((0, 1, 2), ((2.0, 0.1, 1e-4), (2.0, math.inf, math.nan)))
    rows = [
        Row("law", "pass", 1e-9, 1e-8),
        Row("learns", "fail", math.nan, 1e-3, "flat", HARMFUL, curves=curves),
    ]
    return {
        "run": page.of_run(outcomes, pixels, CONTEXT),
        "check": page.of_check(rows, Stack(), CONTEXT),
        "ledger": account(),
        "explain": page.of_explanation(explanation, CONTEXT),
        "atlas": atlas.page(cells(), pixels, CONTEXT),
    }


def cells():
    """Cells of every state, of optimizers with lines of theory and without."""
    ends = {1e-3: 1e-4, 1e-2: 5e-3, 0.1: 0.5, 1.0: math.inf}
    return [
        Seen(
            Cell(variant, depth, 49, scaling, optimizer, 32, "glorot", "constant", lr),
            1250,
            (fvu, fvu),
            (7, 7),
        )
        for optimizer in ("SGD", "SGD(momentum=0.9)", "RMSprop")
        for variant in ("linear", "plain-relu")
        for scaling in ("unit", "whiten")
        for depth in (1, 2)
        for lr, fvu in ends.items()
    ]


KINDS = ("run", "check", "ledger", "explain", "atlas")


class Read(HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_every_picture_has_a_text_alternative(pages, kind):
    read = Read(pages[kind])
    pictures = [*read.of("img"), *(one for one in read.of("svg") if one.get("aria-hidden") != "true")]
    assert pictures
    assert all(one.get("alt") or one.get("aria-label") for one in pictures)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(pages, kind):
    read = Read(pages[kind])
    links = [a[name] for _, a in read.tags for name in ("href", "src") if name in a]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert not read.of("script", "iframe", "object")
    assert not re.search(r"@import|url\((?!#)", pages[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_headings_are_in_order_and_tables_have_captions_and_scopes(pages, kind):
    read = Read(pages[kind])
    assert [tag for tag, _ in read.tags if re.fullmatch(r"h\d", tag)].count("h1") == 1
    assert len(read.of("caption")) == len(read.of("table"))
    assert all(one.get("scope") in ("row", "col") for one in read.of("th"))
    anchors = [one["id"] for _, one in read.tags if "id" in one]
    assert len(anchors) == len({*anchors})
    assert {one["href"][1:] for one in read.of("a")} <= {*anchors}


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_notes_are_escaped(pages, kind):
    assert HARMFUL not in pages[kind]
    assert HARMFUL in Read(pages[kind]).text


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_is_at_most_3_megabytes(pages, kind):
    assert len(pages[kind].encode()) <= 3e6


def test_a_run_shows_every_replica_the_bands_and_what_was_predicted(pages):
    read = Read(pages["run"])
    kinds = [one.get("class") for one in read.of("path", "rect")]
    assert kinds.count("curve") == 8 * len(NAMES)
    assert kinds.count("predicted") == 1
    assert {"near", "failed"} <= {*kinds}
    assert {f"#claim-{name}" for name in NAMES} == {one["href"] for one in read.of("a")}


def test_what_was_predicted_is_what_gradient_descent_does(pixels):
    (outcome,) = judge_all([CLAIMS["scaled-standardise"]], pixels, jobs=1)
    steps, curves = outcome.curves
    expected = page.predicted(outcome.claim.plan(pixels)[0], pixels, steps)
    mean = [sum(at) / len(at) for at in zip(*curves, strict=True)]
    assert mean == pytest.approx(expected, rel=0.2)


def test_a_map_has_one_stop_of_the_keyboard_and_each_cell_says_its_state_and_figures(pages):
    radios = [one for one in Read(pages["atlas"]).of("input") if one.get("type") == "radio"]
    labels = [one["aria-label"] for one in radios]
    assert len(labels) == len(cells())
    assert len({one["name"] for one in radios}) == len(cells()) / 8  # two depths by four rates
    told = "depth 1, rate 0.001: near-identity, median FVU 1.0e-04 (1.0e-04 to 1.0e-04), 2 of 2 learn, seen at step 7"
    assert told in labels
    assert {state for state in STATES if any(f": {state}," in label for label in labels)} == {*STATES}
    assert {sign for sign in SIGNS.values() if sign in Read(pages["atlas"]).text} == {*SIGNS.values()}


def test_maps_of_an_optimizer_have_the_same_rows_where_some_cells_are_not_there(pixels):
    some = [one for one in cells() if (one.cell.variant, one.cell.depth) != ("linear", 2)]
    rows = re.findall(r'<span class="deep">(\d)</span>', atlas.page(some, pixels, CONTEXT))
    assert rows == ["2", "1"] * (len(rows) // 2)
    assert "10<sup>\N{MINUS SIGN}3</sup>" in atlas.page(some, pixels, CONTEXT)


def test_the_lines_on_a_map_are_the_rates_of_theory(pixels):
    sgd, heavy, adaptive = (cells()[k].cell for k in (0, 32, 64))
    eigenvalues, _ = modes(pixels.scaled("unit").train)
    found = atlas.theory(sgd, 1250, pixels)
    assert found["critical rate"] == pytest.approx(critical_rate(eigenvalues))
    assert atlas.theory(heavy, 1250, pixels) == {
        "edge of momentum": pytest.approx(1.9 * critical_rate(eigenvalues))
    }
    assert atlas.theory(adaptive, 1250, pixels) == {}
    least = atlas.theory(replace(sgd, scaling="whiten"), 1250, pixels)["budget"]
    whitened = pixels.scaled("whiten")
    spectrum, variance = modes(whitened.train, whitened.test), pixel_variance(whitened.test)
    assert (
        expected_fvu(*spectrum, variance, least, 1250)[0]
        <= 1e-3
        < expected_fvu(*spectrum, variance, 0.99 * least, 1250)[0]
    )


@pytest.mark.parametrize(
    ("rate", "place"), [(1e-3, 12.5), (1e-2, 37.5), (10**-2.5, 25.0), (1.0, 87.5), (1e-9, None)]
)
def test_a_line_lies_between_the_columns_of_its_rate(rate, place):
    found = position(rate, [1e-3, 1e-2, 0.1, 1.0])
    assert found == (None if place is None else pytest.approx(place))


def test_an_explanation_shows_where_the_error_goes_and_its_advice(pages, explanation):
    text = Read(pages["explain"]).text
    assert all(part.name in text for part in explanation.parts)
    assert "NaN" in text
    assert "not tried" in text


def test_every_command_writes_its_page_and_leaves_one_that_is_there(tmp_path, capsys):
    commands = {
        "run": ["run", "--claims", "scaled-whiten", "--jobs", "1"],
        "explain": ["explain", "--steps", "20"],
        "ledger": ["ledger", "--trainer", "plain", "--in-process", "--epochs", "1"],
    }
    for name, command in commands.items():
        folder = tmp_path / name
        assert main([*command, "--out", str(folder)]) == 0
        assert "report.html" in capsys.readouterr().err
        next(folder.glob("*.json")).unlink()
        assert main([*command, "--out", str(folder)]) == 2
        assert "report.html: is already there" in capsys.readouterr().err


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FRAME = """<!doctype html><title>waiting</title><iframe id="f" style="width:{width}px;height:800px;border:0"
srcdoc="{page}"></iframe><script>const f = document.getElementById("f"), t = performance.now();
f.onload = () => document.title = [f.contentDocument.documentElement.scrollWidth,
f.contentDocument.images.length, [...f.contentDocument.images].every(i => i.complete && i.naturalWidth),
Math.round(performance.now() - t)].join(" ");</script>"""


def browsed(html, width, folder):
    """Width of the content, pictures, whether all of them show, milliseconds; and what went to the console."""
    file = folder / "frame.html"
    file.write_text(FRAME.format(width=width, page=escape(html)), encoding="utf-8")
    flags = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--user-data-dir={folder}/p",
    ]
    command = [CHROMIUM, *flags, "--virtual-time-budget=5000", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    scroll, images, shown, milliseconds = re.search("<title>(.*?)</title>", done.stdout).group(1).split()
    return int(scroll), int(images), shown == "true", int(milliseconds), re.findall("CONSOLE.*", done.stderr)


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium to open a page in")
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_shows_it_at_phone_width_without_errors(pages, kind, tmp_path):
    scroll, _, shown, milliseconds, console = browsed(pages[kind], 375, tmp_path)
    assert scroll <= 375
    assert shown
    assert milliseconds <= 5000  # a second at most on idle cores, which it shares with other tests
    assert console == []


def test_parts_that_are_nothing_are_named_in_a_sentence_and_have_no_row(explanation):
    found = Read(page.of_explanation(explanation, CONTEXT)).text
    none = [part.name for part in explanation.parts if part.measured and not part.fvu]
    assert none
    assert f"Nothing is: {', '.join(none)}." in found


def test_a_network_that_nothing_known_helps_is_told_so(explanation):
    found = Read(page.of_explanation(replace(explanation, advice=()), CONTEXT)).text
    assert "none is expected to remove a twentieth of it" in found

"""The documentation: its commands are accepted, its examples run, its pages are those of the registries."""

import json
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from jsonschema import Draft202012Validator

import identity_props
from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import trainer
from identity_props.cli import commands, main
from identity_props.conformance.checking import check_laws
from identity_props.conformance.rows import OTHERS, Reference
from identity_props.explanation import from_keras
from identity_props.faults import ALL_FAULTS, FAULTS, audit
from identity_props.laws import LAWS
from identity_props.laws.families import Family
from identity_props.stack.stack import Stack
from identity_props.task.algorithms import ALGORITHMS
from identity_props.task.data import digits
from identity_props.trainers import TRAINER_LAWS

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {
    str(file.relative_to(ROOT)): file.read_text() for file in [ROOT / "CONTRIBUTING.md", *DOCS.rglob("*.md")]
}
FENCE = re.compile(r"```(\w+)(?: title=\"(.*?)\")?\n(.*?)```", re.DOTALL)
RUN = re.compile(r"^ *- run: (.*)$", re.MULTILINE)  # of a GitHub Actions file
TESTED_ELSEWHERE = ("docs/explanation/real-stacks.md", "docs/explanation/real-trainers.md")


def blocks(page, language):
    return [(title, text) for found, title, text in FENCE.findall(PAGES[page]) if found == language]


def lines(page):
    """Commands of a page, in console blocks and in workflows."""
    shown = [line for _, text in blocks(page, "console") for line in text.splitlines()]
    shown += [line for _, text in blocks(page, "yaml") for line in RUN.findall(text)]
    return [part.strip().removeprefix(".venv/bin/") for line in shown for part in line.split("&&")]


LINES = sorted({line for page in PAGES for line in lines(page)})
OURS = [line for line in LINES if line.startswith("identity-props ")]
PYTEST = [line for line in LINES if line.startswith("pytest ")]
KNOWN = ("identity-props ", "pytest ", "pip install ", "python3 -m venv ", ". .venv/bin/activate", "python benchmarks/", "python asker.py", "ruff ", "mypy", "lint-imports", "mkdocs build")  # fmt: skip


@pytest.mark.parametrize("line", OURS)
def test_every_command_is_accepted(line):
    _, name, *arguments = shlex.split(line)
    command = commands.commands[name]
    assert command.make_context(name, arguments).command is command


@pytest.mark.parametrize("line", PYTEST)
def test_every_option_of_pytest_is_one(line, pytestconfig):
    given, unknown = pytestconfig._parser.parse_known_and_unknown_args(shlex.split(line)[1:])
    assert unknown == []
    assert all((ROOT / name).exists() for name in given.file_or_dir if name != "identity_props.suite")


def test_no_other_command_is_shown_but_those_that_are_known():
    assert [line for line in LINES if not line.startswith(KNOWN)] == []


# Examples -------------------------------------------------------------------------------------------

PYTHON = [
    pytest.param(page, number, id=f"{page}-{number}")
    for page in PAGES
    if page not in (*TESTED_ELSEWHERE, "CONTRIBUTING.md")
    for number, (title, text) in enumerate(blocks(page, "python"))
    if not title and "def test_" not in text and "ranks=2" not in text
]
SAID = {
    "docs/explanation/verdicts.md": ["measured "],
    ("docs/how-to/layer.md", 1): ["like-linear fail", "gd-trajectory fail: too slow"],
}


@pytest.fixture
def few_laws(one_family, laws_left):
    """The laws that the pages speak of, and a few others."""
    laws_left({"gd-trajectory", "weight-decay", "momentum", "layout", "resume", "epoch"})


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A folder that holds the files that a page shows, and what imports find."""

    def written(page):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(str(tmp_path))
        for title, text in blocks(page, "python"):
            if title:
                Path(title).write_text(text)
                sys.modules.pop(Path(title).stem, None)

    return written


@pytest.mark.parametrize(("page", "number"), PYTHON)
def test_every_example_runs(page, number, few_laws, beside, capsys):
    beside(page)
    exec(blocks(page, "python")[number][1], {"__name__": "__main__"})
    out = capsys.readouterr().out
    said = SAID.get((page, number), SAID.get(page, []))
    assert [words for words in said if words not in out] == []


@pytest.mark.processes
def test_the_example_of_ranks_runs(one_family, laws_left):
    ((_, text),) = blocks("docs/how-to/ranks.md", "python")
    laws_left({"ranks-equal"})
    names = {"__name__": "__main__"}
    exec(text, names)
    with pytest.raises(AssertionError, match="moves fail"):  # and it can fail
        names["assert_conforms"](Stack(optimizer=Still, lr=1.0, ranks=2))


class Still(torch.optim.SGD):
    """Moves nothing."""

    def step(self, closure=None):
        return None


TESTS = [text for page in PAGES for _, text in blocks(page, "python") if "def test_" in text]


@pytest.mark.parametrize(
    ("number", "named", "collected"),
    [
        (0, "gd-trajectory or adam-steps", {"sgd-gd-trajectory", "adam-adam-steps-within-0.01"}),
        (1, "", {"test_my_stack_conforms"}),
    ],
)
def test_an_example_of_a_test_is_one_that_pytest_collects(number, named, collected, here):
    assert len(TESTS) == 2
    _, out, _ = here(TESTS[number], "-m", "identity", "-k", named, "--collect-only")
    assert collected <= set(re.findall(r"<Function (?:\w+\[)?(.*?)\]?>", out))


def of_the_tutorial():
    """The commands that judge its broken optimizer: without a word of what it is, and with one."""
    shown = [shlex.split(line)[1:] for line in lines("docs/tutorial.md") if "my_optimizer:" in line]
    return [[*arguments, "--in-process"] for arguments in shown]  # where the fixtures reach


def test_the_tutorial_s_broken_optimizer_passes_as_long_as_nothing_says_what_it_is(beside, few_laws):
    beside("docs/tutorial.md")
    assert main(of_the_tutorial()[0]) == 0


def test_and_is_then_caught_by_the_rows_that_the_tutorial_names(beside, one_family, capsys):
    beside("docs/tutorial.md")
    assert main([*of_the_tutorial()[1], "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["name"] for row in rows if row["verdict"] == "fail"} == {"like-optimizer", "weight-decay"}


@pytest.mark.parametrize(("edit", "kind"), [("p.grad /= SCALE**2", "too slow"), ("", "wrong step")])
def test_what_the_page_of_loops_says_of_a_broken_step_is_so(edit, kind, few_laws):
    ((_, text), *_) = blocks("docs/how-to/loop.md", "python")
    names = {}
    broken = text.replace("p.grad /= SCALE", edit) if edit else text.replace("optimizer.zero_grad()", "pass")
    assert broken != text
    exec(broken, names)
    stack = Stack(step=names["scaled_step"])
    rows = {row.name: row for row in check_laws(stack, stack, Reference())}
    assert (rows["gd-trajectory"].verdict, rows["gd-trajectory"].kind) == ("fail", kind)


def test_what_the_page_of_trainers_shows_is_so(beside, capsys):
    beside("docs/how-to/trainer.md")
    design, account = [text.splitlines() for _, text in blocks("docs/how-to/trainer.md", "text")]
    command = "identity-props ledger --trainer my_training:fit"
    (shown,) = [line for line in lines("docs/how-to/trainer.md") if line.startswith(command)]
    assert main([*shlex.split(shown)[1:], "--in-process"]) == 0
    said = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in account if line not in said] == []
    assert main(["check", "--trainer", "my_training:fit", "--in-process", "--json"]) == 0
    rows = [row for row in json.loads(capsys.readouterr().out)["rows"] if row["verdict"] == "design"]
    notes = [f"{row['name']:<14} design   {row['kind']}: {row['note']}" for row in rows]
    assert [note.partition(";")[0] for note in notes] == design[1:]


@pytest.mark.trainers
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, on numpy 2
def test_the_script_of_the_page_of_keras_is_explained_from_its_file(beside, capsys, few_digits):
    page = "docs/how-to/explain-a-keras-network.md"
    from_keras.prepare()
    if pytest.importorskip("keras").config.backend() != "torch":
        pytest.skip("Keras is on another backend in this process")
    beside(page)
    script = Path("asker.py")
    small = {
        "28, 4, 20": "7, 4, 3",
        "import mnist": "import digits",
        'mnist(SIDE, "data")': "digits(SIDE, 256, 256)",
    }
    for there, here in small.items():
        assert there in script.read_text()
        script.write_text(script.read_text().replace(there, here))
    subprocess.run([sys.executable, script], check=True, capture_output=True)
    for line in lines(page)[1:]:
        shown = line.replace("--data mnist --side 28 --data-dir data", "--side 7").replace("9380", "20")
        assert shown != line
        assert main([*shlex.split(shown)[1:], "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert sum(part["fvu"] for part in found["parts"]) == pytest.approx(found["fvu"])
        measured = {part["name"]: part["measured"] for part in found["parts"]}
        assert measured["step-size floor"] == ("--optimizer" in line)
        assert any(one["after"] is not None for one in found["advice"]) == ("--try" in line)


def test_the_tutorial_s_table_names_every_claim_of_the_default_run():
    (_, table), *_ = blocks("docs/tutorial.md", "text")
    rows = [line.split()[0] for line in table.splitlines()[3:] if not line[0].isdigit()]
    default = [claim.name for claim in CLAIMS.values() if not claim.slow]
    assert rows == default
    assert f"trains {len(default)} claims" in PAGES["docs/tutorial.md"]


# CONTRIBUTING ---------------------------------------------------------------------------------------


@pytest.fixture
def added():
    """Runs an example of CONTRIBUTING, and takes what it adds out of the registries again."""
    registries = (LAWS, CLAIMS, FAULTS)
    before = [dict(registry) for registry in registries]

    def run(number):
        names = {"__name__": "example"}
        exec(blocks("CONTRIBUTING.md", "python")[number][1], names)
        return names

    yield run
    for registry, entries in zip(registries, before, strict=True):
        registry.clear()
        registry.update(entries)


def test_the_law_that_it_adds_holds_and_its_control_breaks_it(added):
    control = added(0)["CONTROL"]
    case = Family(d=7, n=12, rank=6).case(4)
    clean, broken = (Stack(dtype=torch.float64, **parts) for parts in ({}, control))
    assert LAWS["example-order"].measure(clean, case).holds
    assert not LAWS["example-order"].measure(broken, case).holds


def test_the_claim_that_it_adds_holds(added):
    added(1)
    pixels = digits(7, train=512, test=128)
    assert audit.judge(CLAIMS["linear-2"], pixels, trainer(pixels, Stack())).holds


def test_the_fault_that_it_adds_is_seen_by_a_law(few_laws, added, monkeypatch):
    added(2)
    monkeypatch.setattr(audit, "CLAIMS_OF", dict.fromkeys(audit.CLAIMS_OF, ()))
    fault = FAULTS["gradient-halved"]
    assert "gd-trajectory" in audit.examine(fault.stack, fault.twin).laws


def test_the_registries_are_then_as_they_were():
    assert not {"example-order", "linear-2", "gradient-halved"} & (
        LAWS.keys() | CLAIMS.keys() | FAULTS.keys()
    )


def test_the_rooms_of_contributing_are_those_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    rooms = re.findall(r"^\| `(\w+)", PAGES["CONTRIBUTING.md"], re.MULTILINE)
    assert rooms[::-1] == [room for room in contracts[0]["layers"] if room != "__main__"]


# Made pages -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hooks():
    """The hooks as mkdocs loads them, with what lies beside them in reach."""
    pytest.importorskip("mkdocs")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS)
        yield import_module("hooks")


def test_every_law_claim_and_fault_has_a_page_and_a_line(hooks):
    pages = hooks.generated()
    assert all(f"reference/laws/{name}.md" in pages for name in OTHERS)
    for folder, registry in (
        ("laws", LAWS),
        ("laws", TRAINER_LAWS),
        ("claims", CLAIMS),
        ("faults", ALL_FAULTS),
    ):
        assert all(f"reference/{folder}/{name}.md" in pages for name in registry)
        index = pages[f"reference/{folder}/index.md"]
        assert [name for name in registry if f"[{name}](../{folder}/{name}.md)" not in index] == []


def test_commands_options_and_environments_are_all_of_them(hooks, pytestconfig):
    pages = hooks.generated()
    assert [name for name in commands.commands if f"## {name}\n" not in pages["reference/commands.md"]] == []
    actions = pytestconfig._parser.optparser._actions
    known = {name for action in actions for name in action.option_strings if "--identity" in name}
    assert set(re.findall(r"`(--identity-[a-z-]+)`", pages["reference/options.md"])) == known
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    assert [name for name in environments if f"| `{name}` |" not in pages["reference/options.md"]] == []


def test_every_public_name_is_in_the_reference(hooks):
    page = hooks.generated()["reference/python.md"]
    assert [name for name in identity_props.__all__ if f"\n## {name}\n" not in page] == []
    assert "identity_props." not in page.replace("identity_props.suite", "")


def test_every_algorithm_has_an_entry(hooks):
    page = hooks.generated()["reference/algorithms.md"]
    assert [name for name in ALGORITHMS if f"## {name}\n" not in page] == []


def test_every_way_to_fail_is_explained():
    words = set(re.findall(r"`([a-z -]+)`", PAGES["docs/reference/rows.md"].partition("How a row fails")[2]))
    assert {law.kind for law in (*LAWS.values(), *TRAINER_LAWS.values())} <= words
    assert [name for name in OTHERS if f"| `{name}` |" not in PAGES["docs/reference/rows.md"]] == []


def test_a_fault_and_the_laws_and_claims_that_see_it_link_to_each_other(hooks, monkeypatch):
    found = {"name": "mask-cached", "kind": "fault", "equivalent": ""}
    found |= {
        "laws": ["like-optimizer", "freeze"],
        "claims": ["linear-1"],
        "gate": ["linear-1/end worse x 2"],
    }
    monkeypatch.setattr("made.registries.findings", lambda: {"mask-cached": found})
    pages = hooks.generated()
    assert "[mask-cached](../faults/mask-cached.md)" in pages["reference/laws/freeze.md"]
    assert "[mask-cached](../faults/mask-cached.md)" in pages["reference/claims/linear-1.md"]
    assert "mask-cached" not in pages["reference/laws/layout.md"]
    fault = pages["reference/faults/mask-cached.md"]
    assert "law [freeze](../laws/freeze.md)" in fault
    assert "row [like-optimizer](../laws/like-optimizer.md)" in fault
    assert "claim [linear-1](../claims/linear-1.md)" in fault
    assert "Laws see 1 of 1 faults" in pages["reference/faults/index.md"]


def test_text_of_a_registry_is_shown_as_it_is(hooks):
    plain = import_module("made.markdown").plain
    assert plain("W* = |a_b| < ``x*y``") == r"W\* = \|a\_b\| &lt; `x*y`"


def test_a_schema_is_a_file_of_the_site(hooks):
    pages = hooks.generated()
    for name in (
        "results",
        "check",
        "ledger",
        "gate",
        "audit",
        "explanation",
        "comparison",
        "atlas",
        "advice",
        "baseline",
    ):
        Draft202012Validator.check_schema(json.loads(pages[f"reference/schemas/{name}.json"]))


@pytest.mark.processes
@pytest.mark.skipif(find_spec("material") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_warning_and_asks_no_other_server(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    loads = re.compile(r"<(?:link|script|img|iframe)[^>]*(?:src|href)=\"?(?:https?:)?//")
    assert [file for file in tmp_path.rglob("*.html") if loads.search(file.read_text())] == []

"""``explain --compare``: two explanations side by side, part by part, and what cannot be compared is refused."""

import json
import re
from functools import partial

import pytest
from jsonschema import Draft202012Validator

from identity_props.cli import main
from identity_props.report.compare import read, rows
from identity_props.report.schemas import schemas
from identity_props.task import reading
from tests.test_fitting import shown


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """Two explanations that the command wrote of networks with and without an output ReLU, on the same digits."""
    folder = tmp_path_factory.mktemp("explained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "digits", partial(reading.digits, train=512, test=128))
        for variant in ("plain-relu", "linear-output"):
            given = f"explain --depth 2 --steps 50 --variant {variant} --out".split()
            assert main([*given, str(folder / variant)]) == 0
    return [folder / variant / "explanation.json" for variant in ("plain-relu", "linear-output")]


@pytest.fixture
def edited(explained, tmp_path):
    """Writes a copy of the second with edits, and returns both paths as text."""

    def write(edit):
        found = json.loads(explained[1].read_text())
        edit(found)
        (tmp_path / "b.json").write_text(json.dumps(found))
        return str(explained[0]), str(tmp_path / "b.json")

    return write


def refused(arguments, capsys, code=2):
    assert main(["explain", "--compare", *arguments]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_parts_of_both_and_their_differences_add_up_to_those_of_the_whole(explained, capsys):
    capsys.readouterr()
    assert main(["explain", "--compare", *map(str, explained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [*Draft202012Validator(schemas()["comparison"]).iter_errors(found)] == []
    documents = [json.loads(path.read_text()) for path in explained]
    for side, document in zip("ab", documents, strict=True):
        assert found[side]["name"] == document["name"]
        assert found["fvu"][side] == document["fvu"]
        assert sum(part[side] for part in found["parts"]) == pytest.approx(document["fvu"])
    assert [part["name"] for part in found["parts"]] == [part["name"] for part in documents[0]["parts"]]
    assert all(part["difference"] == part["b"] - part["a"] for part in found["parts"])
    assert sum(part["difference"] for part in found["parts"]) == pytest.approx(found["fvu"]["difference"])


def test_a_document_beside_itself_differs_in_nothing(explained):
    found = read((explained[0], explained[0]))
    assert {row.difference for row in (*found.parts, *found.whole)} == {0.0}


def test_the_table_and_the_page_show_both_with_the_difference(explained, tmp_path, capsys):
    given = ["explain", "--compare", *map(str, explained), "--out", str(tmp_path)]
    assert main(given) == 0
    out, err = capsys.readouterr()
    assert "comparison.json" in err
    table, page = " ".join(out.split()), (tmp_path / "report.html").read_text()
    for cells in rows(read(tuple(explained))):
        assert cells[0] in table
        assert all(cell in page for cell in cells)
    for name in ("plain-relu, depth 2", "linear-output, depth 2"):
        assert name in table
        assert len(re.findall(name, page)) >= 2
    assert page.count('class="bar"') == 2
    assert re.search(r"being the width\. .*D dead outputs", page)
    assert page.count(">machine system<") == 1
    assert "seed of a" not in page
    assert json.loads((tmp_path / "comparison.json").read_text())["schema"] == "identity-props/comparison/1"
    assert main(given) == 2
    assert "--force replaces it" in capsys.readouterr().err


@pytest.mark.parametrize("width", [40, 100])
def test_no_difference_is_cut_in_a_narrow_terminal(width, explained):
    from identity_props.report.compare import table

    found = read(tuple(explained))
    out = shown(table(found), width)
    assert [cells[3] for cells in rows(found) if cells[3] not in out] == []


def test_what_one_did_not_measure_has_no_difference(edited, capsys):
    def forget(found):
        for part in found["parts"]:
            if part["name"] == "step-size floor":
                part |= {"fvu": 0.0, "measured": False}

    assert main(["explain", "--compare", *edited(forget), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (floor,) = [part for part in found["parts"] if part["name"] == "step-size floor"]
    assert (floor["b"], floor["difference"]) == (None, None)
    assert floor["a"] is not None


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda d: d.update(schema="identity-props/check/1"), "expected identity-props/explanation/1, got identity-props/check/1"),
        (lambda d: d.update(schema="identity-props/explanation/9"), "got identity-props/explanation/9"),
        (lambda d: d["versions"].update(identity_props="9.9"), "expected two of one version"),
        (lambda d: d["data"].update(fingerprint="0" * 64), "expected two on the same data, got digits with 512 + 128"),
        (lambda d: d["parts"][0].update(fvu="much"), "got at parts[0].fvu: 'much' is not of type 'number'"),
        (lambda d: d.pop("mse"), "'mse' is a required property"),
    ],
)  # fmt: skip
def test_other_documents_versions_and_data_are_refused_in_a_line(edit, said, edited, capsys):
    assert said in refused(edited(edit), capsys)


@pytest.mark.parametrize(
    ("text", "said"), [("{", "expected JSON"), ("[]", "got no schema"), ("\xff", "expected JSON")]
)
def test_a_file_that_is_no_document_is_refused_in_a_line(text, said, explained, tmp_path, capsys):
    (tmp_path / "b.json").write_text(text, encoding="latin-1")
    assert said in refused([str(explained[0]), str(tmp_path / "b.json")], capsys)


def test_a_file_that_is_not_there_is_missing(explained, tmp_path, capsys):
    line = refused([str(explained[0]), str(tmp_path / "none.json")], capsys, code=3)
    assert "expected a file, there is none" in line
    assert "expected a file" in refused([str(explained[0]), str(tmp_path)], capsys)


def test_an_option_of_what_is_explained_does_not_go_with_it(explained, capsys):
    line = refused([*map(str, explained), "--depth", "2"], capsys)
    assert "expected --out, --force or --json beside it alone, got --depth" in line

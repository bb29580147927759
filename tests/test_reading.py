"""Data of one's own: every kind of file gives the same rows, and what cannot be learned says so in one line."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from identity_props import InputError, MissingError, Pixels, read_data
from identity_props.cli import main
from identity_props.task.reading import load

N, D = 20, 6
X = np.random.default_rng(0).normal(size=(N, D)).round(3)
HEADED = "\n".join(["a,b,c,d,e,f", *(",".join(map(str, row)) for row in X.tolist())])


def parquet(file):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table({name: X[:, k] for k, name in enumerate("abcdef")}), file)


WRITE = {
    "npy": lambda file: np.save(file, X),
    "npz": lambda file: np.savez(file, X),
    "csv": lambda file: file.write_text(HEADED),
    "tsv": lambda file: file.write_text(HEADED.replace(",", "\t").partition("\n")[2]),
    "parquet": parquet,
    "safetensors": lambda file: save_file({"x": torch.from_numpy(X)}, file),
}


@pytest.mark.parametrize("kind", WRITE)
def test_every_kind_of_file_gives_the_same_rows(kind, tmp_path):
    WRITE[kind](file := tmp_path / f"x.{kind}")
    pixels = read_data(file)
    assert (pixels.name, pixels.d, len(pixels.train), len(pixels.test)) == (file.name, D, 16, 4)
    rows = torch.cat([pixels.train, pixels.test])
    assert torch.equal(rows[rows[:, 0].argsort()], torch.from_numpy(X[X[:, 0].argsort()]))


@given(seed=st.integers(0, 2**32 - 1))
def test_a_seed_gives_the_same_halves_and_loses_no_row(seed, tmp_path_factory):
    np.save(file := tmp_path_factory.getbasetemp() / "rows.npy", X)
    first, again = (read_data(file, seed=seed) for _ in range(2))
    assert first.fingerprint == again.fingerprint
    assert sorted([*first.train[:, 0].tolist(), *first.test[:, 0].tolist()]) == sorted(X[:, 0].tolist())


def test_another_seed_gives_other_halves(tmp_path):
    np.save(file := tmp_path / "x.npy", X)
    assert not torch.equal(read_data(file, seed=0).test, read_data(file, seed=1).test)


def test_a_second_file_or_two_arrays_are_train_and_test(tmp_path):
    np.save(first := tmp_path / "train.npy", X[:15])
    np.save(second := tmp_path / "test.npy", X[15:])
    np.savez(both := tmp_path / "both.npz", x_train=X[:15], y_train=np.arange(15), x_test=X[15:])
    for pixels in (read_data(first, test=second), read_data(both)):
        assert torch.equal(pixels.train, torch.from_numpy(X[:15]))
        assert torch.equal(pixels.test, torch.from_numpy(X[15:]))


def test_a_target_follows_its_examples_through_the_split_and_the_scaling(tmp_path):
    np.save(file := tmp_path / "x.npy", X)
    np.save(goal := tmp_path / "y.npy", 2 * X + 1)
    pixels = read_data(file, target=goal)
    for scaling in ("none", "standardise"):
        scaled = pixels.scaled(scaling)
        back = scaled.scaling.backward if scaled.scaling else lambda z: z
        for x, y in zip((scaled.train, scaled.test), scaled.goal, strict=True):
            assert torch.allclose(2 * back(x) + 1, back(y))
    assert pixels.fingerprint != read_data(file).fingerprint
    assert pixels.name == "x.npy to y.npy"


@pytest.mark.parametrize(
    ("shape", "asked", "seen"),
    [
        ((12, 4, 3), None, (4, 3)),
        ((12, 1, 4, 3), None, (4, 3)),
        ((12, 12), (3, 4), (3, 4)),
        ((12, 12), None, None),
        ((12, 2, 2, 3), None, None),
    ],
)
def test_pictures_are_rows_with_height_and_width_or_a_shape(shape, asked, seen, tmp_path):
    np.save(file := tmp_path / "x.npy", np.random.default_rng(0).random(shape, dtype=np.float32))
    assert read_data(file, shape=asked).shape == seen


def test_a_folder_of_images_is_read_in_grey_and_resized_where_a_shape_is_asked(tmp_path):
    for k in range(6):
        (tmp_path / f"class{k % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (8, 4), (40 * k, 40 * k, 40 * k)).save(tmp_path / f"class{k % 2}" / f"{k}.png")
    assert read_data(tmp_path).shape == (4, 8)
    small = read_data(tmp_path, shape=(2, 2))
    assert sorted(torch.cat([small.train, small.test])[:, 0].tolist()) == [0, 40, 80, 120, 160, 200]
    Image.new("L", (5, 5)).save(tmp_path / "odd.png")
    with pytest.raises(InputError, match=r"odd\.png: expected images of one size, got 4x8 and 5x5"):
        read_data(tmp_path)


@pytest.mark.parametrize(
    ("values", "top"), [([0, 1], 1), ([0, 254], 255), ([0.5, 254.5], 254.5), ([-3, 2], 3)]
)
def test_unit_divides_by_what_the_numbers_go_up_to(values, top, tmp_path):
    np.save(file := tmp_path / "x.npy", np.array(values * 10, dtype=np.float64).reshape(10, 2))
    with pytest.raises(InputError, match="pixels that vary"):
        read_data(file)  # every row is the same
    rows = np.array([values, values[::-1]] * 10, dtype=np.float64)
    np.save(file, rows)
    assert float(read_data(file).scaled("unit").train.abs().max()) * top == pytest.approx(
        np.abs(values).max()
    )


def test_constant_columns_of_a_table_are_told_and_kept(tmp_path):
    (file := tmp_path / "x.csv").write_text(
        "\n".join(["a,b", *(f"{k},7" for k in range(8))]), encoding="utf-8"
    )
    with pytest.warns(UserWarning, match=r"1 of 2 columns are constant, .*: column 2 \('b'\)$"):
        assert read_data(file).d == 2


def saved(tmp_path, kind):
    x = X.copy()
    if kind == "nan":
        x[3, 2] = np.nan
    (tmp_path / "text.csv").write_text("a,city\n1,Oslo\n2,Bern\n")
    (tmp_path / "hole.csv").write_text("a;b\n1;2\n3;\n")
    (tmp_path / "ragged.csv").write_text("1,2\n3,4\n5,6,7\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00\x81")
    (tmp_path / "empty.csv").write_text("")
    np.save(tmp_path / "nan.npy", x)
    np.save(tmp_path / "one.npy", X[:1])
    np.save(tmp_path / "flat.npy", X[0])
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "objects.npy", np.array([[{}]]), allow_pickle=True)
    np.savez(tmp_path / "many.npz", a=X, b=X)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "nan.npy").read_bytes()[:-40])
    (tmp_path / "cut.safetensors").write_bytes(b"no")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1")
    (tmp_path / "x.txt").write_text("1")
    (tmp_path / "none").mkdir()
    return tmp_path


REFUSED = {
    "nan.npy": r"expected finite numbers, got nan in row 4, column 3, and 0 others",
    "text.csv": r"expected numbers alone, got 'Oslo' in line 2, column 2 \('city'\)",
    "hole.csv": r"expected numbers alone, got an empty cell in line 3, column 2 \('b'\)",
    "ragged.csv": "expected 2 columns, got 3 in line 3",
    "bytes.csv": "expected a table as text",
    "empty.csv": "expected rows of numbers",
    "one.npy": "expected 4 rows or more, to train and to test on, got 1",
    "flat.npy": r"expected rows of numbers \[n, d\], got \[6\]",
    "words.npy": "expected numbers, got <U1",
    "objects.npy": "expected arrays of numbers that numpy saved",
    "many.npz": "expected one array, or x_train and x_test, got a, b",
    "cut.npy": "expected arrays of numbers that numpy saved",
    "cut.safetensors": "expected a whole safetensors file",
    "cut.parquet": "expected a whole parquet file",
    "x.txt": "expected one of .csv, .npy, .npz, .parquet, .safetensors, .tsv, a folder of images, got .txt",
    "none": "expected images, there are none",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_learned_is_refused_in_one_line(name, tmp_path, capsys):
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    folder = saved(tmp_path, name.partition(".")[0])
    with pytest.raises(InputError, match=REFUSED[name]) as refused:
        read_data(folder / name)
    assert "\n" not in str(refused.value)
    assert main(["explain", "--data", str(folder / name), "--model", "torch.nn:Identity"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": "narrow.npy"}, r"narrow.npy: expected rows of 6 numbers, as .*x.npy has, got 5"),
        ({"test": "one.npy"}, "one.npy: expected 2 rows or more, got 1"),
        ({"target": "narrow.npy"}, "narrow.npy: expected 6 columns, as"),
        ({"target": "short.npy"}, "short.npy: expected 16 rows, one an example, as"),
        ({"target": "x.npy", "test": "x.npy"}, "expected one for each file of examples"),
        ({"test_target": "x.npy"}, "expected a target of the other examples too"),
        ({"shape": (2, 2)}, "expected 2x2 = 4 numbers a row, got 6"),
    ],
)
def test_files_that_do_not_fit_together_are_refused(given, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, x in {"x": X, "narrow": X[:, :5], "short": X[:9], "one": X[:1]}.items():
        np.save(f"{name}.npy", x)
    with pytest.raises(InputError, match=message):
        read_data("x.npy", **given)


def test_a_name_that_is_nothing_says_what_would_be(tmp_path):
    with pytest.raises(InputError, match="expected digits, mnist or a file"):
        load("faces", 7)
    with pytest.raises(
        MissingError, match=r"faces.npy: expected a file or a folder of images, there is none"
    ):
        load(str(tmp_path / "faces.npy"), 7)


def test_the_halves_of_pixels_and_their_targets_fit():
    with pytest.raises(InputError, match=r"test: expected a target \[4, 3\], as its input, got \[3, 3\]"):
        Pixels("drawn", torch.rand(4, 3), torch.rand(4, 3), targets=(torch.rand(4, 3), torch.rand(3, 3)))


# The commands ---------------------------------------------------------------------------------------


def test_explain_and_run_take_a_file_and_note_what_is_constant(tmp_path, capsys):
    rows = [",".join(map(str, [*row, 1])) for row in np.random.default_rng(0).random((200, 4)).tolist()]
    (file := tmp_path / "x.csv").write_text("\n".join(rows))
    asked = ["explain", "--data", str(file), "--variant", "linear", "--steps", "5", "--json"]
    assert main(asked) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["data"] | {"fingerprint": ""} == {
        "name": "x.csv",
        "shape": None,
        "train": 160,
        "test": 40,
        "fingerprint": "",
    }
    assert err.startswith("note: ")
    assert "1 of 5 columns are constant" in err
    run = ["run", "--data", str(file), "--claims", "scaled-whiten", "--replicas", "2", "--jobs", "1"]
    assert main([*run, "--json"]) in (0, 1)
    assert json.loads(capsys.readouterr().out)["data"]["name"] == "x.csv"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test", "x.npy"], "--test: expected --data FILE, which it is about, got digits"),
        (["--shape", "7x7"], "--shape: expected --data FILE, which it is about, got digits"),
        (["--shape", "7"], "7: expected height and width, such as 28x28"),
    ],
)
def test_options_of_a_file_want_one(arguments, message, capsys):
    assert main(["explain", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1

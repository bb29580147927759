"""Layers of any kind: what each law catches, and what none may accuse."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from identity_props import assert_layer
from identity_props.conformance.layered import COMPUTES, LIKE, check_layer, row_of
from identity_props.conformance.rows import FAIL, NOT_APPLICABLE, PASS
from identity_props.errors import InputError
from identity_props.layers import LAYER_LAWS, LayerBench, bench_of
from tests import broken_layers as broken
from tests import unfamiliar_layers as unfamiliar
from tests.zoo import AGAIN, FOUND, LINEAR, SOUND, Sound

ROOT = Path(__file__).parent.parent
SIZES = {"in_features": 5, "out_features": 4}
TABLE = {"num_embeddings": 7, "embedding_dim": 3}


def of(name, **arguments):
    """A broken layer on a bench."""
    one = getattr(broken, name)
    if issubclass(one, nn.Embedding):
        return LayerBench(one, ((4,),), "tokens", TABLE | arguments)
    if issubclass(one, nn.RMSNorm):
        return LayerBench(one, ((6,),), arguments={"normalized_shape": 6})
    if issubclass(one, nn.Conv1d):
        return LayerBench(one, ((2, 6),), arguments={"in_channels": 2, "out_channels": 3, "kernel_size": 3})
    return LayerBench(one, ((5,),), arguments=SIZES | arguments)


# law, layer, kind, and words of the row
CONTROLS = [
    ("parameter-gradient", "Halved", {}, "wrong gradient", "backward, weight, all of [4, 5], evaluating"),
    (
        "parameter-gradient",
        "RowLost",
        {},
        "wrong gradient",
        "backward, weight [axis 0: 1 of 4, at 2], evaluating",
    ),
    ("parameter-gradient", "WritesRepeated", {}, "wrong gradient", "backward, weight [axis 0: "),
    ("parameter-gradient", "TrainsPadding", {"padding_idx": 2}, "wrong gradient", "gradient of padding_idx"),
    ("input-gradient", "DoubledBack", {}, "wrong gradient", "backward, the input, all of [5, 5]"),
    ("second-order", "FirstOrder", {}, "wrong gradient", "backward twice, along"),
    ("linear-in-parameters", "Saturating", {}, "wrong output", "forward, parameters, training, 1024 away"),
    ("linear-in-parameters", "Clipping", {}, "wrong output", "forward, inputs, training, 1024 away"),
    ("layer-modes", "ScaledTwice", {}, "wrong output", "forward, the output, evaluating, as in training"),
    ("layer-trajectory", "Halved", {}, "wrong step", "its first step is 0.5 times that"),
    ("layer-trajectory", "RowLost", {}, "wrong step", "weight [axis 0: 1 of 4, at 2], training, step 1"),
    ("layer-trajectory", "WritesRepeated", {}, "wrong step", "backward, weight [axis 0: "),
    ("gradients-add", "Overwritten", {}, "wrong gradient", "used twice before the pass back"),
    ("gradients-add", "WritesRepeated", {}, "wrong gradient", "examples one by one"),
    ("twice", "SpentOnce", {}, "wrong gradient", "backward, weight, evaluating, two passes back"),
    ("layer-dtype", "SixteenBits", {}, "wrong output", "float32: |it - float64's| / its size"),
    ("layer-dtype", "Overflows", {}, "wrong output", "forward, the output"),
    ("layer-layout", "ReadsContiguous", {}, "wrong output", "forward, the output, evaluating, inputs"),
    ("layer-shapes", "DropsTail", {}, "wrong output", "forward, the output, evaluating, 3 examples"),
    (
        "layer-shapes",
        "OddInput",
        {},
        "wrong gradient",
        "the input [axis 2: 1 of 11, at 10], evaluating, examples [2, 11]",
    ),
    ("layer-modes", "Cached", {}, "wrong output", "forward, the output, evaluating, after new weights"),
    ("layer-modes", "SharedCopy", {}, "wrong output", "its deep copy changed"),
    ("layer-modes", "StaysFrozen", {}, "wrong gradient", "weight frozen"),
    ("in-place", "ScalesInPlace", {}, "changes what it reads", "numbers that changed of the input"),
    ("deterministic", "AlwaysDrops", {}, "not repeatable", "forward, evaluating: numbers that differ"),
    ("layer-mean", "Unscaled", {}, "wrong output", "forward, training: |mean of 1024 passes"),
]


@pytest.mark.parametrize(("law", "name", "arguments", "kind", "words"), CONTROLS)
def test_a_broken_layer_fails_by_the_law_that_it_breaks(law, name, arguments, kind, words):
    row = row_of(LAYER_LAWS[law], of(name, **arguments))
    assert (row.verdict, row.kind) == (FAIL, kind), str(row)
    assert words in row.note


def test_every_law_has_a_control():
    assert {law for law, *_ in CONTROLS} == {*LAYER_LAWS}


def like(name, reference=nn.Linear, **others):
    """What the row of --like-layer says of a broken layer."""
    bench = replace(of(name), like=reference, **others)
    return next(row for row in check_layer(bench) if row.name == LIKE)


@pytest.mark.parametrize(
    ("name", "reference", "kind", "words"),
    [
        ("Halved", nn.Linear, "wrong gradient", "backward, weight, all of [4, 5], evaluating, "),
        ("RowLost", nn.Linear, "wrong gradient", "backward, weight [axis 0: 1 of 4, at 2], evaluating, "),
        ("DoubledBack", nn.Linear, "wrong gradient", "backward, the input, all of [5, 5]"),
        ("DropsTail", nn.Linear, "wrong output", "forward, the output [axis 0: 1 of "),
        ("SixteenBits", nn.Linear, "wrong output", "evaluating, float32: |it - the reference's| / its size"),
        ("AlwaysDrops", nn.Linear, "wrong output", "forward, the output"),
        ("WritesRepeated", nn.Embedding, "wrong gradient", "backward, weight"),
        ("Overflows", nn.RMSNorm, "wrong output", "evaluating, float16"),
    ],
)
def test_a_layer_that_is_not_its_reference_fails_and_says_where(name, reference, kind, words):
    row = like(name, reference)
    assert (row.verdict, row.kind) == (FAIL, kind), str(row)
    assert words in row.note


@pytest.mark.thorough
@pytest.mark.parametrize(
    "name", ["Conv2d", "LayerNorm", "Embedding padded", "LSTM", "BatchNorm1d", "Bilinear"]
)
def test_a_layer_is_like_itself(name):
    one = SOUND[name]
    (row,) = (row for row in check_layer(replace(one.bench(), like=one.factory)) if row.name == LIKE)
    assert row.verdict == PASS, str(row)


class Renamed(nn.Module):
    """torch's linear layer under other names, with an argument of its own."""

    def __init__(self, in_features, out_features, bias=True, mine=0):
        super().__init__()
        self.w = nn.Parameter(torch.randn(out_features, in_features))
        self.b = nn.Parameter(torch.randn(out_features)) if bias else None

    def forward(self, x):
        return nn.functional.linear(x, self.w, self.b)


def test_parameters_of_other_names_are_matched_by_place_and_arguments_that_the_reference_lacks_are_left_out():
    bench = LayerBench(Renamed, ((5,),), arguments=SIZES | {"mine": 1}, like=nn.Linear)
    (row,) = (row for row in check_layer(bench) if row.name == LIKE)
    assert row.verdict == PASS, str(row)


def test_parameters_of_other_shapes_are_told():
    bench = LayerBench(nn.Linear, ((4,),), arguments={"in_features": 4, "out_features": 4}, like=Square)
    (row,) = (row for row in check_layer(bench) if row.name == LIKE)
    assert row.verdict == FAIL
    assert (
        "its parameters are {'weight': [4, 4], 'bias': [4]}, the reference's {'weight': [4, 4]}" in row.note
    )


class Square(nn.Linear):
    """Without bias."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features, bias=False)


@pytest.mark.thorough
@pytest.mark.parametrize("name", unfamiliar.CLEAN)
def test_a_sound_layer_in_an_unfamiliar_style_is_not_accused(name):
    rows = [*check_layer(unfamiliar.CLEAN[name].bench())]
    assert [str(row) for row in rows if row.verdict == FAIL] == []


@pytest.mark.thorough
@pytest.mark.parametrize("name", unfamiliar.FAULTY)
def test_its_style_excuses_no_layer_that_is_faulty(name):
    layer, law = unfamiliar.FAULTY[name]
    assert law in [row.name for row in check_layer(layer.bench()) if row.verdict == FAIL]


SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))]  # the same with other draws


KINDS = [pytest.param(name, marks=[pytest.mark.slow] * (name in AGAIN)) for name in SOUND]


@pytest.mark.thorough
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", KINDS)
def test_a_sound_layer_is_not_accused(name, seed):
    rows = [*check_layer(SOUND[name].bench(seed))]
    assert [str(row) for row in rows if row.verdict == FAIL and (name, row.name) not in FOUND] == []
    assert sum(row.verdict == PASS for row in rows) >= 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LINEAR)
def test_a_layer_that_is_linear_in_its_parameters_is_not_accused_of_a_hundred_seeds(name):
    rows = [row for seed in range(100) for row in check_layer(LINEAR[name].bench(seed))]
    assert [str(row) for row in rows if row.verdict == FAIL and (name, row.name) not in FOUND] == []


def test_each_law_holds_of_a_convolution():
    rows = [*check_layer(SOUND["Conv2d"].bench())]
    assert [row.name for row in rows] == [COMPUTES, *LAYER_LAWS]
    assert {row.verdict for row in rows if row.name != "layer-mean"} == {PASS}  # it draws nothing


@pytest.mark.parametrize(
    ("name", "law", "why"),
    [
        ("LSTM", "layer-trajectory", "not linear in its parameters"),
        ("Embedding", "input-gradient", "its inputs are token ids"),
        ("Embedding by frequency", "parameter-gradient", "scale_grad_by_freq"),
        ("Embedding max_norm", "parameter-gradient", "a pass changes its parameters"),
        ("ReLU in place", "in-place", "inplace=True"),
        ("rounded weights", "layer-dtype", "its outputs move in steps"),
        ("Dropout", "layer-trajectory", "nothing of it trains"),
        ("Dropout", "layer-mean", "as augmentations do"),
        ("Conv2d", "layer-mean", "it draws nothing"),
    ],
)
def test_what_a_layer_does_not_promise_does_not_apply_and_says_why(name, law, why):
    row = row_of(LAYER_LAWS[law], SOUND[name].bench())
    assert (row.verdict, why in row.note) == (NOT_APPLICABLE, True), str(row)


@pytest.mark.parametrize("law", ["gradients-add", "layer-shapes"])
def test_rows_say_where_no_example_is_looked_at_alone(law):
    rows = [row_of(LAYER_LAWS[law], LayerBench(layer, ((4,),))) for layer in (OverBatch, nn.Tanh)]
    assert [row.verdict for row in rows] in ([PASS, PASS], [PASS, NOT_APPLICABLE])
    assert ["its examples mix in evaluation" in row.note for row in rows] == [True, False]


class OverBatch(nn.Module):
    """Shares of a batch."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return (self.scale * x).softmax(0)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        (unfamiliar.AlphaDropped, "more than a factor"),
        (unfamiliar.StandsIn, "evaluation does not use stand_in"),
        (unfamiliar.Rectified, "not affine in its input"),
        (unfamiliar.Augmented, "as augmentations do"),
    ],
)
def test_draws_that_are_meant_to_have_another_mean_are_left_alone(layer, why):
    row = row_of(LAYER_LAWS["layer-mean"], LayerBench(layer, ((5,),)))
    assert (row.verdict, why in row.note) == (NOT_APPLICABLE, True), str(row)


@pytest.mark.parametrize("layer", [unfamiliar.Path, unfamiliar.KeptLater, unfamiliar.Scales])
def test_draws_around_what_evaluation_gives_are_judged_and_hold(layer):
    for seed in range(3):
        row = row_of(LAYER_LAWS["layer-mean"], LayerBench(layer, ((5,),), seed=seed))
        assert row.verdict == PASS, str(row)


def test_buffers_that_each_pass_changes_leave_evaluation_to_be_judged():
    bench = SOUND["spectral_norm"].bench()
    assert bench.modes == [False]
    assert "buffers" in bench.reasons[True]


class Positive(nn.Module):
    """Its scale has to be positive."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.full((64,), 1e-3))

    def forward(self, x):
        return x * self.scale.sqrt()


def test_parameters_that_have_to_be_positive_are_left_where_they_begin():
    rows = [*check_layer(LayerBench(Positive, ((64,),)))]
    assert [str(row) for row in rows if row.verdict == FAIL] == []
    assert rows[1].verdict == PASS


@pytest.mark.parametrize("name", ["NotFinite"])
def test_a_layer_that_does_not_compute_is_one_row(name):
    (row,) = check_layer(of(name))
    assert (row.name, row.verdict, row.kind) == (COMPUTES, FAIL, "diverges")


def test_a_layer_that_takes_one_dtype_and_contiguous_inputs_alone_is_judged_in_that():
    rows = {row.name: row for row in check_layer(of("OnlyFloat32"))}
    assert [str(row) for row in rows.values() if row.verdict == FAIL] == []
    assert rows[COMPUTES].note.endswith("judged in float32")
    assert rows["layer-dtype"].note == "it takes float32 alone"
    assert rows["layer-trajectory"].verdict == PASS


def test_a_broken_layer_in_float32_alone_is_caught():
    class Both(broken.OnlyFloat32, broken.Halved):
        pass

    rows = {row.name: row for row in check_layer(LayerBench(Both, ((5,),), arguments=SIZES))}
    assert rows["layer-trajectory"].verdict == rows["parameter-gradient"].verdict == FAIL


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"shapes": ()}, "input shape: expected sizes"),
        ({"shapes": ((0,),)}, "input shape: expected sizes"),
        ({"kind": "words"}, "input kind: expected float or tokens, got 'words'"),
        ({"mode": "fast"}, "mode: expected eager or compiled, got 'fast'"),
        ({"arguments": {"in_features": 3}}, "expected arguments that it takes"),
        ({"factory": 3}, "expected a factory of modules, got 3"),
    ],
)
def test_what_is_no_layer_is_said_in_a_line(given, message):
    with pytest.raises(InputError, match=message):
        LayerBench(**({"factory": nn.Linear, "shapes": ((5,),), "arguments": SIZES} | given))


def test_a_factory_of_something_else_is_said_in_a_line():
    with pytest.raises(InputError, match=r"expected a factory of torch\.nn\.Module, got list"):
        [*check_layer(LayerBench(list, ((5,),)))]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("name", "row", "kind"), [("Hangs", COMPUTES, "hangs"), ("Crashes", "layer-shapes", "crashes")]
)
def test_a_layer_that_hangs_or_ends_its_process_is_a_row(name, row, kind):
    given = ["--layer", f"tests.broken_layers:{name}", "--input-shape", "5", "--guard", "20", "--json"]
    for argument in SIZES.items():
        given += ["--layer-arg", "{}={}".format(*argument)]
    command = [sys.executable, "-m", "identity_props", "check", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    rows = {one["name"]: one for one in json.loads(done.stdout)["rows"]}
    assert (rows[row]["verdict"], rows[row]["kind"]) == (FAIL, kind)
    assert len(rows) == (1 if row == COMPUTES else 1 + len(LAYER_LAWS))


@pytest.mark.processes
@pytest.mark.parametrize(("layer", "verdict"), [(nn.Linear, PASS), (broken.OtherCompiled, FAIL)])
def test_a_layer_is_compiled_where_that_is_asked(layer, verdict):
    row = row_of(LAYER_LAWS["layer-modes"], LayerBench(layer, ((5,),), arguments=SIZES, mode="compiled"))
    assert row.verdict == verdict, str(row)
    assert verdict == PASS or "forward, the output, evaluating, compiled" in row.note


def test_token_ids_are_found_where_nothing_says_how_many_there_are():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(13, 2))

        def forward(self, ids):
            return self.table[ids]

    assert LayerBench(Table, ((4,),), "tokens").tokens == 13


def test_a_layer_is_asserted_by_its_factory_or_its_name():
    assert_layer(nn.Linear, (5,), arguments=SIZES)
    assert_layer("torch.nn:Conv1d", (2, 5), arguments={"in_channels": 2, "out_channels": 3, "kernel_size": 3})
    with pytest.raises(AssertionError, match="parameter-gradient fail: wrong gradient"):
        assert_layer(broken.Halved, (5,), arguments=SIZES)


def test_a_bench_is_made_of_what_a_command_line_says():
    bench = bench_of("torch.nn:Linear", ["5"], arguments=["in_features=5", "out_features=4"])
    assert bench.describe()["layer"] == "torch.nn.modules.linear:Linear in_features=5 out_features=4"


def test_a_sound_layer_of_several_inputs_draws_each():
    bench = Sound(
        nn.Bilinear, {"in1_features": 3, "in2_features": 4, "out_features": 2}, ((3,), (4,))
    ).bench()
    assert [[*x.shape] for x in bench.inputs()] == [[5, 3], [5, 4]]


MINE = """
from torch import nn


class Mine(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, self.weight / 2 + self.weight.detach() / 2)
"""


def test_the_installed_suite_judges_the_user_s_layer(here, tmp_path):
    (tmp_path / "own_layer.py").write_text(MINE)
    suite = ("--pyargs", "identity_props.suite.test_layers", "--identity-layer", "own_layer:Mine")
    given = ("--identity-layer-arg", "in_features=5", "--identity-layer-arg", "out_features=4")
    code, out, _ = here("", *suite, *given, "--identity-input-shape", "5")
    assert code == pytest.ExitCode.TESTS_FAILED
    assert "parameter-gradient fail: wrong gradient: measured" in out


def test_options_of_a_layer_want_a_layer(here):
    code, _, err = here("", "--identity-input-shape", "5")
    assert code == pytest.ExitCode.USAGE_ERROR
    assert "--identity-layer: expected a factory" in err

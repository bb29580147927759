"""Published algorithms beside what packages make of them: equal where both follow the paper, told where not."""

import pytest
import torch

from identity_props.task.algorithms import ALGORITHMS, Cell

packages = pytest.importorskip("pytorch_optimizer")
MATRIX, SHAPES = ((5, 4),), ((5, 4), (4, 6), (7,))
CORRECTED = "eps not corrected, as section 2 of Adam's paper"
EQUAL = [  # algorithm, its way, the package's name, arguments
    ("accsgd", "", "accsgd", {}),
    ("adabound", "", "adabound", {}),
    ("adagc", "", "adagc", {"warmup_steps": 8}),
    ("adai", "", "adai", {}),
    ("adamg", "", "adamg", {}),
    (
        "avagrad",
        "scaled by the rates of the step before, as its authors' code",
        "avagrad",
        {"adam_debias": False},
    ),
    ("focus", "", "focus", {"gamma": 0.2}),
    ("stable-spam", "", "stablespam", {"gamma1": 0.7}),
    ("adamod", "1 / (1 - b1^t) averaged with the rate, as its authors' code", "adamod", {}),
    ("adamp", CORRECTED, "adamp", {}),
    ("adamnorm", CORRECTED, "adanorm", {}),
    ("adapnm", CORRECTED, "adapnm", {}),
    ("adashift", "", "adashift", {}),
    ("adasmooth", "", "adasmooth", {}),
    ("adatam", "the product of columns of length 1 for their cosine", "adatam", {}),
    ("aida", CORRECTED, "aida", {}),
    ("amos", "", "amos", {}),
    ("ano", "", "ano", {}),
    ("came", "", "came", {}),
    ("dualadam", "", "dualadam", {}),
    ("exadam", "", "exadam", {}),
    ("fadam", "", "fadam", {"momentum_dtype": torch.float64, "fim_dtype": torch.float64}),
    ("fromage", "", "fromage", {}),
    ("ftrl", "", "ftrl", {"beta": 1.0, "lambda_1": 0.1, "lambda_2": 0.1}),
    ("grams", "", "grams", {}),
    ("grokfast", "", "grokfastadamw", {"normalize_lr": False}),
    ("kate", "", "kate", {"delta": 0.1}),
    ("mars", "the gradient before the first is 0, eps not corrected", "mars", {"optimize_1d": True}),
    ("msvag", "", "msvag", {}),
    ("nero", "", "nero", {}),
    ("padam", "the rate corrected as Adam's, v itself", "padam", {}),
    ("pid", "", "pid", {"momentum": 0.9}),
    ("pnm", "", "pnm", {}),
    ("schedule-free-radam", "", "schedulefreeradam", {}),
    ("sgdp", "", "sgdp", {"momentum": 0.9}),
    ("sgdsai", "", "sgdsai", {}),
    ("srmm", "", "srmm", {}),
    ("stableadamw", "", "stableadamw", {}),
    ("tam", "the product of columns of length 1 for their cosine", "tam", {}),
    ("vsgd", "", "vsgd", {}),
]
APART = [  # the paper's, and what the package does in its place
    ("adamod", "adamod", "corrects the first moment inside the average of rates"),
    ("adatam", "adatam", "multiplies entries in place of a cosine"),
    ("tam", "tam", "multiplies entries in place of a cosine"),
    ("avagrad", "avagrad", "normalizes by the rates before those that it takes"),
    ("bcos", "bcos", "foresees the second moment from the momentum that it has just updated in place"),
    ("ranger", "ranger", "climbs until it is rectified, for five steps"),
    (
        "simplified-ademamix",
        "simplifiedademamix",
        "averages where the paper sums, and divides by what corrects v",
    ),
]


def walks(name, way, package, arguments, steps=24, shapes=SHAPES):
    """The weights of both after each step of gradients that are drawn, in float64."""
    draw = torch.Generator().manual_seed(0)
    starts, *gradients = (
        [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
        for _ in range(steps + 1)
    )
    algorithm = ALGORITHMS[name]
    step = algorithm.variants[way] if way in algorithm.variants else algorithm.slips.get(way, algorithm.step)
    parameters, cells = [torch.nn.Parameter(w.clone()) for w in starts], [Cell(w) for w in starts]
    undecayed = {"weight_decay": 0.0} if "weight_decay" in algorithm.defaults else {}
    optimizer = packages.load_optimizer(package)(parameters, lr=0.01, **{**undecayed, **arguments})
    if hasattr(optimizer, "train"):
        optimizer.train()
    shown = {key: value for key, value in optimizer.param_groups[0].items() if key in algorithm.defaults}
    for given in gradients:
        for p, cell, g in zip(parameters, cells, given, strict=True):
            p.grad, cell.g = g.clone(), g
        optimizer.step()
        step(cells, {**algorithm.defaults, **undecayed, **shown})
        yield torch.cat([p.detach().flatten() for p in parameters]), torch.cat([c.w.flatten() for c in cells])


def far(*given, **kwargs):
    """The largest distance of a weight."""
    return max(float((ours - theirs).abs().max()) for theirs, ours in walks(*given, **kwargs))


@pytest.mark.parametrize(
    ("name", "way", "package", "arguments"), EQUAL, ids=lambda x: x if isinstance(x, str) else ""
)
def test_a_recurrence_takes_the_steps_of_a_package(name, way, package, arguments):
    assert far(name, way, package, arguments) < 1e-7


@pytest.mark.parametrize(("name", "package", "what"), APART)
def test_a_package_departs_from_the_paper(name, package, what):
    assert far(name, "", package, {}) > 1e-4, what


def test_a_package_that_departs_is_the_slip_that_is_named():
    assert far("ranger", "it climbed until it is rectified", "ranger", {}, shapes=MATRIX) < 1e-7
    slip = "the second moment were foreseen from the momentum after the gradient"
    assert far("bcos", slip, "bcos", {}) < 1e-9

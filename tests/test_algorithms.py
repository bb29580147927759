"""Algorithms: each recurrence takes the steps of torch's optimizer of that name, where torch has one."""

import pytest
import torch

from identity_props.errors import InputError
from identity_props.task.algorithms import ALGORITHMS, Cell
from identity_props.task.algorithms.base import registry

STEPS = 25
OPTIM = torch.optim
TORCH = [
    ("sgd", OPTIM.SGD, {}),
    ("sgd", OPTIM.SGD, {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", OPTIM.SGD, {"momentum": 0.9, "dampening": 0.5}),
    ("sgd", OPTIM.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("asgd", OPTIM.ASGD, {"lambd": 0.1, "weight_decay": 0.1}),
    ("rprop", OPTIM.Rprop, {}),
    ("rmsprop", OPTIM.RMSprop, {"weight_decay": 0.1}),
    ("rmsprop", OPTIM.RMSprop, {"momentum": 0.9, "centered": True, "alpha": 0.9}),
    ("adagrad", OPTIM.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("adadelta", OPTIM.Adadelta, {"weight_decay": 0.1}),
    ("adam", OPTIM.Adam, {"weight_decay": 0.1}),
    ("adamw", OPTIM.AdamW, {"weight_decay": 0.1}),
    ("amsgrad", OPTIM.Adam, {"amsgrad": True, "weight_decay": 0.1}),
    ("adamax", OPTIM.Adamax, {"weight_decay": 0.1}),
    ("nadam", OPTIM.NAdam, {"weight_decay": 0.1}),
    ("radam", OPTIM.RAdam, {"weight_decay": 0.1}),
]


def walked(step, arguments):
    """Weights after each step at one rate."""
    cell, found = Cell(torch.ones(3, 4, dtype=torch.float64)), []
    for cell.g in gradients():
        step([cell], arguments)
        found.append(cell.w)
    return torch.stack(found)


IN_FLOAT32 = {"asgd", "nadam"}  # torch keeps their rate, and their product of mu, in float32


def gradients(steps=STEPS):
    """Steps of gradients [3, 4] of many sizes, some 0, smaller as they go."""
    draw = torch.Generator().manual_seed(0)
    sizes = 10.0 ** torch.linspace(-8, 0, 12, dtype=torch.float64).view(3, 4)
    drawn = torch.randn(steps, 3, 4, generator=draw, dtype=torch.float64) * sizes
    drawn[:, 0, 0] = 0
    return drawn * torch.linspace(2, 0.1, steps, dtype=torch.float64).view(-1, 1, 1)


def steps_of(step, arguments, given=None):
    """Weights after each step from 1, at a rate that moves."""
    cells, found = [Cell(torch.ones(3, 4, dtype=torch.float64))], []
    for place, g in enumerate(gradients() if given is None else given):
        cells[0].g = g
        step(cells, {**arguments, "lr": arguments["lr"] * (1 + place % 3)})
        found.append(cells[0].w)
    return torch.stack(found)


@pytest.mark.parametrize(("name", "made", "given"), TORCH, ids=lambda x: getattr(x, "__name__", None))
def test_a_recurrence_is_torchs_optimizer(name, made, given):
    algorithm = ALGORITHMS[name]
    arguments = {**algorithm.defaults, **given}
    p = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
    optimizer, found = made([p], lr=arguments["lr"], foreach=False, **given), []
    for place, g in enumerate(gradients()):
        optimizer.param_groups[0]["lr"] = arguments["lr"] * (1 + place % 3)
        p.grad = g.clone()
        optimizer.step()
        found.append(p.detach().clone())
    expected = steps_of(algorithm.step, arguments)
    near = 1e-8 if name in IN_FLOAT32 else 1e-12
    assert (torch.stack(found) - expected).abs().max() <= near


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_way_to_take_a_step_moves_and_stays_finite(name):
    algorithm = ALGORITHMS[name]
    for step in (algorithm.step, *algorithm.variants.values(), *algorithm.slips.values()):
        assert steps_of(step, algorithm.defaults).isfinite().all()
        assert (steps_of(step, algorithm.defaults)[-1] != 1).any()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_parameter_without_gradient_stays(name):
    cell = Cell(torch.ones(3, 4, dtype=torch.float64))
    ALGORITHMS[name].step([cell], ALGORITHMS[name].defaults)
    assert (cell.w == 1).all()


def test_radam_at_rest_moves_once_it_is_rectified():
    algorithm = ALGORITHMS["radam"]
    walk = steps_of(algorithm.variants["at rest until rectified"], algorithm.defaults)
    assert (walk[:5] == 1).all()
    assert (walk[5] != 1).any()


@pytest.mark.parametrize(
    ("name", "way", "given"),
    [
        ("sgd", "the rate inside the velocity, as Keras", {"momentum": 0.9}),
        ("sgd", "the rate inside the velocity, as Keras", {"momentum": 0.9, "nesterov": True}),
        ("rmsprop", "the rate inside the momentum", {"momentum": 0.9}),
        ("adam", "the rate were inside the first moment", {}),
    ],
)
def test_where_the_rate_stands_shows_only_as_it_moves(name, way, given):
    algorithm = ALGORITHMS[name]
    arguments, other = {**algorithm.defaults, **given}, {**algorithm.variants, **algorithm.slips}[way]
    one, two = (walked(step, arguments) for step in (algorithm.step, other))
    assert (one - two).abs().max() <= 1e-12
    assert (steps_of(algorithm.step, arguments) - steps_of(other, arguments)).abs().max() > 1e-6


def test_a_name_is_given_once():
    one = ALGORITHMS["adam"]
    with pytest.raises(InputError, match="adam"):
        registry([one], [one])

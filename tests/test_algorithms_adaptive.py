"""Published optimizers that look at whole tensors: against torch's own, or what their papers state of them."""

import pytest
import torch

from identity_props.task.algorithms import adaptive, averages
from identity_props.task.algorithms.base import Cell, registry

ALGORITHMS = registry(adaptive.ROOM, averages.ROOM)
SHAPES = ((3, 5), (4, 4), (6,), ())


def drawn(steps=12, shapes=SHAPES, seed=0):
    """Parameters and, for each step, their gradients."""
    generator = torch.Generator().manual_seed(seed)
    draws = [
        [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes] for _ in range(steps + 1)
    ]
    return draws[0], draws[1:]


def walked(name, start, gradients, slip=None, **arguments):
    """The algorithm's weights after each step, the cells last."""
    algorithm = ALGORITHMS[name]
    step, cells, after = (
        algorithm.slips[slip] if slip else algorithm.step,
        [Cell(w.clone()) for w in start],
        [],
    )
    for given in gradients:
        for cell, g in zip(cells, given, strict=True):
            cell.g = g
        step(cells, {**algorithm.defaults, **arguments})
        after.append([cell.w for cell in cells])
    return after, cells


def stepped(factory, start, gradients, **arguments):
    """The weights of torch's own after each step."""
    parameters = [torch.nn.Parameter(w.clone()) for w in start]
    optimizer, after = factory(parameters, **arguments), []
    for given in gradients:
        for p, g in zip(parameters, given, strict=True):
            p.grad = g.clone()
        optimizer.step()
        after.append([p.detach().clone() for p in parameters])
    return after


def apart(one, other):
    """Largest distance between two walks."""
    return max(
        float((a - b).abs().max()) for s, t in zip(one, other, strict=True) for a, b in zip(s, t, strict=True)
    )


@pytest.mark.parametrize(
    "arguments",
    [{}, {"weight_decay": 0.1}, {"eps": (1e-2, 1e-3)}, {"beta2_decay": -0.5, "d": 2.0, "lr": 0.3}],
)
def test_adafactor_with_a_floor_is_torchs(arguments):
    start, gradients = drawn()
    ours, _ = walked("adafactor-floor", start, gradients, **arguments)
    assert apart(ours, stepped(torch.optim.Adafactor, start, gradients, **arguments)) < 1e-13


def test_both_readings_of_adafactors_eps_agree_where_gradients_are_far_from_it():
    start, gradients = drawn()
    ours, _ = walked("adafactor", start, gradients)
    assert apart(ours, walked("adafactor-floor", start, gradients)[0]) < 1e-12


def test_adafactors_first_step_is_as_long_as_the_weight_times_its_rate():
    start, gradients = drawn(1, shapes=((4, 1), (6,)))  # of rank one: factors lose nothing, |g| / sqrt(V) = 1
    [after], _ = walked("adafactor", start, gradients)
    for w, one in zip(start, after, strict=True):
        assert torch.allclose((one - w).abs(), 1e-2 * w.square().mean().sqrt().expand_as(w))


def test_a_rate_inside_the_average_shows_once_the_rate_changes():
    start, gradients = drawn()
    slip, how = "the rate is kept inside the average", "adafactor-momentum"
    assert apart(walked(how, start, gradients)[0], walked(how, start, gradients, slip)[0]) < 1e-13
    cells, other = ([Cell(w.clone()) for w in start] for _ in range(2))
    for t, given in enumerate(gradients):
        arguments = {**ALGORITHMS[how].defaults, "lr": 1e-2 / (1 + t)}
        for cell, twin, g in zip(cells, other, given, strict=True):
            cell.g = twin.g = g
        ALGORITHMS[how].step(cells, arguments)
        ALGORITHMS[how].slips[slip](other, arguments)
    assert max(float((a.w - b.w).abs().max()) for a, b in zip(cells, other, strict=True)) > 1e-3


@pytest.mark.parametrize("name", [one.name for one in averages.SCHEDULE_FREE])
def test_schedule_free_trains_between_its_last_point_and_the_mean_that_it_shows(name):
    start, gradients = drawn()
    algorithm = ALGORITHMS[name]
    _, cells = walked(name, start, gradients)
    for cell in cells:
        x = algorithm.shown(cell, algorithm.defaults)
        assert torch.allclose(cell.w, 0.9 * x + 0.1 * cell.memory["z"])


@pytest.mark.parametrize(("name", "counted"), [("schedule-free-sgd", 0), ("schedule-free-sgd-mean", 1)])
def test_schedule_free_sgd_shows_the_mean_of_its_points(name, counted):
    [w], gradients = drawn(shapes=((3,),))
    z = [w - 0.1 * torch.stack([g for [g] in gradients[:t]]).sum(0) for t in range(1, len(gradients) + 1)]
    _, [cell] = walked(name, [w], gradients, lr=0.1)
    mean = torch.stack([*[w] * counted, *z]).mean(0)
    assert torch.allclose(ALGORITHMS[name].shown(cell, {}), mean)


def test_schedule_free_adamw_is_told_from_that_whose_squares_are_corrected_by_themselves():
    start, gradients = drawn()
    ours, _ = walked("schedule-free-adamw", start, gradients)
    assert apart(ours, walked("schedule-free-adamw-corrected", start, gradients)[0]) > 1e-4


def test_schedule_free_that_does_not_switch_shows_what_it_trains():
    start, gradients = drawn()
    _, cells = walked("schedule-free-sgd", start, gradients, slip="eval() does not switch weights")
    for cell in cells:
        assert torch.equal(ALGORITHMS["schedule-free-sgd"].shown(cell, {}), cell.w)

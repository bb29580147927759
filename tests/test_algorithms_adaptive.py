"""Published optimizers that look at whole tensors: against torch's own, or what their papers state of them."""

import pytest
import torch
from torch.optim import _muon

from identity_props.task.algorithms import adaptive, averages, matrices, ratefree
from identity_props.task.algorithms.base import Cell, registry

ALGORITHMS = registry(adaptive.ROOM, averages.ROOM, matrices.ROOM, ratefree.ROOM)
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


# Norms of tensors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lars", "lars-rate-outside"])
def test_lars_moves_each_parameter_in_proportion_to_its_norm(name):
    start, gradients = drawn(1)
    [after], _ = walked(name, start, gradients, weight_decay=0.0, lr=1.0)
    for w, one in zip(start, after, strict=True):
        assert torch.allclose((one - w).norm(), 1e-3 * w.norm())


@pytest.mark.parametrize("name", ["lamb", "lamb-uncorrected"])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_lambs_every_step_is_as_long_as_the_weight_times_its_rate(name, weight_decay):
    start, gradients = drawn()
    after, _ = walked(name, start, gradients, weight_decay=weight_decay)
    for before, now in zip([start, *after], after, strict=False):
        assert all(torch.allclose((b - a).norm(), 1e-3 * a.norm()) for a, b in zip(before, now, strict=True))


def test_lambs_steps_that_are_corrected_late_are_not():
    start, gradients = drawn(1)
    slip = "the mean is corrected after the trust ratio"
    [after], _ = walked("lamb-uncorrected", start, gradients, slip)
    assert all(torch.allclose((b - a).norm(), 1e-2 * a.norm()) for a, b in zip(start, after, strict=True))


def test_novograds_first_step_is_as_long_as_its_rate_whatever_the_gradient():
    start, gradients = drawn(1)
    [after], _ = walked("novograd", start, gradients, eps=0.0)
    for w, one in zip(start, after, strict=True):
        assert float((one - w).norm()) == pytest.approx(1e-2)


# Slices and diagonals ------------------------------------------------------------------------------------


def test_sm3_is_adagrad_where_every_slice_is_one_entry():
    start, gradients = drawn(shapes=((6,), ()))
    ours, _ = walked("sm3", start, gradients, lr=0.1)
    assert apart(ours, stepped(torch.optim.Adagrad, start, gradients, lr=0.1, eps=0.0)) < 1e-13


def test_sm3s_bounds_are_never_below_adagrads_sums():
    start, gradients = drawn()
    _, cells = walked("sm3", start, gradients)
    sums = sum(g.square() for [g, *_] in gradients)
    assert (torch.minimum(cells[0].memory["axis 0"], cells[0].memory["axis 1"]) >= sums - 1e-12).all()


def test_sophia_steps_as_newton_where_it_does_not_clip_and_as_sign_descent_where_it_does():
    w, g = torch.zeros(2, dtype=torch.float64), torch.tensor([1e-6, -1.0], dtype=torch.float64)
    cell = Cell(w, g, {"diagonal": torch.tensor([2.0, 1e-9], dtype=torch.float64)})
    algorithm = ALGORITHMS["sophia"]
    algorithm.step([cell], {**algorithm.defaults, "betas": (0.0, 0.0), "rho": 0.5, "lr": 0.1})
    assert torch.allclose(cell.w, torch.tensor([-1e-7, 0.1], dtype=torch.float64))


# Averages ------------------------------------------------------------------------------------------------


def test_madgrads_first_step_is_that_of_its_cube_root():
    start, gradients = drawn(1)
    [after], _ = walked("madgrad", start, gradients, momentum=0.0, eps=0.0)
    for w, g, one in zip(start, gradients[0], after, strict=True):
        assert torch.allclose(one - w, -(0.01 ** (2 / 3)) * g.sign() * g.abs() ** (1 / 3))


def test_madgrads_readings_of_eps_differ_by_as_much():
    start, gradients = drawn(1)
    [one], [other] = (walked(name, start, gradients)[0] for name in ("madgrad", "madgrad-lifted"))
    moved = torch.cat([((b - w) / (a - w)).flatten() for w, a, b in zip(start, one, other, strict=True)])
    assert torch.allclose(moved, torch.full_like(moved, 1 + 2e-4 / 3), atol=1e-6)


# Rates that are found ------------------------------------------------------------------------------------


def descended(name, steps=200, **arguments):
    """The distance from the least of |w - 1|_1, from 0 on, and the last d."""
    algorithm, cell = ALGORITHMS[name], Cell(torch.zeros(4, dtype=torch.float64))
    for _ in range(steps):
        cell.g = (cell.w - 1.0).sign()
        algorithm.step([cell], {**algorithm.defaults, **arguments})
    return float((cell.w - 1).abs().max()), cell.memory["shared"]["d"]


@pytest.mark.parametrize("name", [one.name for one in ratefree.ROOM])
def test_a_rate_that_is_found_grows_from_a_millionth_by_orders_of_magnitude(name):
    distance, d = descended(name)
    assert distance < 1.0
    assert d > 1e-3


@pytest.mark.parametrize(("name", "bound"), [("dadapt-sgd", 2.0), ("prodigy", 1.0)])
def test_a_rate_that_is_found_stays_below_the_distance(name, bound):
    assert (
        descended(name)[1] <= bound
    )  # the Euclidean norm of w_0 - w*, its largest entry where steps are Adam's


def test_a_step_measures_all_parameters_at_once():
    start, gradients = drawn(40)
    for name in (one.name for one in ratefree.ROOM):
        assert ALGORITHMS[name].whole
        together, _ = walked(name, start[:2], [[g.abs() for g in given[:2]] for given in gradients])
        alone, _ = walked(name, start[:1], [[given[0].abs()] for given in gradients])
        assert apart([step[:1] for step in together], alone) > 1e-9


# Matrices ------------------------------------------------------------------------------------------------

MATRICES = ((3, 5), (4, 4), (6, 2))


@pytest.mark.parametrize("arguments", [{}, {"nesterov": False, "weight_decay": 0.0}, {"ns_steps": 3}])
@pytest.mark.parametrize("way", [None, "match_rms_adamw", "spectral_unclamped"])
def test_muon_is_torchs_when_that_does_not_round(monkeypatch, arguments, way):
    monkeypatch.setattr(_muon, "_zeropower_via_newtonschulz", matrices.orthogonalized)
    start, gradients = drawn(shapes=MATRICES)
    ours, _ = walked("muon", start, gradients, adjust_lr_fn=way, **arguments)
    assert apart(ours, stepped(torch.optim.Muon, start, gradients, adjust_lr_fn=way, **arguments)) < 1e-12


@pytest.mark.parametrize("seed", range(8))
def test_torchs_muon_is_as_near_as_its_rounding(seed):
    start, gradients = drawn(1, shapes=MATRICES, seed=seed)
    [ours], [theirs] = walked("muon", start, gradients)[0], stepped(torch.optim.Muon, start, gradients)
    for w, a, b in zip(start, ours, theirs, strict=True):
        assert (a - b).norm() < ALGORITHMS["muon"].rounding * (a - w).norm()


def test_orthogonalizing_keeps_the_singular_vectors_and_takes_each_value_near_1():
    u, _, v = torch.linalg.svd(
        torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )
    values = torch.tensor([2.0, 1.0, 0.5, 0.2], dtype=torch.float64)
    found = u.mT @ matrices.orthogonalized(u @ values.diag() @ v) @ v.mT
    assert torch.allclose(found, found.diagonal().diag(), atol=1e-12)
    assert found.diagonal().min() > 0.6
    assert found.diagonal().max() < 1.3


def test_shampoo_on_one_gradient_is_its_polar_factor():
    start, gradients = drawn(1, shapes=((4, 4),))
    [[after]], _ = walked("shampoo", start, gradients, lr=1.0, eps=1e-14)
    u, _, v = torch.linalg.svd(gradients[0][0])
    assert torch.allclose(start[0] - after, u @ v, atol=1e-6)


def test_shampoo_that_sums_what_is_turned_departs_from_the_second_step_on():
    start, gradients = drawn(2, shapes=((4, 4),))
    slip = "each side sums what the one before has turned, to twice its power"
    ours, theirs = (walked("shampoo", start, gradients, how, eps=1e-12)[0] for how in (None, slip))
    assert apart(ours[:1], theirs[:1]) < 1e-6 < 1e-3 < apart(ours, theirs)


@pytest.mark.parametrize("name", ["soap", "soap-eigenvectors"])
def test_soap_is_adam_where_its_basis_is_that_of_the_axes(name):
    start, gradients = drawn(shapes=((4, 4),))
    diagonal = [
        [(g.diagonal() + torch.tensor([4.0, 3, 2, 1])).diag()] for [g] in gradients
    ]  # apart, in order
    arguments = {"lr": 1e-2, "betas": (0.9, 0.9), "weight_decay": 0.0, "eps": 1e-30}
    ours, _ = walked(name, start, diagonal, **arguments)
    taken = diagonal[1:] if name == "soap" else diagonal  # the first gradient starts the basis
    theirs = stepped(torch.optim.Adam, start, taken, **arguments)
    on, off = (ours[-len(theirs) :], torch.eye(4, dtype=torch.bool))
    assert apart([[w[off]] for [w] in on], [[w[off]] for [w] in theirs]) < 1e-12


@pytest.mark.parametrize("name", ["soap", "soap-eigenvectors", "shampoo", "muon"])
def test_turning_all_gradients_turns_the_steps(name):
    turn = torch.linalg.qr(
        torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    )[0]
    start, gradients = drawn(shapes=((4, 4),))
    ours, _ = walked(name, start, gradients)
    turned, _ = walked(name, [turn @ start[0]], [[turn @ g] for [g] in gradients])
    assert apart([[turn @ w] for [w] in ours], turned) < 1e-7


def test_every_algorithm_leaves_a_parameter_without_gradient_and_goes_on_from_where_it_was():
    start, gradients = drawn(6, shapes=MATRICES)
    for name, algorithm in ALGORITHMS.items():
        _, cells = walked(name, start, gradients)
        before = cells[0].w.clone()
        cells[0].g = None
        algorithm.step(cells, algorithm.defaults)
        assert torch.equal(cells[0].w, before), name

"""What no training of a network can do better: the best map of a width, and where W is as it was drawn."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from identity_props.explanation.readout import affine, gram, outputs, parametrised
from identity_props.task.metrics import pixel_variance
from identity_props.task.threads import eigh

REDRAWN = 19  # networks drawn anew: one that was not trained beats them all once in 20
DRAWN = 1e-3  # p below which weights are not as they were drawn, each matrix
COMPARED = 256  # examples
FALLEN = 0.9  # of its start: a curve that ends above it has not fallen


def by_rank(x: Tensor, goal: Tensor, test: Tensor, test_goal: Tensor) -> Tensor:
    """FVU [d + 1] on test of the best affine map of each rank from x [n, d] to its goal [n, d].

    Reduced-rank regression (Izenman 1975): the least squares map, projected on the leading eigenvectors of what it
    predicts; where the goal is x, the leading principal components (Eckart, Young 1936).
    """
    mean, middle = x.mean(0), goal.mean(0)
    itself, error = goal is x and test_goal is test, test_goal - middle
    slope = torch.eye(x.shape[1], dtype=x.dtype) if goal is x else affine(x, goal)[:-1]
    v = eigh(slope.T @ gram(x - mean) @ slope / len(x))[1].flip(1)
    wanted = error @ v  # [m, d] along v
    along = wanted if itself else (test - mean) @ (slope @ v)
    gain = (along * (2 * wanted - along)).sum(0)
    left = error.square().sum() - torch.cat([torch.zeros(1, dtype=gain.dtype), gain.cumsum(0)])
    return left.clamp_min(0) / (test_goal.numel() * pixel_variance(test_goal))


def as_drawn(
    model: nn.Module, x: Tensor, goal: Tensor, curve: Sequence[float] | None = None, seed: int = 0
) -> bool:
    """Whether W is as it was drawn: it looks so, and does no better than networks drawn anew.

    What follows the goal [n, d] no better than each of 19 copies, redrawn by their layers' own
    ``reset_parameters``; and whose every matrix is distributed as a uniform or normal draw, or whose ``curve`` of
    losses ends above nine tenths of its start. A curve that has halved speaks against it.
    """
    if curve is not None and len(curve) > 1 and curve[-1] < curve[0] / 2:
        return False
    flat = curve is not None and len(curve) > 1 and curve[-1] > FALLEN * curve[0]
    if not (_resets(model) and (flat or _look_drawn(model))):
        return False
    x, goal = x[:COMPARED], goal[:COMPARED]
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        best = max(_follows(_redrawn(model), x, goal) for _ in range(REDRAWN))
    return _follows(model, x, goal) <= best


def _look_drawn(model: nn.Module) -> bool:
    """Whether every matrix has the distribution of a draw, or is orthogonal."""
    matrices = [p.detach().double() for p in model.parameters() if p.ndim > 1]
    return bool(matrices) and all(_is_drawn(w) for w in matrices)


def _is_drawn(w: Tensor) -> bool:
    from scipy.special import kolmogi  # half a second, which a check does without

    flat, rows = w.flatten(), w.flatten(1)
    if not float(flat.std()) > 0:
        return False
    values = flat.sort().values
    limit = float(kolmogi(DRAWN)) / len(values) ** 0.5
    uniform = (values / values.abs().max() + 1) / 2
    normal = torch.special.ndtr(values / values.std())
    if min(_distance(uniform), _distance(normal)) <= limit:
        return True
    gram = rows @ rows.T if len(rows) <= rows.shape[1] else rows.T @ rows
    return bool((gram / gram.diagonal().mean() - torch.eye(len(gram))).abs().max() < 1e-4)


def _distance(shares: Tensor) -> float:
    """That of Kolmogorov and Smirnov, of shares [n] in order from those of a uniform draw."""
    steps = torch.arange(len(shares) + 1, dtype=shares.dtype) / len(shares)
    return float(torch.maximum((shares - steps[:-1]).abs(), (shares - steps[1:]).abs()).max())


def _redrawn(model: nn.Module) -> nn.Module:
    """A copy whose layers are drawn anew."""
    drawn = copy.deepcopy(model)
    for reset in _resets(drawn):
        reset()
    return drawn


def _resets(model: nn.Module) -> list[Callable[[], None]]:
    found = [getattr(module, "reset_parameters", None) for module in parametrised(model)]
    return [reset for reset in found if callable(reset)]


def _follows(model: nn.Module, x: Tensor, goal: Tensor) -> float:
    """Correlation of outputs and goal over all entries, each less its mean over the examples; 0 for a constant."""
    y = outputs(model, x)
    y, goal = y - y.mean(0), goal - goal.mean(0)
    norms = float(y.norm() * goal.norm())
    return float((y * goal).sum()) / norms if norms > 0 else 0.0

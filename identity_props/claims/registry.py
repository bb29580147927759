"""Claims: which variant learns the identity under which recipe, within which budget.

One registry, CLAIMS, that the suite, the command and the table all read. Each claim carries the
measurements its numbers were chosen from; ``verdict`` judges it over seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import lru_cache, partial

import torch

from identity_props.claims.base import PREDICTED as PREDICTED
from identity_props.claims.base import RECIPES as RECIPES
from identity_props.claims.base import Claim as Claim
from identity_props.claims.base import adam as adam
from identity_props.claims.base import budget as budget
from identity_props.claims.base import diverges as diverges
from identity_props.claims.base import ends_between as ends_between
from identity_props.claims.base import fails as fails
from identity_props.claims.base import fails_throughout as fails_throughout
from identity_props.claims.base import learns as learns
from identity_props.claims.base import rate as rate
from identity_props.claims.base import rmsprop as rmsprop
from identity_props.claims.base import same_curve as same_curve
from identity_props.claims.base import sooner as sooner
from identity_props.claims.kinds import CLAIMS_OF_KINDS
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.task.data import Pixels
from identity_props.task.metrics import pixel_variance
from identity_props.task.models import Variant
from identity_props.task.theory import critical_rate, expected_steps, modes

SEED_STEPS = 20 * 469  # 20 epochs of 60,000 images in batches of 128

# Measured with torch 2.15 on a CPU, 8 seeds unless said; 7x7 and 14x14, rendered digits and MNIST.
EVIDENCE = {
    "linear": "depth 1 FVU 4e-6 (7x7) and 3.4e-4 (14x14), depth 4 4e-4 and 6e-4 at most; FVU(0) 4 or more",
    "residual": "FVU 5e-5 at most; FVU(0) 1.05 or more at depth 1, 30 or more at depth 4",
    "sooner": "depth 1 in 31-53 steps, depth 4 in 98-142, linear in 990-2,000",
    "scaled": "steps over prediction: 1.0-1.25 in pixels at 7x7, 14x14 and 28x28; FVU 7.5e-4 at most",
    "raw": "overflows within 10 steps",
    "scale-blind": "curves differ by 1e-4 decades (RMSprop), 5e-7 (Adam); with eps 1e-7 by up to 0.5",
    "plain-relu-1": "64 seeds: constant rate 98-100%, RMSprop with decay 89-92%, Adam with decay 100%",
    "plain-relu-2": "64 seeds, 1 and 4 budgets: constant rate 100%, RMSprop with decay 75-98%, Adam 98-100%",
    "plain-relu-4": "64 seeds, 1 and 4 budgets: constant rate 100%, RMSprop with decay 94-100%, Adam 100%",
    "seed-network": "MSE 148-259, mean 212, sd 29 (depth 1, 24 seeds); 516-626, mean 550, sd 40 (depth 4, 8)"
    "; range: mean +- 4 sd, rounded",
}


# The registry -------------------------------------------------------------------------------------


def _arm(pixels: Pixels, variant: str, depth: int, recipe: str = "rmsprop-decay", times: int = 1) -> Trial:
    d = pixels.d
    return Trial(Variant(variant, depth), RECIPES[recipe](d), times * budget(d))


def _learner(variant: str, depth: int, source: str) -> Claim:
    return Claim(
        name=f"{variant}-{depth}",
        expects="learns",
        statement=f"{variant}, depth {depth}: starts off the answer and ends near-identity",
        source=source,
        evidence=EVIDENCE[variant],
        share=1 / 2,
        plan=lambda pixels: (_arm(pixels, variant, depth),),
        succeeded=learns,
    )


def _residual_sooner(depth: int) -> Claim:
    return Claim(
        name=f"residual-{depth}-sooner",
        expects="sooner",
        statement=f"residual, depth {depth}: near-identity in a quarter of linear's steps or fewer",
        source="its start is nearer: it only has to unlearn its random branch",
        evidence=EVIDENCE["sooner"],
        share=1 / 2,
        plan=lambda pixels: (_arm(pixels, "residual", depth), _arm(pixels, "linear", depth)),
        succeeded=sooner,
    )


@lru_cache(maxsize=16)
def _half_critical(pixels: Pixels, scaling: str) -> tuple[float, int]:
    """Half the critical rate of the scaled data, and the steps that its spectrum predicts."""
    scaled = pixels.scaled(scaling)
    eigenvalues, power = modes(scaled.train, scaled.test)
    lr = critical_rate(eigenvalues) / 2
    return lr, expected_steps(eigenvalues, power, pixel_variance(scaled.test), lr)


def _scaled(scaling: str) -> Claim:
    def plan(pixels: Pixels) -> tuple[Trial]:
        lr, steps = _half_critical(pixels, scaling)
        recipe = Recipe("torch.optim:SGD", lr, batch_size=None)
        return (Trial(Variant("scaled-input", 1, scaling), recipe, math.ceil(PREDICTED * steps)),)

    return Claim(
        name=f"scaled-{scaling}",
        expects="learns",
        statement=f"linear on input under {scaling}: plain SGD at half the critical rate is near-identity"
        f" within {PREDICTED:g} x the steps that the spectrum predicts",
        source="W_k - I = (W_0 - I)(I - eta S)^k, see theory",
        evidence=EVIDENCE["scaled"],
        share=1 / 2,
        plan=plan,
        succeeded=learns,
    )


def _raw_diverges() -> Claim:
    def plan(pixels: Pixels) -> tuple[Trial]:
        lr, _ = _half_critical(pixels, "standardise")
        return (Trial(Variant("linear", 1, "none"), Recipe("torch.optim:SGD", lr, batch_size=None), 25),)

    return Claim(
        name="raw-diverges",
        expects="diverges",
        statement="linear on raw 0-255 input: plain SGD at scaled-standardise's rate diverges",
        source="gradient descent diverges above d / lambda_1, see theory",
        evidence=EVIDENCE["raw"],
        share=1 / 2,
        plan=plan,
        succeeded=diverges,
    )


def _scale_blind(optimizer: str, recipe: Callable[..., Recipe]) -> Claim:
    def plan(pixels: Pixels) -> tuple[Trial, ...]:
        arms = (Variant("linear", 1, scaling, bias=False) for scaling in ("none", "unit"))
        return tuple(Trial(arm, recipe(pixels.d, eps=1e-12), budget(pixels.d)) for arm in arms)

    return Claim(
        name=f"scale-blind-{optimizer.lower()}",
        expects="same",
        statement=f"{optimizer} is blind to a common scale: raw 0-255 and 0-1 input give one FVU curve",
        source="an update g / (sqrt(v) + eps) is the same for c g as eps -> 0 (Kingma, Ba 2015, 1412.6980)",
        evidence=EVIDENCE["scale-blind"],
        share=1 / 2,
        plan=plan,
        succeeded=same_curve,
        dtypes=frozenset({torch.float64, torch.float32}),  # 255 is no power of two, and bfloat16 rounds
    )


def _plain_relu(depth: int, recipe: str) -> Claim:
    constant = recipe == "seed"
    longest = " at 1 and 4 budgets" if depth > 1 else ""

    def plan(pixels: Pixels) -> tuple[Trial, ...]:
        # a constant rate passes the first budget on its way to the fourth; a decayed one ends there
        times = (1,) if depth == 1 else (4,) if constant else (4, 1)
        return tuple(_arm(pixels, "plain-relu", depth, recipe, n) for n in times)

    return Claim(
        name=f"plain-relu-{depth}-{recipe.removesuffix('-decay')}",
        expects="fails",
        statement=f"plain ReLU, depth {depth}, recipe {recipe}: FVU of 0.01 or more{longest}",
        source="the network of the question; on x >= 0 it could be the identity, with W = I and b = 0",
        evidence=EVIDENCE[f"plain-relu-{depth}"],
        share=1 / 2 if depth == 4 else 1 / 4,
        plan=plan,
        succeeded=fails_throughout if constant and depth > 1 else fails,
    )


def _seed_network(depth: int, published: float, low: float, high: float) -> Claim:
    trial = Trial(Variant("plain-relu", depth, "none"), rmsprop(784, "constant"), SEED_STEPS)
    return Claim(
        name=f"seed-network-{depth}",
        expects="fails",
        statement=f"the asker's network, depth {depth}, raw MNIST, 20 epochs: failed, with a test MSE"
        f" of {low:g} to {high:g} (published {published})",
        source="the question's own figures: 167.95 at depth 1, 523.72 at depth 4",
        evidence=EVIDENCE["seed-network"],
        share=1 / 2,
        plan=lambda pixels: (trial,),
        succeeded=partial(ends_between, low=low, high=high),
        applies=lambda pixels: pixels.name == "mnist" and pixels.d == 784,
        slow=True,
    )


_REGISTRY = (
    *(_learner("linear", depth, "no bad local minima at any depth (Kawaguchi 2016)") for depth in (1, 4)),
    *(_learner("residual", depth, "W = 0, b = 0 is the identity (He et al. 2015)") for depth in (1, 4)),
    *(_residual_sooner(depth) for depth in (1, 4)),
    *(_scaled(scaling) for scaling in ("standardise", "whiten")),
    _raw_diverges(),
    _scale_blind("RMSprop", rmsprop),
    _scale_blind("Adam", adam),
    *(_plain_relu(depth, recipe) for depth in (1, 2, 4) for recipe in RECIPES),
    *CLAIMS_OF_KINDS,
    _seed_network(1, 167.95, 100, 325),
    _seed_network(4, 523.72, 390, 710),
)
CLAIMS = {claim.name: claim for claim in _REGISTRY}


def matching(pattern: str) -> list[Claim]:
    """Claims whose name matches a shell pattern (several: separated by commas); raises InputError."""
    patterns = [part.strip() for part in pattern.split(",")]
    for part in patterns:
        if not any(fnmatchcase(name, part) for name in CLAIMS):
            raise InputError(f"claims: {part!r} matches none of {', '.join(CLAIMS)}")
    return [c for name, c in CLAIMS.items() if any(fnmatchcase(name, part) for part in patterns)]

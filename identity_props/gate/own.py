"""Claims of a stack with an optimizer of its own, at rates that are found once and then kept in its baseline.

The registry's claims name the rates of their optimizers, which say nothing of another one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from identity_props.claims.registry import Claim, budget, learns
from identity_props.conformance.learning import find_rate, learning_trial
from identity_props.engine.trial import Recipe, Trial
from identity_props.errors import InputError
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels
from identity_props.task.models import Variant


def _arm(variant: str, depth: int, lr: float, steps: int) -> Trial:
    return Trial(Variant(variant, depth), Recipe("torch.optim:SGD", lr, schedule="linear-decay"), steps)


def _whitened(lr: float, steps: int) -> Trial:
    """In full batches, which Rprop and L-BFGS want, so of a quarter of the steps, which is enough for most."""
    return learning_trial(lr, steps // 4)


# by name: the trial at a rate, of so many steps
OWN: dict[str, Callable[[float, int], Trial]] = {
    "own-whitened-1": _whitened,
    "own-linear-4": partial(_arm, "linear", 4),
    "own-residual-4": partial(_arm, "residual", 4),
}
WHAT = {
    "own-whitened-1": "a linear layer on whitened pixels, in full batches",
    "own-linear-4": "linear, depth 4, in batches",
    "own-residual-4": "residual, depth 4, in batches",
}


def own_claim(name: str, lr: float) -> Claim:
    """The claim of that name at that rate: it ends near-identity within the budget of the other claims."""
    trial = OWN[name]
    return Claim(
        name=name,
        expects="learns",
        statement=f"{WHAT[name]}, with the stack's own optimizer at lr {lr:.3g}: ends near-identity",
        source="its rate was searched on a grid, see learning, and is kept in the baseline",
        evidence="none: it is recorded where it holds, and left out where it does not",
        share=1 / 2,
        plan=lambda pixels: (trial(lr, budget(pixels.d)),),
        succeeded=learns,
        lr=lr,
    )


def own_claims(
    names: list[str], stack: Stack, pixels: Pixels, rates: Mapping[str, float]
) -> dict[str, Claim | str]:
    """Claims of these names, at the rates that are given, else at searched ones; why, where none will do."""
    found: dict[str, Claim | str] = {}
    for name in names:
        try:
            lr = rates[name] if name in rates else find_rate(stack, pixels, trial=OWN[name])
            found[name] = own_claim(name, lr)
        except InputError as error:
            found[name] = str(error)
    return found


def named(pattern: str | None, baseline: Mapping[str, Any] | None) -> list[str]:
    """Claims of a stack's own that match shell patterns, of the baseline's where one is given; or InputError."""
    names = [name for name in OWN if baseline is None or name in baseline["claims"]]
    if not names:
        raise InputError(f"baseline: expected claims of an optimizer of its own, {', '.join(OWN)}, got none")
    patterns = [part.strip() for part in (pattern or "*").split(",")]
    found = [name for name in names if any(fnmatchcase(name, part) for part in patterns)]
    if not found:
        raise InputError(f"claims: {pattern!r} matches none of {', '.join(names)}")
    return found


def rates_of(baseline: Mapping[str, Any] | None) -> dict[str, float]:
    """Rates that a baseline holds of claims of a stack's own, by name; none of no baseline."""
    claims = baseline["claims"] if baseline else {}
    return {name: claim["lr"] for name, claim in claims.items() if name in OWN and "lr" in claim}

"""What the commands print with --json and write to --out: documents for programs."""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from identity_props.claims.running import cores, threads
from identity_props.claims.verdict import Outcome
from identity_props.conformance.asked import Named
from identity_props.conformance.rows import Row
from identity_props.gate import Change
from identity_props.stack.stack import Stack
from identity_props.task.data import Pixels
from identity_props.trainers.accounting import Book
from identity_props.trainers.wording import said

SCHEMA = "identity-props/results/1"
RESULTS, CHECK, LEDGER = "results.json", "check.json", "ledger.json"
PACKAGES = ("torch", "torchvision", "numpy", "scipy", "pillow")
CHECK_SCHEMA, GATE_SCHEMA = "identity-props/check/1", "identity-props/gate/1"
LEDGER_SCHEMA = "identity-props/ledger/1"


def summary(values: Sequence[float]) -> dict[str, float | None]:
    """Minimum, median and maximum, with NaN above infinity, and None for what is not finite."""
    ordered = sorted(math.inf if math.isnan(value) else value for value in values)
    middle = statistics.median_high(ordered)
    three = {"min": ordered[0], "median": middle, "max": ordered[-1]}
    return {name: value if math.isfinite(value) else None for name, value in three.items()}


def results(
    outcomes: Sequence[Outcome], pixels: Pixels, stack: Stack, seed: int, jobs: int, interrupted: bool
) -> dict[str, Any]:
    """What results.json holds; None (null) stands for a figure that is not finite or never came."""
    return {
        "schema": SCHEMA,
        **context(pixels, stack, seed, jobs),
        "interrupted": interrupted,
        "claims": [_claim(outcome) for outcome in outcomes],
    }


def context(pixels: Pixels, stack: Stack, seed: int, jobs: int) -> dict[str, Any]:
    """What a run was made with, and on."""
    data = {"name": pixels.name, "shape": pixels.shape and [*pixels.shape], "train": len(pixels.train)}
    return {
        "versions": _versions(),
        "machine": _machine(stack),
        "jobs": jobs,
        "threads": threads(jobs, pixels),
        "seed": seed,
        "data": data | {"test": len(pixels.test), "fingerprint": pixels.fingerprint},
        "stack": stack.describe(),
    }


def _versions() -> dict[str, str | None]:
    ours, *others = [*map(_version, ("identity-props", *PACKAGES))]
    return {"identity_props": ours, "python": platform.python_version()} | dict(
        zip(PACKAGES, others, strict=True)
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _machine(stack: Stack | Named) -> dict[str, Any]:
    machine = {"system": platform.platform(), "processor": platform.machine(), "cores": cores()}
    if torch.device(stack.device).type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(stack.device)
    return machine


def _claim(outcome: Outcome) -> dict[str, Any]:
    claim = outcome.claim
    return {
        "name": claim.name,
        "statement": claim.statement,
        "verdict": outcome.verdict,
        "expects": claim.expects,
        "required_share": claim.share,
        "replicas": outcome.replicas,
        "successes": outcome.successes,
        "fvu": summary(outcome.fvu),
        "fvu_pixels": summary(outcome.fvu_pixels),
        "steps_to_identity": summary(outcome.steps_to_identity),
        "budget_steps": outcome.budget_steps,
        "seconds": round(outcome.seconds, 3),
    }


def check_results(rows: Sequence[Row], stack: Stack | Named, seed: int) -> dict[str, Any]:
    """What ``check --json`` prints; null stands for a figure that is not finite or not there."""
    return {
        "schema": CHECK_SCHEMA,
        "versions": _versions(),
        "machine": _machine(stack),
        "seed": seed,
        "stack": stack.describe(),
        "rows": [_finite(row) for row in rows],
    }


def ledger_results(book: Book, trainer: Named) -> dict[str, Any]:
    """What ``ledger --json`` prints; null stands for a weight that is unclear."""
    return {
        "schema": LEDGER_SCHEMA,
        "versions": _versions(),
        "machine": _machine(trainer),
        "stack": trainer.describe(),
        "training": book.describe(),
        "dtype": str(book.dtype).removeprefix("torch."),
        "by": book.by,
        "weights": [[_number(weight) for weight in row] for row in book.weights.tolist()],
        "ends": book.ends,
        "leaks": book.leaks.tolist(),
        "moved": book.moved.tolist(),
        "near": book.near,
        "mixed": book.mixed,
        "unclear": book.unclear,
        "differing": book.differing,
        "steps": book.steps,
        "lengths": book.lengths,
        "masked": book.masked,
        "says": said(book),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def gate_results(changes: Sequence[Change], passed: bool, left_out: Sequence[str] = ()) -> dict[str, Any]:
    """What ``gate --json`` prints; null stands for a figure that is not finite."""
    rows = [_finite(change) for change in changes]
    return {"schema": GATE_SCHEMA, "passed": passed, "left_out": [*left_out], "rows": rows}


def _finite(row: Row | Change) -> dict[str, Any]:
    values = asdict(row)
    values.pop("curves", None)  # for the page
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}

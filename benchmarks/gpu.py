"""All that is to be learned on a GPU, in one command of a few minutes.

python benchmarks/gpu.py --minutes 8 --out DIR --data FOLDER

Stages run in the order of STAGES, each with a share of the time; what one does not use the next may. Each result is
kept at once, a line in DIR/gpu.jsonl, and summary.json is made anew of all lines. What no longer fits is left out and
said; the same command again goes on with what is missing. It needs this checkout, torch, and torchvision to read
MNIST, under --data. ``--tiny`` does everything with the smallest numbers, also on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from gpu_stages import PUBLISHED, STAGES, Item, LateError, Result, Setting

from identity_props.stack.importing import import_all


@dataclass
class Kept:
    """The lines of a file: what is done, and what was said of the rest."""

    file: Path

    def lines(self) -> list[Result]:
        """All that were kept whole."""
        found = []
        for line in self.file.read_text().splitlines() if self.file.exists() else ():
            with suppress(json.JSONDecodeError):  # of one that was cut short
                found.append(json.loads(line))
        return found

    def done(self) -> set[tuple[str, str]]:
        """Stage and name of each that has a result."""
        return {(one["stage"], one["name"]) for one in self.lines() if "result" in one}

    def keep(self, **line: Any) -> None:
        """Write a line, to the disk at once."""
        cut = self.file.exists() and not self.file.read_bytes().endswith(b"\n")
        with self.file.open("a") as file:
            file.write("\n" * cut + json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())
        print(json.dumps(line)[:200], file=sys.stderr, flush=True)


def follow(stage: str, items: Iterator[Item], setting: Setting, ends: float, kept: Kept) -> bool:
    """Measure what is not yet there and still fits before ``ends``; whether nothing raised."""
    done, well = kept.done(), True
    for item in items:
        if (stage, item.name) in done:
            continue
        left = min(ends, setting.ends) - time.monotonic()
        if left <= item.seconds:
            kept.keep(
                stage=stage, name=item.name, left_out=f"{item.seconds:.0f} s foreseen, {left:.0f} s left"
            )
            continue
        started = time.monotonic()
        try:
            result = item.measure()
        except LateError:
            kept.keep(stage=stage, name=item.name, left_out="the time was up")
        except Exception as error:  # the next may go well
            well = False
            kept.keep(stage=stage, name=item.name, error=f"{type(error).__name__}: {error}"[:500])
        else:
            kept.keep(stage=stage, name=item.name, took=time.monotonic() - started, result=result)
    return well


def environment(device: str) -> Result:
    """The card, and what computes on it."""
    found: Result = {"torch": torch.__version__, "python": platform.python_version(), "device": device}
    if torch.device(device).type == "cuda":
        card = torch.cuda.get_device_properties(device)
        found |= {"card": card.name, "bytes": card.total_memory, "cuda": torch.version.cuda}
    return found | {"cores": os.cpu_count(), "machine": platform.machine()}


def summary(lines: list[Result]) -> Result:
    """How final test MSEs are distributed, where the question's lie, and the counts of all else."""
    found: Result = {}
    for depth, published in PUBLISHED.items():
        of = [
            one["result"] for one in lines if one["stage"] == f"replicas, depth {depth}" and "result" in one
        ]
        ends = [mse for result in of for mse in result.get("mse", ())]
        finite = sorted(x for x in ends if math.isfinite(x))
        if finite:
            cuts = statistics.quantiles(finite, n=20) if len(finite) > 1 else finite
            found[f"depth {depth}"] = {
                "networks": len(ends),
                "diverged": len(ends) - len(finite),
                "least": finite[0],
                "median": statistics.median(finite),
                "most": finite[-1],
                "twentieths": cuts,
                "published": published,
                "share_below_published": sum(x < published for x in finite) / len(finite),
            }
    for said in ("result", "left_out", "error"):
        found[said] = [f"{one['stage']}: {one['name']}" for one in lines if said in one]
    return found


def main(arguments: list[str] | None = None) -> int:
    """Run all stages; 1 if one of their measurements raised."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--data", type=Path, help="folder that holds MNIST/raw; $IDENTITY_PROPS_DATA without it"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--tiny", action="store_true", help="the smallest numbers, to see that all of it runs"
    )
    given = parser.parse_args(arguments)
    if torch.device(given.device).type == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch sees no GPU; --device cpu --tiny tries everything")
    begun, well = time.monotonic(), True
    given.out.mkdir(parents=True, exist_ok=True)
    kept = Kept(given.out / "gpu.jsonl")
    setting = Setting(given.device, given.tiny, given.data, begun + 60 * given.minutes)
    kept.keep(stage="environment", name="environment", result=environment(given.device))
    import_all()
    share = 0.0
    for stage, (part, items) in STAGES.items():
        share += part
        well &= follow(stage, items(setting), setting, begun + 60 * given.minutes * share, kept)
        (given.out / "summary.json").write_text(json.dumps(summary(kept.lines()), indent=1))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())

"""Speed beside peers, in one run: every contender in turn, several rounds, medians and ratios.

Writes results.json, results.md and growth.svg beside this file. Peers come with ``pip install -e '.[peers]'``; one that
is absent is left out by name.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from contenders import EPOCH

HERE = Path(__file__).parent
PEERS = {"keras-tensorflow": ("keras", "tensorflow"), "keras-torch": ("keras",)}
PACKAGES = ("torch", "keras", "tensorflow", "tensorflow-cpu", "numpy", "identity-props")
SAME_TRAINING = 2.0  # factor between test MSEs after two epochs; seeds differ by 1.3
SIZES = [(d, depth) for d in (49, 196) for depth in (1, 4)]
ALONE, AT_ONCE = "one nn.Module at a time", 64
# name: contender, networks at once, threads
NETWORKS = (
    {ALONE: ("networks", 0, 1)}
    | {f"ours, {k} at a time": ("networks", k, 1) for k in (1, 8, AT_ONCE, 256)}
    | {f"ours, {AT_ONCE} at a time, two threads": ("networks", AT_ONCE, 2)}
    | {f"floor, {AT_ONCE} at a time": ("products", AT_ONCE, 1)}
    | {f"floor, {AT_ONCE} at a time, two threads": ("products", AT_ONCE, 2)}
)
# name: numerator and denominator of medians, and the target
EPOCH_TARGETS = {
    1: {"keras-tensorflow": 0.33, "tensor-loop": 0.45, "floor": 1 / 0.7},
    4: {"keras-tensorflow": 0.65, "tensor-loop": 0.65, "floor": 1 / 0.7},
}
NETWORK_TARGETS = {(49, 1): 50, (49, 4): 20}

Rounds = dict[str, list[dict[str, Any]]]


def in_turn(contenders: Sequence[str], rounds: int, run: Callable[[str], dict[str, Any]]) -> Rounds:
    """What each contender measured in each round; a machine that drifts drifts for all of them."""
    found: Rounds = {name: [] for name in contenders}
    for round_ in range(rounds):
        for name in contenders:
            found[name].append(run(name))
            print(f"round {round_ + 1} of {rounds}: {name} {found[name][-1]}", file=sys.stderr, flush=True)
    return found


def child(*arguments: str) -> dict[str, Any]:
    """What a process of its own printed last."""
    command = [sys.executable, str(HERE / "contenders.py"), *arguments]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise click.ClickException(f"{' '.join(arguments)}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def wall(command: str) -> dict[str, Any]:
    """Seconds of a whole command, which may fail."""
    started = time.perf_counter()
    folder = Path(sys.executable).parent
    done = subprocess.run(
        f"{folder}/{command}", shell=True, capture_output=True, check=False, cwd=HERE.parent
    )
    return {"seconds": time.perf_counter() - started, "exit": done.returncode}


# The comparisons ------------------------------------------------------------------------------


def epochs(rounds: int, data_dir: str) -> Iterator[dict[str, Any]]:
    """The question's networks: seconds of the second epoch, after whatever is compiled or warmed up."""
    present = [name for name in EPOCH if all(map(find_spec, PEERS.get(name, ())))]
    for absent in EPOCH.keys() - set(present):
        print(f"left out: {absent}, which wants {' and '.join(PEERS[absent])}", file=sys.stderr)
    for depth in (1, 4):
        found = in_turn(present, rounds, lambda name, depth=depth: child(name, str(depth), data_dir))
        seconds = {name: statistics.median(one["epochs"][-1] for one in runs) for name, runs in found.items()}
        for name, runs in found.items():
            yield {
                "work": f"784 wide, depth {depth}, an epoch",
                "contender": name,
                "seconds": seconds[name],
                "first_epoch": statistics.median(one["epochs"][0] for one in runs),
                "mse": runs[0]["mse"] and statistics.median(one["mse"] for one in runs),
                "ratios": {
                    other: seconds[name] / seconds[other]
                    for other in EPOCH_TARGETS[depth]
                    if other in seconds
                },
                "targets": EPOCH_TARGETS[depth] if name.startswith("ours") else {},
                "rounds": [one["epochs"][-1] for one in runs],
            }


def networks(rounds: int) -> Iterator[dict[str, Any]]:
    """Many small networks: seconds for one, alone and in ensembles, and of their products alone."""
    for d, depth in SIZES:

        def run(name: str, size: tuple[int, int] = (d, depth)) -> dict[str, Any]:
            what, *numbers = NETWORKS[name]
            return child(what, *map(str, (*size, *numbers)))

        found = in_turn([*NETWORKS], rounds, run)
        seconds = {name: statistics.median(one["seconds"] for one in runs) for name, runs in found.items()}
        for name, runs in found.items():
            target = NETWORK_TARGETS.get((d, depth)) if name.startswith(f"ours, {AT_ONCE}") else None
            yield {
                "work": f"{d} wide, depth {depth}, 500 steps, seconds a network",
                "contender": name,
                "seconds": seconds[name],
                "ratios": {"times faster than one at a time": seconds[ALONE] / seconds[name]},
                "targets": {} if target is None else {"times faster than one at a time": target},
                "rounds": [one["seconds"] for one in runs],
            }


def runs(rounds: int) -> Iterator[dict[str, Any]]:
    """Whole commands, with one and two processes."""
    for work, command in (
        ("identity-props run", "identity-props run --jobs {}"),
        ("pytest", "pytest -q -n {}"),
    ):
        found = in_turn(["1", "2"], rounds, lambda n, command=command: wall(command.format(n)))
        seconds = {n: statistics.median(one["seconds"] for one in done) for n, done in found.items()}
        for n, done in found.items():
            yield {
                "work": work,
                "contender": f"{n} process" + "es" * (n == "2"),
                "seconds": seconds[n],
                "ratios": {"times faster than with one": seconds["1"] / seconds[n]},
                "targets": {},
                "exits": [one["exit"] for one in done],
                "rounds": [one["seconds"] for one in done],
            }


GROWTH = {  # what grows: sizes (d, depth, K, steps)
    "replicas": [(49, 1, k, 500) for k in (8, 16, 32, 64, 128, 256, 512)],
    "depth": [(49, depth, 8, 500) for depth in (1, 2, 4, 8)],
    "steps": [(49, 1, 8, steps) for steps in (500, 1000, 2000, 4000)],
    "pixels": [(d, 1, 8, 500) for d in (98, 196, 392, 784)],
}
SLOPE = 1.1  # at most, where the arithmetic says 1; in pixels it says 2


def growth(rounds: int) -> Iterator[dict[str, Any]]:
    """Seconds of training against replicas, depth, steps and pixels, and their slope on log axes."""
    for what, sizes in GROWTH.items():
        given = {"-".join(map(str, size)): size for size in sizes}
        found = in_turn([*given], rounds, lambda name, given=given: grown(*given[name]))
        seconds = [statistics.median(one["seconds"] for one in done) for done in found.values()]
        column = {"pixels": 0, "depth": 1, "replicas": 2, "steps": 3}[what]
        logs = [math.log(size[column]) for size in sizes], [math.log(value) for value in seconds]
        slope = statistics.linear_regression(*logs).slope
        yield {
            "work": f"seconds against {what}",
            "contender": ", ".join(
                f"{size[column]}: {value:.3g}" for size, value in zip(sizes, seconds, strict=True)
            ),
            "seconds": seconds[-1],
            "ratios": {"slope": slope},
            "targets": {"slope": SLOPE} if what != "pixels" else {},
            "rounds": seconds,
            "sizes": [size[column] for size in sizes],
        }


def grown(d: int, depth: int, replicas: int, steps: int) -> dict[str, Any]:
    """Seconds of all replicas and all steps."""
    each = child("networks", *map(str, (d, depth, replicas, 1, steps)))["seconds"]
    return {"seconds": each * replicas * steps / 500}


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """SVG: how many times as long for how many times as much, on log axes."""
    from identity_props.report.pictures import HEIGHT, WIDTH, Axes

    axes = Axes((1, 100), (0.9, 100), ("times as much", "times as long"))
    drawn, ends = [STYLE, axes.frame(), axes.line([(1, 1), (100, 100)], "one")], []
    for row in rows:
        sizes, seconds = row["sizes"], row["rounds"]
        drawn.append(
            axes.line([(a / sizes[0], b / seconds[0]) for a, b in zip(sizes, seconds, strict=True)], "curve")
        )
        name = f"{row['work'].split()[-1]}, slope {row['ratios']['slope']:.2f}"
        ends.append((axes.y(seconds[-1] / seconds[0]), axes.x(sizes[-1] / sizes[0]), name))
    above = 0.0
    for y, x, name in sorted(ends):
        above = max(y, above + 14)  # a line of text
        drawn.append(f'<text x="{x + 6:.0f}" y="{above:.0f}">{name}</text>')
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + 100} {HEIGHT}" role="img">'
    return f"{head}<title>Growth of training time</title>{''.join(drawn)}</svg>\n"


STYLE = """<style>
text { font: 12px sans-serif } path { fill: none; stroke: #26c; stroke-width: 2 }
.tick { stroke: #ddd; stroke-width: 1 } .one { stroke: #999; stroke-dasharray: 4 4 }
</style><rect width="100%" height="100%" fill="#fff"/>"""


def same_training(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Contenders whose test MSE is not within the band of the tensor loop's: they trained something else."""
    usual = {row["work"]: row["mse"] for row in rows if row["contender"] == "tensor-loop"}
    trained = [row for row in rows if row.get("mse")]
    return [
        f"{row['work']}: {row['contender']} {row['mse']:.0f}"
        for row in trained
        if not 1 / SAME_TRAINING <= row["mse"] / usual[row["work"]] <= SAME_TRAINING
    ]


# What was found -------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    """Where this was measured."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "system": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    } | versions


def processor() -> str:
    """Its name, where Linux says it."""
    told = Path("/proc/cpuinfo").read_text() if sys.platform == "linux" else ""
    names = [line.split(":")[1].strip() for line in told.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor()


def table(document: dict[str, Any]) -> str:
    """Markdown."""
    lines = ["# Speed", "", "Made by `benchmarks/bench.py`; medians of rounds taken in turn.", ""]
    lines += [", ".join(f"{k} {v}" for k, v in document["machine"].items()) + ".", ""]
    lines += [f"Trained something else: {other}.\n" for other in document["other_training"]]
    lines += ["| work | contender | seconds | rounds | ratios | targets |", "|---|---|---:|---:|---|---|"]
    for row in document["rows"]:
        ratios = ", ".join(f"{ratio:.2f} {name}" for name, ratio in row["ratios"].items())
        targets = ", ".join(f"{target:.2f} {name}" for name, target in row["targets"].items())
        cells = (row["work"], row["contender"], f"{row['seconds']:.3g}", str(row["of"]), ratios, targets)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option(
    "--what", default="epochs,networks,growth,runs", show_default=True, help="Comparisons, by commas."
)
@click.option("--rounds", default=3, show_default=True, help="Times that every contender is measured.")
@click.option("--data-dir", envvar="IDENTITY_PROPS_DATA", help="Folder that holds MNIST/raw, for epochs.")
@click.option("--out", default=str(HERE), help="Folder for results.json, results.md and growth.svg.")
def main(what: str, rounds: int, data_dir: str | None, out: str) -> None:
    """Measure, in turn and several times, and write medians, ratios and what they were taken on."""
    wanted = what.split(",")
    if unknown := set(wanted) - {"epochs", "networks", "growth", "runs"}:
        raise click.UsageError(
            f"--what: expected epochs, networks, growth or runs, got {', '.join(sorted(unknown))}"
        )
    if "epochs" in wanted and data_dir is None:
        raise click.UsageError("--data-dir: expected the folder that holds MNIST/raw, got none")
    made = {
        "epochs": lambda: epochs(rounds, str(data_dir)),
        "networks": lambda: networks(rounds),
        "growth": lambda: growth(rounds),
        "runs": lambda: runs(rounds),
    }
    file = Path(out, "results.json")
    before = json.loads(file.read_text())["rows"] if file.exists() else []
    rows: list[dict[str, Any]] = []
    for name, measured in made.items():
        if name in wanted:
            rows += [{"what": name, "of": rounds, **row} for row in measured()]
        else:  # as an earlier run on this machine measured them
            rows += [row for row in before if row["what"] == name]
    document = {"machine": machine(), "rows": rows, "other_training": same_training(rows)}
    file.write_text(json.dumps(document, indent=1) + "\n")
    Path(out, "results.md").write_text(table(document))
    if grown := [row for row in rows if row["what"] == "growth"]:
        Path(out, "growth.svg").write_text(picture(grown))
    print(table(document))


if __name__ == "__main__":
    main()

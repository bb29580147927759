"""Ledgers of real trainers: what each example weighs, in small trainings, one process a trainer.

real_trainers.py runs it and goes on from real-trainers-ledgers.json; by itself, with a name, it prints that trainer's.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
JSON = HERE / "real-trainers-ledgers.json"
SECONDS = 1200  # a trainer may take
ON_TWO = {
    "ranks": {"examples": 12, "batch_size": 2, "ranks": 2},
    "ranks-uneven": {"examples": 9, "batch_size": 2, "ranks": 2},
}
TRAININGS = {  # by the law that asks for one alike
    "trajectory": {"examples": 12, "batch_size": 4},
    "last-batch": {"examples": 10, "batch_size": 4, "epochs": 1},
    "drop-last": {"examples": 10, "batch_size": 4, "drop_last": True},
    "accumulation": {"examples": 16, "batch_size": 2, "accumulate": 4, "epochs": 2},
    "unequal": {"examples": 14, "batch_size": 4, "accumulate": 4, "epochs": 1},
    "window": {"examples": 12, "batch_size": 2, "accumulate": 4},
    "order": {"examples": 8, "batch_size": 2, "shuffle": True},
    "evaluation": {"examples": 8, "batch_size": 2, "shuffle": True, "evaluate": True},
    "resume-inside": {"examples": 8, "batch_size": 2, "shuffle": True, "resume_at": 6},
    "tokens": {"examples": 8, "batch_size": 2, "epochs": 1, "tokens": True},
    "tokens-accumulated": {"examples": 8, "batch_size": 2, "accumulate": 2, "epochs": 1, "tokens": True},
    **ON_TWO,
}
SHARED = {  # laws that are told by the ledger of another
    **dict.fromkeys(
        ("steps", "every-example", "velocity", "momentum-rate", "decay", "average"), "trajectory"
    ),
    **dict.fromkeys(("frozen", "training-loss", "evaluation-loss", "clip", "repeat"), "trajectory"),
    **dict.fromkeys(("accumulated-loss", "schedule"), "accumulation"),
    **dict.fromkeys(("resume-epoch", "resume-window", "resume-scale"), "resume-inside"),
    "tokens-steps": "tokens",
    **dict.fromkeys(
        ("ranks-shuffled", "ranks-accumulated", "ranks-clip", "ranks-schedule", "ranks-loss"), "ranks"
    ),
}


def measured(name, two):
    """Its ledgers by the law that each is of, as text, from a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, name, *["two"] * two],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"ledgers of {name}: {done.stderr.strip()[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def ledgers(name, two):
    """Those that it offers."""
    from rich.console import Console

    from identity_props.conformance import booked
    from identity_props.errors import InputError
    from identity_props.report import ledgers as tables

    found = {}
    for law, training in TRAININGS.items():
        if law in ON_TWO and not two:
            continue
        try:
            named, book = booked.here(booked.AskedBook(name, (), None, training, 180))
        except InputError:  # it does not offer it, or takes no examples
            continue
        console = Console(file=io.StringIO(), width=90)
        console.print(tables.table(book, named))
        lines = (line.rstrip() for line in console.file.getvalue().splitlines())
        found[law] = "\n".join(line for line in lines if line)
    return found


def kept():
    """What was measured already, by trainer."""
    return json.loads(JSON.read_text()) if JSON.exists() else {}


def keep(found):
    JSON.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    print(json.dumps(ledgers(sys.argv[1], "two" in sys.argv[2:]), ensure_ascii=False))

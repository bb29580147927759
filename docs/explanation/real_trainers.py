"""Real trainers: ``check`` over the trainers of other packages, one process each, on one rank and on two.

``tox -e backends`` runs it. It writes real-trainers.json, all that was measured, one trainer after the other, and goes
on from there; so do the ledgers, see real_trainers_ledgers. Page, picture and the page of ledgers are made from those;
``--page`` writes them alone. With ``--scheduler`` the workers of a Dask cluster check,
a trainer a task, and ledgers are made here.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import real_trainers_ledgers as ledgers
from real_trainers_accounts import accounts
from real_trainers_page import page
from real_trainers_picture import picture

from identity_props.errors import InputError
from identity_props.stack.crews import crew, each
from identity_props.trainers.names import NAMES

HERE = Path(__file__).parent
JSON, PAGE = HERE / "real-trainers.json", HERE / "real-trainers.md"
PICTURE, LEDGERS = HERE / "real-trainers.svg", HERE / "real-trainers-ledgers.md"
SECONDS = 1200  # a trainer may take
PACKAGES = {  # whose versions a trainer goes by, the distribution named as the index has it
    "keras-torch": ("keras", "torch"),
    "keras-jax": ("keras", "jax"),
    "keras-tensorflow": ("keras", "tensorflow-cpu"),
    "optax": ("optax", "jax"),
    "ignite": ("pytorch-ignite",),
    "ddp": ("torch",),
    "fsdp": ("torch",),
    "plain": ("torch",),
}
ON_TWO = ("plain", "lightning", "accelerate", "transformers", "ddp", "fsdp", "ignite")


def runs():
    """(trainer, ranks) of all that is measured and installed."""
    here = [name for name, package in NAMES.items() if find_spec(package)]
    return [(name, 1) for name in here] + [(name, 2) for name in here if name in ON_TWO]


def measured(packages, name, ranks):
    """What check says of a trainer, with its versions and the seconds that it took."""
    command = [sys.executable, "-m", "identity_props", "check", "--trainer", name, "--ranks", str(ranks)]
    before = sum(os.times()[2:4])
    done = subprocess.run(
        [*command, "--guard", "180", "--json"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=SECONDS,
        capture_output=True,
        text=True,
        check=False,
    )
    if not done.stdout.strip():
        raise InputError(f"{name}, {ranks} ranks: {done.stderr.strip()[-500:]}")
    rows = json.loads(done.stdout)["rows"]
    versions = {package: version(package) for package in packages.get(name, (name,))}
    seconds = round(sum(os.times()[2:4]) - before)  # of a processor, whatever else is running
    kept = [{key: row[key] for key in ("name", "verdict", "kind", "note") if row.get(key)} for row in rows]
    return {"name": name, "ranks": ranks, "versions": versions, "seconds": seconds, "rows": kept}


def write(found):
    JSON.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")


def wanted(given, run, known):
    """Whether a trainer on so many ranks is to be measured."""
    return run[1] in given.ranks and (run[0] in given.only or (not given.only and not known))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page alone, from the JSON")
    parser.add_argument("--tables", action="store_true", help="no ledgers")
    parser.add_argument("--only", nargs="+", default=[], help="measure these trainers anew, keep the others")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2], help="on so many")
    parser.add_argument("--scheduler", help="check on the workers of a Dask cluster, tcp://HOST:8786")
    given = parser.parse_args()
    found = json.loads(JSON.read_text()) if JSON.exists() else []
    known = {(one["name"], one["ranks"]): one for one in found}
    anew = [] if given.page else [run for run in runs() if wanted(given, run, run in known)]
    with crew(PACKAGES, 1, 1, given.scheduler, print) as workers:
        for run, one in each(workers, measured, anew):
            failing = [row["name"] for row in one["rows"] if row["verdict"] == "fail"]
            print(*run, f"{one['seconds']} s", *failing, flush=True)
            known[run] = one
            write([*known.values()])
    books = ledgers.kept()
    for name, ranks in [] if given.page or given.tables else runs():
        if ranks == 1 and ((name, 1) in anew or (not given.only and name not in books)):
            books[name] = ledgers.measured(name, name in ON_TWO)
            ledgers.keep(books)
    order = [(name, ranks) for ranks in (1, 2) for name in NAMES]
    write([known[run] for run in order if run in known])
    pages([known[run] for run in order if run in known], ledgers.kept())


def pages(found, books):
    """The page, its picture, and the page of ledgers."""
    PAGE.write_text(page(found))
    PICTURE.write_text(picture(found, LEDGERS.name))
    LEDGERS.write_text(accounts(found, books))


if __name__ == "__main__":
    main()

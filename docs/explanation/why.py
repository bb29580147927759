"""The question's two networks, explained: ``python docs/explanation/why.py --data-dir FOLDER``, half an hour of a core.

Trains each on raw MNIST as the asker did, takes its error apart, and does what is advised. Writes why.json, all
that was found, and the tables of why.md; ``--tables`` writes the tables alone, from the JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
JSON, PAGE = HERE / "why.json", HERE / "why.md"
ASKED = "--scaling none --data mnist --side 28 --steps 9380 --try --json"  # 20 epochs in batches of 128
DEPTHS = ("1", "4")
LONG = ("by_pixel", "by_rank", "by_frequency")  # hundreds of figures that no table shows


def explained(depth: str, data_dir: str) -> dict:
    arguments = ["explain", "--depth", depth, *ASKED.split(), "--data-dir", data_dir]
    code = "import sys; from identity_props.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    return {name: value for name, value in found.items() if name not in LONG}


def tables(found: dict) -> dict[str, str]:
    """Markdown by the name of the table."""
    made = {}
    for depth, network in found.items():
        made[f"parts {depth}"] = "\n".join(
            ["| part | FVU | share | what |", "|---|---:|---:|---|", *map(row(network), there(network))]
        )
        made[f"advice {depth}"] = "\n".join(
            [
                "| change | test MSE before | after | FVU after |",
                "|---|---:|---:|---:|",
                *map(tried(network), network["advice"]),
            ]
        )
    return made


def there(network: dict) -> list[dict]:
    return [part for part in network["parts"] if part["fvu"]]


def row(network: dict):
    def line(part: dict) -> str:
        return f"| {part['name']} | {part['fvu']:.2e} | {part['fvu'] / network['fvu']:.1%} | {part['what']} |"

    return line


def tried(network: dict):
    variance = network["mse"] / network["fvu_pixels"]

    def line(one: dict) -> str:
        after = one["after"]
        word = "by hand" if one["by_hand"] else "diverges"
        figures = f"{word} | " if after is None else f"{after * variance:.3g} | {after:.2e}"
        return f"| {one['name']} | {network['mse']:.3g} | {figures} |"

    return line


def filled(page: str, found: dict) -> str:
    """The page with its tables, each between <!-- name --> and <!-- end -->."""
    for name, table in tables(found).items():
        begin, end = f"<!-- {name} -->\n", "<!-- end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}{table}\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", default=os.environ.get("IDENTITY_PROPS_DATA", "."))
    parser.add_argument("--tables", action="store_true")
    given = parser.parse_args()
    if not given.tables:
        found = {depth: explained(depth, given.data_dir) for depth in DEPTHS}
        JSON.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), json.loads(JSON.read_text())))


if __name__ == "__main__":
    main()

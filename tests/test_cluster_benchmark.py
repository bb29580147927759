"""The benchmark of a cluster: it runs, with tiny numbers, and says its ratios and what a task costs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("distributed")
pytest.importorskip("pyarrow")
SCRIPT = Path(__file__).parents[1] / "benchmarks/cluster.py"


@pytest.mark.processes
def test_it_says_its_ratios_and_what_a_task_costs(tmp_path):
    tiny = ["--cells", "3", "--steps", "4", "--rounds", "1", "--tasks", "5"]
    done = subprocess.run(
        [sys.executable, SCRIPT, *tiny], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    for ratio in ("one process / two", "Dask with two workers / two processes"):
        assert float(re.search(f"{ratio}: (\\S+)", done.stdout)[1]) > 0
    for who in ("scheduler", "workers", "here"):
        messages, size, _ = re.search(
            f"a task, {who}: (\\S+) messages, (\\S+) bytes, (\\S+) s", done.stdout
        ).groups()
        assert float(messages) >= 1
        assert float(size) > 100
    assert re.search(r"a task, kept: \S+ ms", done.stdout)

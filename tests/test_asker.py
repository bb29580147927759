"""The question's own script, in Keras as it stands: it ends where the claims seed-network-* say that the network ends."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from identity_props.claims.registry import CLAIMS, SEED_STEPS

SCRIPT = Path(__file__).parent.parent / "benchmarks/asker.py"
RECORD = SCRIPT.with_suffix(".json")
WHOLE = 20  # epochs


def allowed(depth):
    """The claim's test MSE, lowest and highest."""
    keywords = CLAIMS[f"seed-network-{depth}"].succeeded.keywords
    return keywords["low"], keywords["high"]


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 4])
def test_it_ends_with_the_mse_of_our_claim(depth, mnist_28, pytestconfig):
    if find_spec("keras") is None:
        pytest.skip("keras is not installed")
    folder = pytestconfig.getoption("identity_data_dir") or os.environ["IDENTITY_PROPS_DATA"]
    command = [sys.executable, SCRIPT, str(depth), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    low, high = allowed(depth)
    assert low <= json.loads(done.stdout)["mse"] <= high


def test_it_has_the_claim_s_budget():
    assert SEED_STEPS == WHOLE * -(-60_000 // 128)
    assert "EPOCHS = 20" in SCRIPT.read_text()


def test_what_was_recorded_of_it_is_within_the_claim_s_range_after_all_epochs():
    found = json.loads(RECORD.read_text())
    for one in found:
        low, high = allowed(one["depth"])
        assert one["mse"] >= low
        assert one["epochs"] != WHOLE or one["mse"] <= high

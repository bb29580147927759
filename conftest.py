"""Hypothesis profiles, dev at a desk, ci where the variable CI is set, and nightly; the option --shrink."""

import os

import pytest
from hypothesis import Phase, settings

# shrinking trains hundreds of networks to make a seed smaller: not unless asked for
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)
# parents are named: Hypothesis picks a default of its own where it sees a CI variable
settings.register_profile(
    "dev", settings.get_profile("default"), max_examples=25, deadline=None, phases=QUICK
)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True, database=None)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=1000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")


def pytest_addoption(parser):
    """Add --shrink."""
    parser.addoption("--shrink", action="store_true", help="let Hypothesis shrink the examples that fail")


@pytest.hookimpl(trylast=True)  # after Hypothesis has read --hypothesis-profile
def pytest_configure(config):
    """Shrink where it was asked for."""
    if config.getoption("--shrink"):
        settings.register_profile("shrink", settings(), phases=tuple(Phase))
        settings.load_profile("shrink")

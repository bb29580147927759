"""The suite's Hypothesis profiles for all tests, and the option --shrink."""

import pytest
from hypothesis import Phase, settings

from identity_props.suite.profiles import register

register()


def pytest_addoption(parser):
    """Add --shrink."""
    parser.addoption("--shrink", action="store_true", help="let Hypothesis shrink the examples that fail")


@pytest.hookimpl(trylast=True)  # after Hypothesis has read --hypothesis-profile
def pytest_configure(config):
    """Shrink where it was asked for."""
    if config.getoption("--shrink"):
        settings.register_profile("shrink", settings(), phases=tuple(Phase))
        settings.load_profile("shrink")

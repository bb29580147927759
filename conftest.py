"""The suite's Hypothesis profiles for all tests, fewer examples at a desk, and the option --shrink."""

import os

import pytest
from hypothesis import Phase, settings

from identity_props.suite.profiles import register

register()
if not os.environ.get("CI"):  # where each example takes time that someone waits for
    settings.register_profile("desk", settings.get_profile("dev"), max_examples=10)
    settings.load_profile("desk")


def pytest_addoption(parser):
    """Add --shrink."""
    parser.addoption("--shrink", action="store_true", help="let Hypothesis shrink the examples that fail")


@pytest.hookimpl(trylast=True)  # after Hypothesis has read --hypothesis-profile
def pytest_configure(config):
    """Shrink where it was asked for."""
    if config.getoption("--shrink"):
        settings.register_profile("shrink", settings(), phases=tuple(Phase))
        settings.load_profile("shrink")

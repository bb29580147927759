"""The suite's Hypothesis profiles, also where it runs outside of its repository."""

from hypothesis import settings

from identity_props.suite.profiles import register

register()


def pytest_configure(config):
    """Compiled code is compiled anew for each shape, a second or more each: explicit examples alone."""
    if config.getoption("identity_mode") == "compiled":
        settings.load_profile("explicit")

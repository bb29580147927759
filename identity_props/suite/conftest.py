"""The suite's Hypothesis profiles, also where it runs outside of its repository."""

import pytest
from hypothesis import settings

from identity_props.suite.profiles import register

register()


def pytest_configure(config):
    """Compiled code is compiled anew for each shape, a second or more each: explicit examples alone."""
    if config.getoption("identity_mode") == "compiled":
        settings.load_profile("explicit")


@pytest.fixture(autouse=True)
def _threads_as_the_commands_have_them(request):
    """One where layers are narrow, since more wait for each other longer than they work; the session's after it."""
    from identity_props.claims.running import WIDE
    from identity_props.conformance.following import THREADS
    from identity_props.stack.unchanged import unchanged

    wide = (
        request.config.getoption("identity_side") ** 2 >= WIDE and "identity_pixels" in request.fixturenames
    )
    with unchanged(None if wide else THREADS):
        yield

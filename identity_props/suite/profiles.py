"""Hypothesis profiles: dev at a desk, ci where the variable CI is set, nightly, and explicit for compiled code."""

import os

from hypothesis import Phase, settings
from hypothesis.errors import InvalidArgument

# shrinking trains hundreds of networks to make a seed smaller: not unless asked for
QUICK = (Phase.explicit, Phase.reuse, Phase.generate)


def register() -> None:
    """Register the profiles and load dev or ci, once a process."""
    try:
        settings.get_profile("dev")
    except InvalidArgument:
        _register()


def _register() -> None:
    # parents are named: Hypothesis picks a default of its own where it sees a CI variable
    settings.register_profile(
        "dev", settings.get_profile("default"), max_examples=25, deadline=None, phases=QUICK
    )
    dev = settings.get_profile("dev")
    settings.register_profile("ci", dev, derandomize=True, print_blob=True, database=None)
    settings.register_profile("nightly", dev, max_examples=1000, print_blob=True)
    settings.register_profile("explicit", dev, phases=(Phase.explicit,))
    settings.load_profile("ci" if os.environ.get("CI") else "dev")

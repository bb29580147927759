"""Hypothesis profiles: dev at a desk, ci where the variable CI is set, nightly with --hypothesis-profile."""

import os

from hypothesis import settings

# parents are named: Hypothesis picks a default of its own where it sees a CI variable
settings.register_profile("dev", settings.get_profile("default"), max_examples=25, deadline=None)
settings.register_profile("ci", settings.get_profile("dev"), derandomize=True, print_blob=True, database=None)
settings.register_profile("nightly", settings.get_profile("dev"), max_examples=1000, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

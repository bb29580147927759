"""How long threads keep a core while they wait for each other: it is decided where torch is imported first."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPINS = 10_000  # on idle cores as fast as libgomp's own 300,000


def wait_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Threads of OpenMP then sleep, where other processes keep a core busy; whoever says otherwise is heard.

    Two threads beside five busy processes took nine times the processor time of one, else, as each waits at full speed.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", str(SPINS))

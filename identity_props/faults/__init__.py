"""Faults: silent deviations of training stacks, seen in public, planted so that an audit can look for them.

One registry, FAULTS, that tests and ``identity-props audit`` read; TWINS are the same parts written right.
"""

from identity_props.faults import contract, draws, loops, networks, optimizers
from identity_props.faults.base import Fault, Twin

FAULTS: dict[str, Fault] = {
    fault.name: fault for room in (optimizers, contract, networks, draws, loops) for fault in room.FAULTS
}
TWINS: dict[str, Twin] = {fault.twin.name: fault.twin for fault in FAULTS.values()}

__all__ = ["FAULTS", "TWINS", "Fault", "Twin"]

"""Faults: silent deviations of training stacks, seen in public, planted so that an audit can look for them.

One registry of parts, FAULTS, one of trainers, TRAINER_FAULTS, and one of layers of any kind, LAYER_FAULTS, that tests
and ``identity-props audit`` read; TWINS and LAYER_TWINS are the same written right, and TRAINER_TWINS clean loops.
"""

from collections import ChainMap
from collections.abc import Mapping

from identity_props.faults import contract, draws, loops, networks, optimizers
from identity_props.faults.base import Fault, LayerFault, LayerTwin, TrainerFault, TrainerTwin, Twin
from identity_props.faults.layers import LAYER_FAULTS, LAYER_TWINS
from identity_props.faults.trainers import TRAINER_FAULTS, TRAINER_TWINS

FAULTS: dict[str, Fault] = {
    fault.name: fault for room in (optimizers, contract, networks, draws, loops) for fault in room.FAULTS
}
TWINS: dict[str, Twin] = {fault.twin.name: fault.twin for fault in FAULTS.values()}

ALL_FAULTS: Mapping[str, Fault | TrainerFault | LayerFault] = ChainMap(LAYER_FAULTS, TRAINER_FAULTS, FAULTS)  # type: ignore[arg-type]

__all__ = [
    "ALL_FAULTS",
    "FAULTS",
    "LAYER_FAULTS",
    "LAYER_TWINS",
    "TRAINER_FAULTS",
    "TRAINER_TWINS",
    "TWINS",
    "Fault",
    "LayerFault",
    "LayerTwin",
    "TrainerFault",
    "TrainerTwin",
    "Twin",
]

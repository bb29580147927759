"""Faults of trainers, planted in a clean loop, and clean loops written otherwise that no law may accuse."""

from identity_props.faults import trainer_data, trainer_losses, trainer_states, trainer_steps, trainer_twins
from identity_props.faults.base import TrainerFault, TrainerTwin

TRAINER_FAULTS: dict[str, TrainerFault] = {
    fault.name: fault
    for room in (trainer_steps, trainer_states, trainer_data, trainer_losses)
    for fault in room.FAULTS
}
TRAINER_TWINS: dict[str, TrainerTwin] = {twin.name: twin for twin in trainer_twins.TWINS}

__all__ = ["TRAINER_FAULTS", "TRAINER_TWINS", "TrainerFault", "TrainerTwin"]

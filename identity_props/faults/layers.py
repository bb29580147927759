"""Faults of layers of any kind, and their clean twins."""

from identity_props.faults import layer_states, layer_steps
from identity_props.faults.base import LayerFault, LayerTwin

LAYER_FAULTS: dict[str, LayerFault] = {
    fault.name: fault for room in (layer_steps, layer_states) for fault in room.FAULTS
}
LAYER_TWINS: dict[str, LayerTwin] = {fault.twin.name: fault.twin for fault in LAYER_FAULTS.values()}

__all__ = ["LAYER_FAULTS", "LAYER_TWINS", "LayerFault", "LayerTwin"]

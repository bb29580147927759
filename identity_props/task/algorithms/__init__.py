"""A zoo of published optimizers: each a recurrence in float64, written from its paper alone."""

from identity_props.task.algorithms import adaptive, averages, matrices, ratefree
from identity_props.task.algorithms.altered import ALTERED
from identity_props.task.algorithms.base import Algorithm, Arguments, Cell, registry
from identity_props.task.algorithms.bounded import BOUNDED
from identity_props.task.algorithms.descent import DESCENT
from identity_props.task.algorithms.geometry import GEOMETRY
from identity_props.task.algorithms.inertia import INERTIA
from identity_props.task.algorithms.kin import KIN
from identity_props.task.algorithms.moments import MOMENTS
from identity_props.task.algorithms.rates import RATES
from identity_props.task.algorithms.squares import SQUARES

__all__ = ["ALGORITHMS", "Algorithm", "Arguments", "Cell"]

ALGORITHMS = registry(
    *(DESCENT, MOMENTS, SQUARES, KIN, adaptive.ROOM, averages.ROOM, matrices.ROOM, ratefree.ROOM),
    *(BOUNDED, ALTERED, INERTIA, RATES, GEOMETRY),
)

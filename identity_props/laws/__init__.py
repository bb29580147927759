"""Laws: what is exactly true of learning the identity, each measured on a stack and a case."""

# the registry is in the order of these imports
# isort: off
from identity_props.laws.base import AXES, LAWS, Case, Discrepancy, Law, scaled_alike
from identity_props.laws import linear, deep, symmetry, steps

__all__ = [
    "AXES",
    "LAWS",
    "Case",
    "Discrepancy",
    "Law",
    "deep",
    "linear",
    "scaled_alike",
    "steps",
    "symmetry",
]

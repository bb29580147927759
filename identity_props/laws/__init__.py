"""Laws: what is exactly true of learning the identity, each measured on a stack and a case."""

# the registry is in the order of these imports
# isort: off
from identity_props.laws.base import AXES, LAWS, Case, Discrepancy, Law, scaled_alike, worst_of
from identity_props.laws import linear, deep, layers, drawing, symmetry, loops, steps, contract, calls
from identity_props.laws import settings, lives, precision, backends

__all__ = [
    "AXES",
    "LAWS",
    "Case",
    "Discrepancy",
    "Law",
    "backends",
    "calls",
    "contract",
    "deep",
    "drawing",
    "layers",
    "linear",
    "lives",
    "loops",
    "precision",
    "scaled_alike",
    "settings",
    "steps",
    "symmetry",
    "worst_of",
]

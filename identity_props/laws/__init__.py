"""Laws: what is exactly true of learning the identity, each measured on a stack and a case."""

from identity_props.laws import deep, linear, symmetry
from identity_props.laws.base import AXES, LAWS, Case, Discrepancy, Law, scaled_alike

__all__ = ["AXES", "LAWS", "Case", "Discrepancy", "Law", "deep", "linear", "scaled_alike", "symmetry"]

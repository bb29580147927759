"""Whole trainers, judged by the weights that they leave behind: what holds a stack together, as a black box.

One registry, TRAINER_LAWS, in the order in which they are asked.
"""

from identity_props.trainers import counting, telling, stepping, averaging  # isort: skip
from identity_props.trainers import ordering, resuming, precision, tokens, ranked  # isort: skip
from identity_props.trainers.base import TRAINER_LAWS, TrainerLaw
from identity_props.trainers.bench import Bench
from identity_props.trainers.reading import Reading

__all__ = [
    "TRAINER_LAWS",
    "Bench",
    "Reading",
    "TrainerLaw",
    "averaging",
    "counting",
    "ordering",
    "precision",
    "ranked",
    "resuming",
    "stepping",
    "telling",
    "tokens",
]

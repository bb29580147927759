"""Keras on torch: see keras."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow is imported wherever it is there, and talks

from identity_props.trainers.keras import DESIGNS, fit

__all__ = ["DESIGNS", "fit"]

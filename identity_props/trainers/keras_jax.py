"""Keras on JAX: see keras."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ["JAX_ENABLE_X64"] = "1"  # else what is asked in float64 is done in float32
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow is imported wherever it is there, and talks

from identity_props.trainers.keras import DESIGNS, fit

__all__ = ["DESIGNS", "fit"]

"""Keras on JAX: see keras."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # before Keras is imported
os.environ["JAX_ENABLE_X64"] = "1"  # else what is asked in float64 is done in float32

from identity_props.trainers import beside_tensorflow, keras

DESIGNS, fit = keras.DESIGNS, keras.fit

__all__ = ["DESIGNS", "beside_tensorflow", "fit"]

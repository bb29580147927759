"""Keras on torch: see keras."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # before Keras is imported

from identity_props.trainers import beside_tensorflow, keras

DESIGNS, fit = keras.DESIGNS, keras.fit

__all__ = ["DESIGNS", "beside_tensorflow", "fit"]

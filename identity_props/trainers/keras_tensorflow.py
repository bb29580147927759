"""Keras on TensorFlow: see keras."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"  # before Keras is imported

from identity_props.trainers import beside_tensorflow, keras

DESIGNS, fit = keras.DESIGNS, keras.fit

__all__ = ["DESIGNS", "beside_tensorflow", "fit"]

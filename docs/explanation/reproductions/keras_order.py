"""Keras on TensorFlow: once a seed is set, every epoch reads the examples in the same order."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
import numpy as np

read = []
model = keras.Sequential([keras.Input((1,)), keras.layers.Lambda(lambda x: x), keras.layers.Dense(1)])
model.compile(
    "sgd", lambda y, z: (read.append(y.numpy().ravel().tolist()), keras.ops.sum(z * 0))[1], run_eagerly=True
)
keras.utils.set_random_seed(0)
model.fit(np.arange(8.0)[:, None], np.arange(8.0)[:, None], batch_size=8, epochs=3, shuffle=True, verbose=0)
print(*read, sep="\n")
assert read[0] == read[1] == read[2] != sorted(read[0])

"""Keras: under gradient accumulation the average of the weights moves at every micro-batch."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # or jax
import keras
import numpy as np

averages = []
for steps in (None, 4):
    optimizer = keras.optimizers.SGD(1.0, use_ema=True, ema_momentum=0.5, gradient_accumulation_steps=steps)
    optimizer.build([weight := keras.Variable(np.zeros(1))])
    for _ in range(3 * (steps or 1)):  # three steps with a gradient of -1: weights 1, 2, 3
        optimizer.apply([-keras.ops.ones(1)], [weight])
    optimizer.finalize_variable_values([weight])
    averages.append(float(weight.numpy()[0]))
print("average without and with accumulation", averages)
assert averages[0] == 2.25 != averages[1]

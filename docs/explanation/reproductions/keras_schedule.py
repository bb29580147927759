"""Keras: under gradient accumulation a schedule counts micro-batches, while `iterations` counts steps."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # or jax
import keras
import numpy as np

schedule = keras.optimizers.schedules.PolynomialDecay(1.0, decay_steps=4, end_learning_rate=0.0)
optimizer = keras.optimizers.SGD(schedule, gradient_accumulation_steps=2)
optimizer.build([weight := keras.Variable(np.zeros(1))])
rates = []
for _ in range(8):  # four steps of two micro-batches, each with a gradient of 1
    before = float(weight.numpy()[0])
    optimizer.apply([keras.ops.ones(1)], [weight])
    rates.append(before - float(weight.numpy()[0]))
print(int(optimizer.iterations), "steps, at rates", rates[1::2])  # [1.0, 0.75, 0.5, 0.25] if counted in steps
assert np.allclose(rates[1::2], [0.75, 0.25, 0, 0])

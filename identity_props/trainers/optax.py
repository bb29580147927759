"""Optax within the loop that its own pages show: gradient, ``update``, ``apply_updates``.

- https://optax.readthedocs.io/en/latest/getting_started.html: the loop, and schedules
- https://optax.readthedocs.io/en/latest/_collections/examples/gradient_accumulation.html: ``MultiSteps``
- https://optax.readthedocs.io/en/latest/api/combining_optimizers.html: ``chain``, ``partition`` to freeze
- https://optax.readthedocs.io/en/latest/api/apply_updates.html: ``incremental_update`` for averages

Gradients are accumulated in the dtype asked for; its default is float32. Batches are cut in order, and parameters and
state are saved as they are: it brings no loader and no checkpoint. Not offered, as it has none of its own: shuffling,
dropping a last batch, evaluation, a reported loss, mixed precision, ranks, tokens.
"""

from __future__ import annotations

import math
import pickle
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from identity_props.trainers.protocol import Asked, NotOffered, Trained

FILE = "optax.pkl"
MULTI = "https://optax.readthedocs.io/en/latest/api/optimizer_wrappers.html#optax.MultiSteps"
DESIGNS = {
    "unequal": ("means", f"{MULTI}, use_grad_mean"),
    "window": ("carried", f"{MULTI}, until a given number of steps is reached"),
}
Arrays = list[Any]
jax.config.update("jax_enable_x64", True)  # else what is asked in float64 is done in float32


class State(NamedTuple):
    """What a training goes on from."""

    params: Arrays
    optimizer: Any
    averaged: Arrays
    read: int = 0  # micro-batches


def transformation(asked: Asked) -> Any:
    """Clip, decay and descent, for layers that are not frozen, every so many micro-batches."""
    parts = [] if asked.clip is None else [optax.clip_by_global_norm(asked.clip)]
    parts += [optax.add_decayed_weights(asked.decay)] if asked.decay else []
    descent = optax.chain(*parts, optax.sgd(rate(asked), momentum=asked.momentum or None))
    labels = ["frozen" if place in asked.frozen else "trained" for place in range(len(asked.start))]
    if asked.frozen:
        descent = optax.partition({"trained": descent, "frozen": optax.set_to_zero()}, labels)
    if asked.accumulate > 1:
        dtype = asked.examples.numpy().dtype
        return optax.MultiSteps(descent, every_k_schedule=asked.accumulate, accumulator_dtype=dtype)
    return descent


def rate(asked: Asked) -> Any:
    """Constant, or linear to 0 over all steps of the optimizer."""
    if asked.schedule == "constant":
        return asked.lr
    windows = math.ceil(math.ceil(len(asked.examples) / asked.batch_size) / asked.accumulate)
    return optax.linear_schedule(asked.lr, 0.0, asked.epochs * windows)


def loss(params: Arrays, x: Any) -> Any:
    """The mean squared error of a micro-batch."""
    output = x
    for weight in params:
        output = output @ weight.T
    return jnp.mean(optax.squared_error(output, x))


def step_of(asked: Asked, optimizer: Any) -> Any:
    """A micro-batch's step, compiled."""

    def step(state: State, x: Any) -> State:
        gradients = jax.grad(loss)(state.params, x)
        updates, inner = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = params
        if asked.average is not None:
            moved = optax.incremental_update(params, state.averaged, 1 - asked.average)
            done = updated(optimizer, inner)
            averaged = [jnp.where(done, new, old) for new, old in zip(moved, state.averaged, strict=True)]
        return State(params, inner, averaged, state.read + 1)

    return jax.jit(step)


def updated(optimizer: Any, inner: Any) -> Any:
    """Whether a micro-batch ended a step."""
    return optimizer.has_updated(inner) if isinstance(optimizer, optax.MultiSteps) else True


def begun(asked: Asked, optimizer: Any) -> State:
    """At the start, or where it stopped."""
    if asked.resume:
        saved: State = pickle.loads((asked.folder / FILE).read_bytes())
        return saved
    params = [jnp.asarray(one.numpy()) for one in asked.start]
    return State(params, optimizer.init(params), params)


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is not None:
        raise NotOffered("tokens")
    optimizer = transformation(asked)
    state, step = begun(asked, optimizer), step_of(asked, optimizer)
    batches = np.split(asked.examples.numpy(), range(asked.batch_size, len(asked.examples), asked.batch_size))
    for x in (batches * asked.epochs)[int(state.read) :]:
        state = step(state, x)
        if state.read == asked.stop:
            (asked.folder / FILE).write_bytes(pickle.dumps(jax.device_get(state)))
            break
    steps = state.optimizer.gradient_step if asked.accumulate > 1 else state.read
    averaged = None if asked.average is None else state.averaged
    return Trained(state.params, int(steps), averaged=averaged)

"""What is compared: one training in several ways, each in a process of its own that prints its times.

python benchmarks/contenders.py NAME DEPTH FOLDER      an epoch of the question's network
python benchmarks/contenders.py networks D DEPTH K [THREADS [STEPS]]    of D pixels, K at a time, 0 as modules
python benchmarks/contenders.py products D DEPTH K [THREADS]            the matrix products of those alone
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

EPOCHS, BATCH, WIDTH = 2, 128, 784
Times = dict[str, Any]


def images(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """MNIST as train [60000, 784] and test [10000, 784], float32 in 0-255."""
    raw = Path(folder) / "MNIST/raw"
    names = ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte")
    train, test = (np.fromfile(raw / name, np.uint8, offset=16).reshape(-1, WIDTH) for name in names)
    return train.astype(np.float32), test.astype(np.float32)


def timed(epochs: Iterator[None]) -> list[float]:
    """Seconds of each epoch."""
    marks = [time.perf_counter()]
    for _ in epochs:
        marks.append(time.perf_counter())
    return [b - a for a, b in pairwise(marks)]


# The question's network -----------------------------------------------------------------------------


def module(depth: int) -> Any:
    """Dense ReLU layers as the question has them: Glorot's weights, biases of 0."""
    from torch import nn

    layers = [nn.Linear(WIDTH, WIDTH) for _ in range(depth)]
    for layer in layers:
        nn.init.xavier_uniform_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())))


def torch_loop(depth: int, folder: str, loader: bool) -> Times:
    """The loop that everybody writes, over a DataLoader or over slices of a shuffled tensor."""
    import torch
    from torch.nn.functional import mse_loss
    from torch.utils.data import DataLoader, TensorDataset

    train, test = map(torch.from_numpy, images(folder))
    network = module(depth)
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3, alpha=0.9, eps=1e-7)
    batches = DataLoader(TensorDataset(train), BATCH, shuffle=True) if loader else None

    def epochs() -> Iterator[None]:
        for _ in range(EPOCHS):
            parts = (
                (x for (x,) in batches)
                if batches
                else (train[i] for i in torch.randperm(len(train)).split(BATCH))
            )
            for x in parts:
                optimizer.zero_grad()
                mse_loss(network(x), x).backward()
                optimizer.step()
            yield

    seconds = timed(epochs())
    with torch.no_grad():
        return {"epochs": seconds, "mse": float(mse_loss(network(test), test))}


def keras(depth: int, folder: str, backend: str) -> Times:
    """Keras 3 on a backend: the question's own code, in its present form."""
    os.environ["KERAS_BACKEND"] = backend
    from keras import Input, Sequential, callbacks, layers, optimizers

    train, test = images(folder)
    network = Sequential([Input((WIDTH,)), *(layers.Dense(WIDTH, activation="relu") for _ in range(depth))])
    network.compile(optimizers.RMSprop(1e-3, rho=0.9, epsilon=1e-7), "mse")
    marks: list[float] = []
    mark = callbacks.LambdaCallback(
        on_epoch_begin=lambda *_: marks.append(time.perf_counter()),
        on_epoch_end=lambda *_: marks.append(time.perf_counter()),
    )
    network.fit(train, train, batch_size=BATCH, epochs=EPOCHS, verbose=0, callbacks=[mark])
    seconds = [b - a for a, b in zip(marks[::2], marks[1::2], strict=True)]
    return {"epochs": seconds, "mse": float(network.evaluate(test, test, verbose=0))}


def ours(depth: int, folder: str, mode: str = "eager", measured: int = 128) -> Times:
    """What ``run`` does with one replica, but with the FVU at log-spaced steps on ``measured`` images alone."""
    import torch
    from torch.nn.functional import mse_loss

    from identity_props import Pixels, Stack, Trial, Variant, train
    from identity_props.claims.registry import rmsprop
    from identity_props.explanation.networks import network_of

    torch.set_flush_denormal(True)  # as a worker has it
    data, test = map(torch.from_numpy, images(folder))
    pixels, steps = Pixels("mnist", data, test[:measured]), -(-len(data) // BATCH)
    trial = Trial(Variant("plain-relu", depth, "none"), rmsprop(WIDTH, "constant"), EPOCHS * steps)
    marks = [time.perf_counter()]

    def on_step(step: int) -> None:
        if (step + 1) % steps == 0:
            marks.append(time.perf_counter())

    run = train(trial, pixels, [0], Stack(mode=mode), on_step)
    with torch.no_grad():
        mse = float(mse_loss(network_of(trial, WIDTH, run)(test), test))
    return {"epochs": [b - a for a, b in pairwise(marks)], "mse": mse}


def floor(depth: int, folder: str) -> Times:
    """The matrix products of an epoch and nothing else: forward, and of the weights and inputs backward."""
    import torch

    batch, weight = torch.rand(BATCH, WIDTH), torch.rand(WIDTH, WIDTH)
    out, gradient = torch.empty(BATCH, WIDTH), torch.empty(WIDTH, WIDTH)

    def epochs() -> Iterator[None]:
        for _ in range(EPOCHS):
            for _ in range(-(-60_000 // BATCH)):
                for layer in range(depth):
                    torch.mm(batch, weight.T, out=out)
                    torch.mm(out.T, batch, out=gradient)
                    if layer:
                        torch.mm(out, weight, out=out.new_empty(BATCH, WIDTH))
            yield

    return {"epochs": timed(epochs()), "mse": None}


EPOCH: dict[str, Callable[[int, str], Times]] = {
    "floor": floor,
    "ours": ours,
    "ours-measured": partial(ours, measured=10_000),
    "ours-compiled": partial(ours, mode="compiled"),
    "tensor-loop": partial(torch_loop, loader=False),
    "dataloader": partial(torch_loop, loader=True),
    "keras-tensorflow": partial(keras, backend="tensorflow"),
    "keras-torch": partial(keras, backend="torch"),
}


# Many small networks ----------------------------------------------------------------------------------

STEPS, EXAMPLES, SMALL_BATCH = 500, 4096, 64


def networks(d: int, depth: int, replicas: int, threads: int = 1, steps: int = STEPS) -> Times:
    """Seconds of 500 RMSprop steps of one network of K, its making included; K = 0: one nn.Module at a time."""
    import torch

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as a worker has it
    torch.optim.SGD([torch.zeros(1)], lr=1)  # an optimizer's first use imports much of torch
    x = torch.rand(EXAMPLES, d)
    started = time.perf_counter()
    if replicas:
        _train(x, depth, replicas, steps)
    else:
        _train_module(x, depth, steps)
    return {"seconds": (time.perf_counter() - started) * STEPS / steps / max(replicas, 1)}


def _train(x: Any, depth: int, replicas: int, steps: int) -> None:
    from identity_props import Pixels, Recipe, Trial, Variant, train

    recipe = Recipe("torch.optim:RMSprop", 1e-3, batch_size=SMALL_BATCH)
    train(
        Trial(Variant("plain-relu", depth, "none"), recipe, steps),
        Pixels("drawn", x, x[:64]),
        range(replicas),
    )


def _train_module(x: Any, depth: int, steps: int) -> None:
    import torch
    from torch import nn
    from torch.nn.functional import mse_loss

    d = x.shape[1]
    network = nn.Sequential(*(part for _ in range(depth) for part in (nn.Linear(d, d), nn.ReLU())))
    optimizer = torch.optim.RMSprop(network.parameters(), lr=1e-3)
    for _ in range(steps):
        batch = x[torch.randint(len(x), (SMALL_BATCH,))]
        optimizer.zero_grad()
        mse_loss(network(batch), batch).backward()
        optimizer.step()


def products(d: int, depth: int, replicas: int, threads: int = 1) -> Times:
    """The same for the matrix products of K networks and nothing else."""
    import torch

    torch.set_num_threads(threads)
    x, w = torch.rand(replicas, SMALL_BATCH, d), torch.rand(replicas, d, d)

    def step() -> None:
        for layer in range(depth):
            torch.bmm(x, w.mT)
            torch.bmm(x.mT, x)
            if layer:
                torch.bmm(x, w)

    step()
    started = time.perf_counter()
    for _ in range(STEPS // 5):
        step()
    return {"seconds": (time.perf_counter() - started) * 5 / replicas}


def main(name: str, *arguments: str) -> None:
    """Print one line of JSON."""
    if name in ("networks", "products"):
        found = {"networks": networks, "products": products}[name](*map(int, arguments))
    else:
        found = EPOCH[name](int(arguments[0]), arguments[1])
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

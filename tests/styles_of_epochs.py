"""Trainers that differ in what they do from epoch to epoch, correct and faulty: seeds, orders, groups and scales."""

import numpy as np
import torch
from torch.nn.functional import mse_loss

from identity_props.trainers.protocol import NotOffered, Trained, weights_of


def trained(asked, order=None, groups=None, after=None, kept=lambda batches, asked: batches, penalty=None):
    """A plain loop: ``order`` gives an epoch's places, ``groups`` the optimizer's, ``after`` comes after each epoch."""
    network = asked.network()
    optimizer = torch.optim.SGD(groups(network) if groups else network.parameters(), lr=asked.lr)
    count, evaluated = len(asked.examples), None
    for epoch in range(asked.epochs):
        places = order(asked, epoch) if order else torch.arange(count)
        batches = kept(places.split(asked.batch_size), asked)
        size = asked.accumulate if penalty else 1
        for at in range(0, len(batches), size):
            window = batches[at : at + size]
            optimizer.zero_grad()
            for some in window:
                x = asked.examples[some]
                loss = mse_loss(network(x), x) * len(x) / sum(map(len, window))
                (loss + (penalty(network, asked) if penalty else 0)).backward()
            optimizer.step()
        evaluated = after(network, asked) if after else None
    return Trained(weights_of(network), evaluated=evaluated)


# Correct ------------------------------------------------------------------------------------------------


def thousands(asked):
    """Shuffles by seed + 1000 epoch."""
    draw = torch.Generator()
    return trained(
        asked,
        lambda asked, epoch: (
            torch.randperm(len(asked.examples), generator=draw.manual_seed(asked.seed + 1000 * epoch))
            if asked.shuffle
            else torch.arange(len(asked.examples))
        ),
    )


def high_scale(asked):
    """A loss scale that begins at 2^32, as Megatron's does, and comes down step by step."""
    if asked.precision == "bfloat16":
        raise NotOffered("precision")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**32, enabled=asked.precision == "float16")
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16, enabled=asked.precision == "float16"):
                loss = mse_loss(network(x), x)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
    return weights_of(network)


def by_all_gradients(asked):
    """Asks for the gradients of all parameters, and so refuses some that are frozen; it never said that it takes them."""
    network = asked.network()
    parameters = [*network.parameters()]
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            gradients = torch.autograd.grad(mse_loss(network(x), x), parameters)
            with torch.no_grad():
                for p, gradient in zip(parameters, gradients, strict=True):
                    p -= asked.lr * gradient
    return weights_of(network)


# Faulty -------------------------------------------------------------------------------------------------


def start_ignored(asked):
    """Its weights start at 0, whatever it is given."""
    network = asked.network()
    with torch.no_grad():
        for p in network.parameters():
            p.zero_()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
    return weights_of(network)


def turned_round(asked):
    """What it calls a shuffle begins the same order elsewhere."""
    draw = np.random.default_rng(asked.seed)

    def order(asked, epoch):
        places = np.arange(len(asked.examples))
        return torch.from_numpy(np.roll(places, draw.integers(1, len(places))) if asked.shuffle else places)

    return trained(asked, order)


def seeded_by_evaluating(asked):
    """Seeds the stream before each evaluation: all later epochs have one order."""
    torch.manual_seed(asked.seed)

    def evaluated(network, asked):
        if asked.held is None:
            return None
        torch.manual_seed(0)
        with torch.no_grad():
            return mse_loss(network(asked.held), asked.held).item()

    def order(asked, epoch):
        count = len(asked.examples)
        return torch.randperm(count) if asked.shuffle else torch.arange(count)

    return trained(asked, order, after=evaluated)


def drops_whole(asked):
    """Where a last batch is to be dropped it drops one, incomplete or not."""
    return trained(asked, kept=lambda batches, asked: batches[:-1] if asked.drop_last else batches)


def first_layers_momentum(asked):
    """The second layer's group has none."""

    def groups(network):
        first, *rest = network.parameters()
        return [{"params": [first], "momentum": asked.momentum}, *([{"params": rest}] if rest else [])]

    return trained(asked, groups=groups)


def decays_by_micro_batch(asked):
    """The penalty stands in the loss of each micro-batch, undivided."""

    def penalty(network, asked):
        return asked.decay / 2 * sum(p.square().sum() for p in network.parameters())

    return trained(asked, penalty=penalty)


CLEAN = (thousands, high_scale, by_all_gradients)
FAULTY = {
    start_ignored: "trajectory",
    turned_round: "order",
    seeded_by_evaluating: "evaluation",
    drops_whole: "drop-last",
    first_layers_momentum: "velocity",
    decays_by_micro_batch: "decay",
}

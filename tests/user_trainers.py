"""Correct trainers as users write them, each in a style of its own, offering what it offers: none may be accused."""

import random

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR, LinearLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, TensorDataset

from identity_props.trainers.protocol import NotOffered, Trained, weights_of


def minimal(asked):
    """The ten lines that anybody would write."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for x in DataLoader(asked.examples, batch_size=asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
    return weights_of(network)


def by_hand(asked):
    """In numpy alone, gradients by hand, one layer."""
    if len(asked.start) > 1:
        raise NotOffered("several layers")
    w, x = asked.start[0].numpy().copy(), asked.examples.numpy()
    v = np.zeros_like(w)
    for _ in range(asked.epochs):
        for at in range(0, len(x), asked.batch_size):
            batch = x[at : at + asked.batch_size]
            g = 2 / batch.size * (batch @ w.T - batch).T @ batch + asked.decay * w
            v = asked.momentum * v + g
            w -= asked.lr * v
    return w


def shuffling(asked):
    """A DataLoader that shuffles by a generator, or not; it counts its steps and its loss."""
    network = asked.network()
    drawn = torch.Generator().manual_seed(asked.seed)
    loader = DataLoader(
        TensorDataset(asked.examples),
        asked.batch_size,
        asked.shuffle,
        generator=drawn,
        drop_last=asked.drop_last,
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    total = asked.epochs * len(loader)
    linear = LambdaLR(optimizer, lambda k: 1 - k / total if asked.schedule == "linear" else 1.0)
    steps = 0
    for _ in range(asked.epochs):
        sums, seen = 0.0, 0
        for (x,) in loader:
            loss = mse_loss(network(x), x)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            linear.step()
            steps += 1
            sums, seen = sums + loss.item() * len(x), seen + len(x)
    return Trained(weights_of(network), steps, sums / seen)


def always_shuffling(asked):
    """One that shuffles whatever is asked, by torch's global generator, and offers no seed."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for (x,) in DataLoader(TensorDataset(asked.examples), asked.batch_size, shuffle=True):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
    return Trained(weights_of(network))


def accumulating(asked):
    """(loss / accumulate).backward(), and a step also at the end of an epoch; clipped; its steps as LinearLR's."""
    return _accumulating(asked, DataLoader(asked.examples, asked.batch_size))


def accumulating_shuffled(asked):
    """So, in an order of its own; and it reports its loss."""
    return _accumulating(asked, DataLoader(asked.examples, asked.batch_size, shuffle=True))


def _accumulating(asked, loader):
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, weight_decay=asked.decay)
    total = asked.epochs * -(-len(loader) // asked.accumulate)
    end = 0.0 if asked.schedule == "linear" else 1.0
    scheduler = LinearLR(optimizer, 1.0, end, total)
    for _ in range(asked.epochs):
        losses = []
        for number, x in enumerate(loader, 1):
            loss = mse_loss(network(x), x)
            losses.append(loss.item() * len(x))
            (loss / asked.accumulate).backward()
            if number % asked.accumulate == 0 or number == len(loader):
                if asked.clip is not None:
                    nn.utils.clip_grad_norm_(network.parameters(), asked.clip)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return Trained(weights_of(network), loss=sum(losses) / len(asked.examples))


def averaging(asked):
    """A moving average by swa_utils, and evaluation after each epoch."""
    network = asked.network()
    beta = 0.0 if asked.average is None else asked.average
    mean = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(beta))
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    evaluated = None
    for _ in range(asked.epochs):
        network.train()
        for x in DataLoader(asked.examples, asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            mean.update_parameters(network)
        if asked.held is not None:
            network.eval()
            with torch.no_grad():
                evaluated = mse_loss(network(asked.held), asked.held).item()
    averaged = weights_of(mean.module) if asked.average is not None else None
    return Trained(weights_of(network), evaluated=evaluated, averaged=averaged)


def resuming(asked):
    """Saves model, optimizer, schedule and random numbers at its stop, and draws each epoch's order from torch's."""
    torch.manual_seed(asked.seed)
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    n = len(asked.examples)
    total = asked.epochs * -(-n // asked.batch_size)
    schedule = LambdaLR(optimizer, lambda k: 1 - k / total if asked.schedule == "linear" else 1.0)
    file = asked.folder / "checkpoint.pt"
    done, order = 0, None
    if asked.resume:
        saved = torch.load(file)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        torch.set_rng_state(saved["random"])
        done, order = saved["done"], saved["order"]
    batches = -(-n // asked.batch_size)
    while done < total:
        if done % batches == 0:
            order = torch.randperm(n) if asked.shuffle else torch.arange(n)
        at = done % batches * asked.batch_size
        x = asked.examples[order[at : at + asked.batch_size]]
        optimizer.zero_grad()
        mse_loss(network(x), x).backward()
        optimizer.step()
        schedule.step()
        done += 1
        if asked.stop is not None and done >= asked.stop:
            kept = {"network": network, "optimizer": optimizer, "schedule": schedule}
            states = {name: one.state_dict() for name, one in kept.items()}
            torch.save({**states, "random": torch.get_rng_state(), "done": done, "order": order}, file)
            break
    return Trained([one.detach() for one in network.parameters()], steps=done)


def class_based(asked):
    """A class with hooks, in float32 whatever it is given, Python's random for its order, a dictionary of settings."""

    class Trainer:
        def __init__(self, settings):
            self.settings = settings
            self.network = asked.network().float()
            self.optimizer = torch.optim.SGD(self.network.parameters(), lr=settings["lr"], nesterov=False)
            self.random = random.Random(settings["seed"])

        def batches(self):
            places = list(range(len(asked.examples)))
            if self.settings["shuffle"]:
                self.random.shuffle(places)
            size = self.settings["batch_size"]
            yield from (places[at : at + size] for at in range(0, len(places), size))

        def training_step(self, x):
            return ((self.network(x) - x) ** 2).mean()

        def fit(self):
            for _ in range(self.settings["epochs"]):
                for places in self.batches():
                    self.network.zero_grad()
                    self.training_step(asked.examples[places].float()).backward()
                    self.optimizer.step()

    names = ("lr", "batch_size", "epochs", "shuffle", "seed")
    trainer = Trainer({name: getattr(asked, name) for name in names})
    trainer.fit()
    return [one.detach().double() for one in trainer.network.parameters()]


def single(asked):
    """Refuses float64, as an accelerator does that has none."""
    if asked.examples.dtype == torch.float64:
        raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
    return minimal(asked)


def functional(asked):
    """torch.func, no modules, several layers, momentum as dampened in nothing, a schedule written out."""
    layers = tuple(one.clone() for one in asked.start)
    velocity = [torch.zeros_like(one) for one in layers]
    batches = asked.examples.split(asked.batch_size)
    total, step = asked.epochs * len(batches), 0

    def loss(layers, x):
        out = x
        for layer in layers:
            out = out @ layer.T
        return (out - x).pow(2).mean()

    for _ in range(asked.epochs):
        for x in batches:
            rate = asked.lr * (1 - step / total) if asked.schedule == "linear" else asked.lr
            gradients = torch.func.grad(loss)(layers, x)
            velocity = [asked.momentum * v - rate * g for v, g in zip(velocity, gradients, strict=True)]
            layers = tuple(w + v for w, v in zip(layers, velocity, strict=True))
            step += 1
    return Trained(list(layers), step)


def masked_tokens(asked):
    """Sums over tokens that are not masked, padded with the label to ignore, one step a micro-batch."""
    if asked.tokens is None:
        return minimal(asked)
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    pad = nn.utils.rnn.pad_sequence
    sequences = list(zip(asked.tokens.ids, asked.tokens.labels, strict=True))
    for _ in range(asked.epochs):
        for at in range(0, len(sequences), asked.batch_size):
            ids, labels = zip(*sequences[at : at + asked.batch_size], strict=True)
            logits = network(pad(list(ids), batch_first=True))
            labels = pad(list(labels), batch_first=True, padding_value=-100)
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits.transpose(1, 2), labels).backward()
            optimizer.step()
    return weights_of(network)


def mixed(asked):
    """Autocast and a GradScaler, unscaled before it clips, one step a batch."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(asked.precision)
    scaler = torch.amp.GradScaler("cpu", enabled=half is torch.float16)
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            with torch.autocast("cpu", half, enabled=half is not None):
                loss = mse_loss(network(x), x)
            scaler.scale(loss).backward()
            if asked.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), asked.clip)
            scaler.step(optimizer)
            scaler.update()
    return weights_of(network)


def as_a_sampler(asked):
    """Draws each epoch's order from seed + epoch, as torch's DistributedSampler; keeps one network for all trainings."""
    new = asked.network()
    network = KEPT.setdefault(str(new), new).to(asked.examples.dtype)
    network.load_state_dict(new.state_dict())
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = -(-len(asked.examples) // asked.batch_size)
    step = 0
    for epoch in range(asked.epochs):
        order = torch.arange(len(asked.examples))
        if asked.shuffle:
            order = torch.randperm(len(order), generator=torch.Generator().manual_seed(asked.seed + epoch))
        for places in order.split(asked.batch_size):
            optimizer.param_groups[0]["lr"] = asked.lr
            if asked.schedule == "linear":
                optimizer.param_groups[0]["lr"] *= 1 - step / (asked.epochs * batches)
            optimizer.zero_grad()
            mse_loss(network(asked.examples[places]), asked.examples[places]).backward()
            optimizer.step()
            step += 1
    with torch.no_grad():
        loss = mse_loss(network(asked.examples), asked.examples)
    return Trained(list(network.parameters()), torch.tensor(step), loss)


KEPT = {}


def seedless(asked):
    """Shuffles where it is asked to, from torch's own random numbers, whatever the seed; float32 inside."""
    network = asked.network().float()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    loader = DataLoader(asked.examples.float(), asked.batch_size, shuffle=asked.shuffle)
    schedule = LambdaLR(
        optimizer, lambda k: 1 - k / (asked.epochs * len(loader)) if asked.schedule == "linear" else 1.0
    )
    for _ in range(asked.epochs):
        for x in loader:
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            schedule.step()
    return [one.detach().double().numpy() for one in network.parameters()]


def shuffling_in_float32(asked):
    """Of an order of its own, and of numbers of its own; it reports its loss, and averages."""
    network = asked.network().float()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        losses = []
        for x in DataLoader(asked.examples.float(), asked.batch_size, shuffle=True):
            optimizer.zero_grad()
            loss = mse_loss(network(x), x)
            loss.backward()
            optimizer.step()
            losses.append(loss.item() * len(x))
    return Trained(
        [one.detach().double() for one in network.parameters()], loss=sum(losses) / len(asked.examples)
    )


def language_alone(asked, group=None):
    """A language model's loop, which takes no examples: sums over a window's tokens, divided by their number."""
    if asked.tokens is None:
        raise NotOffered("examples")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    sequences = list(zip(asked.tokens.ids, asked.tokens.labels, strict=True))
    rows = sequences if group is None else group(sequences)
    size = asked.batch_size * asked.accumulate
    for _ in range(asked.epochs):
        for at in range(0, len(rows), size):
            window = rows[at : at + size]
            live = sum(int((labels != -100).sum()) for _, labels in window)
            for ids, labels in window:
                (nn.functional.cross_entropy(network(ids), labels, reduction="sum") / live).backward()
            optimizer.step()
            optimizer.zero_grad()
    return Trained(weights_of(network), -(-len(rows) // size) * asked.epochs)


def language_shuffled(asked):
    """So, in an order of its own, the same each time."""
    return language_alone(asked, lambda sequences: random.Random(5).sample(sequences, len(sequences)))


def language_packed(asked):
    """So, packed by length, the longest first, into the row with the least room left; no other row is as long."""

    def pack(sequences):
        rows = []
        for ids, labels in sorted(sequences, key=lambda one: -len(one[0])):
            free = [row for row in rows if len(row[0]) + len(ids) <= asked.packing]
            if free:
                row = max(free, key=lambda one: len(one[0]))
                row[:] = torch.cat([row[0], ids]), torch.cat([row[1], labels])
            else:
                rows.append([ids, labels])
        return rows

    return language_alone(asked, None if asked.packing is None else pack)


LANGUAGE = (language_alone, language_shuffled, language_packed)
CLEAN = (
    minimal,
    by_hand,
    shuffling,
    always_shuffling,
    accumulating,
    accumulating_shuffled,
    averaging,
    resuming,
    class_based,
    single,
    functional,
    masked_tokens,
    mixed,
    as_a_sampler,
    seedless,
    shuffling_in_float32,
)

"""More correct trainers, as users of today write them, and subtle faults in loops of that kind, each with its source."""

import copy
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn.functional import mse_loss
from torch.optim.lr_scheduler import LambdaLR, LinearLR, SequentialLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, TensorDataset

from identity_props.trainers.protocol import NotOffered, Trained, weights_of

HALF = {"bfloat16": torch.bfloat16, "float16": torch.float16}


# Correct ------------------------------------------------------------------------------------------------


def scaled(asked):
    """Accumulation under a GradScaler: divided by the window's own size, unscaled, clipped, stepped, updated."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    half = HALF.get(asked.precision)
    scaler = torch.amp.GradScaler("cpu", enabled=half is torch.float16)
    batches = asked.examples.split(asked.batch_size)
    for _ in range(asked.epochs):
        for at in range(0, len(batches), asked.accumulate):
            window = batches[at : at + asked.accumulate]
            for x in window:
                with torch.autocast("cpu", half, enabled=half is not None):
                    loss = mse_loss(network(x), x) / len(window)
                scaler.scale(loss).backward()
            if asked.clip is not None:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), asked.clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
    return weights_of(network)


class Ema:
    """A shadow of the weights, put in for evaluation and taken out again."""

    def __init__(self, network, decay):
        self.network, self.decay = network, decay
        self.shadow = copy.deepcopy(network.state_dict())

    def update(self):
        for name, value in self.network.state_dict().items():
            self.shadow[name] = self.decay * self.shadow[name] + (1 - self.decay) * value

    def evaluate(self, held):
        kept = copy.deepcopy(self.network.state_dict())
        self.network.load_state_dict(self.shadow)
        with torch.no_grad():
            loss = mse_loss(self.network(held), held).item()
        self.network.load_state_dict(kept)
        return loss


def shadowed(asked):
    """An average by hand; what it evaluates is the average where one is asked for, else the weights."""
    network = asked.network()
    ema = Ema(network, asked.average or 0.0)
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    evaluated = None
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            ema.update()
        if asked.held is not None:
            evaluated = ema.evaluate(asked.held)
    averaged = None if asked.average is None else list(ema.shadow.values())
    return Trained(weights_of(network), evaluated=evaluated, averaged=averaged)


def stochastic_averages(asked):
    """SWA over the last half of the epochs, beside the weights: it reports an average that nobody asked for."""
    network = asked.network()
    swa = AveragedModel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, weight_decay=asked.decay)
    for epoch in range(asked.epochs):
        for x in DataLoader(asked.examples, asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
        if epoch >= asked.epochs // 2:
            swa.update_parameters(network)
    return Trained(weights_of(network), averaged=weights_of(swa.module))


def warmed_up(asked):
    """A warm-up of no steps, then a linear decay, one after the other; SequentialLR steps each batch."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    total = asked.epochs * len(batches)
    last = LinearLR(optimizer, 1.0, 0.0 if asked.schedule == "linear" else 1.0, total)
    schedule = SequentialLR(optimizer, [LambdaLR(optimizer, lambda _: 1.0), last], milestones=[0])
    for x in [*batches] * asked.epochs:
        optimizer.zero_grad(set_to_none=False)
        mse_loss(network(x), x).backward()
        optimizer.step()
        schedule.step()
    return weights_of(network)


def grouped(asked):
    """Two groups, matrices with decay and others without, the last layer first, under one schedule."""
    network = asked.network()
    parameters = [p for p in network.parameters() if p.requires_grad][::-1]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": asked.decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(
        [one for one in groups if one["params"]], lr=asked.lr, momentum=asked.momentum
    )
    batches = asked.examples.split(asked.batch_size)
    total = asked.epochs * len(batches)
    for step, x in enumerate([*batches] * asked.epochs):
        for group in optimizer.param_groups:
            group["lr"] = asked.lr * (1 - step / total) if asked.schedule == "linear" else asked.lr
        optimizer.zero_grad()
        mse_loss(network(x), x).backward()
        optimizer.step()
    return Trained(weights_of(network), total)


def by_value(asked):
    """Clips by value, and so offers no clipping by the norm."""
    if asked.clip is not None:
        raise NotOffered("clip")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            nn.utils.clip_grad_value_(network.parameters(), 1e3)
            optimizer.step()
    return weights_of(network)


def by_hand_clipped(asked):
    """The norm by hand, over all parameters, the way that many papers' code has it."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            if asked.clip is not None:
                norm = sum(p.grad.square().sum() for p in network.parameters()).sqrt()
                for p in network.parameters():
                    p.grad *= min(1.0, asked.clip / (norm.item() + 1e-6))
            optimizer.step()
    return weights_of(network)


def each_epoch_saved(asked):
    """A checkpoint at each epoch's end, of numpy's random numbers too; it stops there alone."""
    batches = -(-len(asked.examples) // asked.batch_size)
    if asked.stop is not None and asked.stop % batches:
        raise NotOffered("stop")
    drawn = np.random.default_rng(asked.seed)
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    file, begun = asked.folder / "last.pt", 0
    if asked.resume:
        saved = torch.load(file, weights_only=False)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        drawn.bit_generator.state, begun = saved["drawn"], saved["epoch"] + 1
    for epoch in range(begun, asked.epochs):
        order = drawn.permutation(len(asked.examples)) if asked.shuffle else np.arange(len(asked.examples))
        for at in range(0, len(order), asked.batch_size):
            x = asked.examples[torch.from_numpy(order[at : at + asked.batch_size])]
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
        states = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**states, "drawn": drawn.bit_generator.state, "epoch": epoch}, file)
        if asked.stop == (epoch + 1) * batches:
            break
    return weights_of(network)


class Stream(IterableDataset):
    """Examples one after the other."""

    def __init__(self, examples):
        self.examples = examples

    def __iter__(self):
        return iter(self.examples)


def streamed(asked):
    """An IterableDataset, which has no length, and cannot be shuffled."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    taken = 0
    for _ in range(asked.epochs):
        for x in DataLoader(Stream(asked.examples), asked.batch_size, drop_last=asked.drop_last):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            taken += 1
    return Trained(weights_of(network), taken)


def half_throughout(asked):
    """Autocast in bfloat16 where it is asked for, a sampler of its own, a loss weighted by batch."""
    if asked.precision == "float16":
        raise NotOffered("precision")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    data = TensorDataset(asked.examples)
    drawn = torch.Generator().manual_seed(asked.seed)
    sampler = RandomSampler(data, generator=drawn) if asked.shuffle else None
    loss = None
    for _ in range(asked.epochs):
        total = seen = 0
        for (x,) in DataLoader(data, asked.batch_size, sampler=sampler):
            with torch.autocast("cpu", torch.bfloat16, enabled=asked.precision == "bfloat16"):
                out = network(x)
            one = mse_loss(out.to(x.dtype), x)
            optimizer.zero_grad()
            one.backward()
            optimizer.step()
            total, seen = total + one.item() * len(x), seen + len(x)
        loss = total / seen
    return Trained(weights_of(network), loss=loss)


def worked(asked, workers=2):
    """A DataLoader with two workers, kept over epochs."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    loader = DataLoader(
        TensorDataset(asked.examples), asked.batch_size, num_workers=workers, persistent_workers=workers > 0
    )
    for _ in range(asked.epochs):
        for (x,) in loader:
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
    return weights_of(network)


def closed(asked):
    """A closure, as L-BFGS takes one; the schedule is set in the optimizer's hook before a step."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr, momentum=asked.momentum)
    batches = asked.examples.split(asked.batch_size)
    total, step = asked.epochs * len(batches), 0

    def rate(*_):
        factor = 1 - step / total if asked.schedule == "linear" else 1.0
        optimizer.param_groups[0]["lr"] = asked.lr * factor

    optimizer.register_step_pre_hook(rate)

    def closure(x):
        optimizer.zero_grad()
        loss = mse_loss(network(x), x)
        loss.backward()
        return loss

    for x in [*batches] * asked.epochs:
        optimizer.step(partial(closure, x))
        step += 1
    return Trained(weights_of(network), step)


def weighted_last(asked):
    """A sum of squares over the batch size that was asked for: a short last batch counts for as much less."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    total = 0.0
    for _ in range(asked.epochs):
        total = 0.0
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            squares = (network(x) - x).square().mean(1).sum()
            (squares / asked.batch_size).backward()
            optimizer.step()
            total += squares.item()
    return Trained(weights_of(network), loss=total / len(asked.examples))


def endless(asked):
    """Batches without end, whose windows run on over epochs; the last one ends with the training."""
    if asked.shuffle or asked.ranks > 1:
        raise NotOffered("shuffle")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = [*asked.examples.split(asked.batch_size)] * asked.epochs
    for at in range(0, len(batches), asked.accumulate):
        window = batches[at : at + asked.accumulate]
        for x in window:
            (mse_loss(network(x), x) * len(x) / sum(map(len, window))).backward()
        optimizer.step()
        optimizer.zero_grad()
    return weights_of(network)


def ramped(asked):
    """An average whose decay rises to what is asked for, as TensorFlow's with a number of updates."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    shadow = [p.detach().clone() for p in network.parameters()]
    steps = 0
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            steps += 1
            beta = min(asked.average or 0.0, (1 + steps) / (10 + steps))
            for kept, p in zip(shadow, network.parameters(), strict=True):
                kept.lerp_(p.detach(), 1 - beta)
    return Trained(weights_of(network), averaged=shadow)


CLEAN = (
    endless,
    ramped,
    scaled,
    weighted_last,
    shadowed,
    stochastic_averages,
    warmed_up,
    grouped,
    by_value,
    by_hand_clipped,
    each_epoch_saved,
    streamed,
    half_throughout,
    partial(worked, workers=0),
    closed,
)


# Faulty -------------------------------------------------------------------------------------------------


def loop(asked, before=None, each=None, after=None, half=False):
    """A loop that offers accumulation, clipping, momentum, decay and a schedule, with a place for a fault."""
    network = asked.network()
    optimizer = torch.optim.SGD(
        network.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
    )
    batches = asked.examples.split(asked.batch_size)
    windows = [batches[at : at + asked.accumulate] for at in range(0, len(batches), asked.accumulate)]
    total, step = asked.epochs * len(windows), 0
    for epoch in range(asked.epochs):
        if before:
            optimizer = before(asked, network, optimizer, epoch) or optimizer
        for window in windows:
            optimizer.param_groups[0]["lr"] = asked.lr * (
                1 - step / total if asked.schedule == "linear" else 1
            )
            for x in window:
                (mse_loss(network(x), x) / len(window)).backward()
                if each:
                    each(asked, network, optimizer)
            if asked.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), asked.clip)
            optimizer.step()
            if after:
                after(asked, network, optimizer)
            optimizer.zero_grad()
            step += 1
    return Trained(weights_of(network), step)


def new_optimizer(asked, network, optimizer, epoch):
    """The optimizer is made anew each epoch, and its momentum is lost."""
    return torch.optim.SGD(
        network.parameters(), lr=asked.lr, momentum=asked.momentum, weight_decay=asked.decay
    )


def decayed_each(asked, network, optimizer):
    """Decay is taken once more, by hand."""
    with torch.no_grad():
        for p in network.parameters():
            p.mul_(1 - asked.lr * asked.decay)


def zeroed_early(asked, network, optimizer):
    """Gradients are rounded to bfloat16 as they are added, whatever the precision."""
    for p in network.parameters():
        p.grad = p.grad.bfloat16().to(p.dtype)


def nesterov(asked):
    """Nesterov's look-ahead, where momentum is asked for."""
    given = {"momentum": asked.momentum, "nesterov": asked.momentum > 0}
    return loop(
        asked, lambda a, n, o, e: torch.optim.SGD(n.parameters(), lr=a.lr, **given) if e == 0 else None
    )


def last_layer_alone(asked):
    """The optimizer holds the last layer's parameters alone."""

    def last(asked, network, optimizer, epoch):
        return (
            torch.optim.SGD(network[-1].parameters(), lr=asked.lr, momentum=asked.momentum)
            if epoch == 0
            else None
        )

    return loop(asked, last)


def clipped_before_division(asked):
    """A window's gradients are clipped while they are added, and divided after."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    for _ in range(asked.epochs):
        for at in range(0, len(batches), asked.accumulate):
            window = batches[at : at + asked.accumulate]
            for x in window:
                mse_loss(network(x), x).backward()
            if asked.clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), asked.clip)
            for p in network.parameters():
                p.grad /= len(window)
            optimizer.step()
            optimizer.zero_grad()
    return weights_of(network)


def evaluated_short(asked):
    """Evaluation drops the last, incomplete batch."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    evaluated = None
    for _ in range(asked.epochs):
        for x in asked.examples.split(asked.batch_size):
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
        if asked.held is not None:
            whole = asked.held[: len(asked.held) // asked.batch_size * asked.batch_size]
            evaluated = mse_loss(network(whole), whole).item()
    return Trained(weights_of(network), evaluated=evaluated)


def batches_shuffled(asked):
    """Batches are cut once, and shuffled as they are: no fault, but a rule that is to be known."""
    network = asked.network()
    drawn = torch.Generator().manual_seed(asked.seed)
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    total, step = asked.epochs * len(batches), 0
    for _ in range(asked.epochs):
        order = torch.randperm(len(batches), generator=drawn) if asked.shuffle else torch.arange(len(batches))
        for x in (batches[place] for place in order):
            optimizer.param_groups[0]["lr"] = asked.lr * (
                1 - step / total if asked.schedule == "linear" else 1
            )
            optimizer.zero_grad()
            mse_loss(network(x), x).backward()
            optimizer.step()
            step += 1
    return weights_of(network)


def every_other_order(asked):
    """Seeded by half of the epoch's number: two epochs have one order."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    size, n = asked.batch_size, len(asked.examples)
    total, step = asked.epochs * -(-n // size), 0
    for epoch in range(asked.epochs):
        drawn = torch.Generator().manual_seed(asked.seed + epoch // 2)
        order = torch.randperm(n, generator=drawn) if asked.shuffle else torch.arange(n)
        for places in order.split(size):
            optimizer.param_groups[0]["lr"] = asked.lr * (
                1 - step / total if asked.schedule == "linear" else 1
            )
            optimizer.zero_grad()
            mse_loss(network(asked.examples[places]), asked.examples[places]).backward()
            optimizer.step()
            step += 1
    return weights_of(network)


def floored_total(asked):
    """The schedule's length is epochs times whole windows: an incomplete one comes after its end."""
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    windows = [batches[at : at + asked.accumulate] for at in range(0, len(batches), asked.accumulate)]
    total = max(1, asked.epochs * (len(batches) // asked.accumulate))
    for step, window in enumerate(windows * asked.epochs):
        factor = max(0.0, 1 - step / total) if asked.schedule == "linear" else 1.0
        optimizer.param_groups[0]["lr"] = asked.lr * factor
        optimizer.zero_grad()
        for x in window:
            (mse_loss(network(x), x) / len(window)).backward()
        optimizer.step()
    return weights_of(network)


def rate_of_first_group(asked):
    """The schedule sets the rate of the first group alone."""
    network = asked.network()
    optimizer = torch.optim.SGD([{"params": [p]} for p in network.parameters()], lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    total = asked.epochs * len(batches)
    for step, x in enumerate([*batches] * asked.epochs):
        optimizer.param_groups[0]["lr"] = asked.lr * (1 - step / total if asked.schedule == "linear" else 1)
        optimizer.zero_grad()
        mse_loss(network(x), x).backward()
        optimizer.step()
    return weights_of(network)


def stepped_each_in_half(asked):
    """In mixed precision the loss of a micro-batch is not divided, as it is in full precision."""
    half = HALF.get(asked.precision)
    if asked.precision == "float16":
        raise NotOffered("precision")
    network = asked.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=asked.lr)
    batches = asked.examples.split(asked.batch_size)
    for _ in range(asked.epochs):
        for at in range(0, len(batches), asked.accumulate):
            window = batches[at : at + asked.accumulate]
            for x in window:
                with torch.autocast("cpu", half, enabled=half is not None):
                    loss = mse_loss(network(x), x)
                (loss if half else loss / len(window)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return weights_of(network)


FAULTY = {  # with the law that sees it
    partial(loop, before=new_optimizer): "velocity",
    partial(loop, after=decayed_each): "decay",
    partial(loop, each=zeroed_early): "trajectory",
    last_layer_alone: "trajectory",
    clipped_before_division: "clip",
    evaluated_short: "evaluation-loss",
    every_other_order: "order",
    floored_total: "schedule",
    rate_of_first_group: "schedule",
    stepped_each_in_half: "bfloat16",
}

"""Clean training loops, written otherwise than Plain: what no law may accuse, and rules that are in use as well."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LinearLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from identity_props.faults.base import TrainerTwin
from identity_props.faults.trainer_data import OneStream
from identity_props.trainers.bench import in_dtype
from identity_props.trainers.plain import Places, Plain
from identity_props.trainers.protocol import Asked, weights_of

# Written otherwise --------------------------------------------------------------------------------


class Criterion(Plain):
    """The loss of a micro-batch is torch's mean, weighted by its share of the window."""

    def loss(self, batch: Places) -> Tensor:
        if self.asked.tokens is not None:
            return self.token_loss(batch)
        criterion = nn.MSELoss(reduction="mean")
        return criterion(self.network(self.asked.examples[batch]), self.target(batch)) * len(batch)


class Single(Plain):
    """All is computed in float32, whatever is given."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(in_dtype(asked, torch.float32))


class Foreach(Plain):
    """The optimizer moves all layers at once, and sets gradients to 0 instead of None."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.optimizer.param_groups[0]["foreach"] = True

    def zero(self) -> None:
        self.optimizer.zero_grad(set_to_none=False)


class Loaded(Plain):
    """Micro-batches come from torch's loader, which draws from the global random state."""

    def micro_batches(self, epoch: int) -> list[Places]:
        size, drop = self.asked.batch_size * self.asked.ranks, self.asked.drop_last
        places: Any = self.order(epoch)
        return [*DataLoader(places, batch_size=size, drop_last=drop, collate_fn=list)]


class Blocks(Plain):
    """Each rank takes a run of a micro-batch."""

    def share(self, batch: Places) -> Places:
        rank = super().share([*range(self.asked.ranks)])[0]
        return torch.tensor(batch).tensor_split(self.asked.ranks)[rank].tolist()


class Wrapped(Plain):
    """Ranks are kept together by torch's wrapper, which reduces the last micro-batch of a window with the others."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        if asked.ranks > 1:
            self.network = DistributedDataParallel(self.network)

    def divisor(self, window: list[Places]) -> float:
        return super().divisor(window) / self.asked.ranks  # the wrapper takes the mean over ranks

    def nothing(self) -> Tensor:
        return self.network(self.data[0][None][:0]).sum()  # the wrapper waits for each rank's forward

    def backward(self, batch: Places, window: list[Places]) -> None:
        if isinstance(self.network, DistributedDataParallel) and batch is not window[-1]:
            with self.network.no_sync():
                super().backward(batch, window)
        else:
            super().backward(batch, window)

    def reduce(self) -> None:
        pass


class OwnRate(Plain):
    """The rate falls by torch's LinearLR, from each step to the next."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        if asked.schedule == "linear":
            self.scheduler: Any = LinearLR(self.optimizer, 1.0, 0.0, self.total_steps)


class ClippedExactly(Plain):
    """The norm of the gradient is taken as it is, without 1e-6."""

    def clip(self) -> None:
        if self.asked.clip is not None:
            self.scaler.unscale_(self.optimizer)
            gradients = [p.grad for p in self.trainable() if p.grad is not None]
            norm = torch.stack([g.norm() for g in gradients]).norm()
            for g in gradients:
                g.mul_((self.asked.clip / norm).clamp_max(1.0))


class AveragedByTorch(Plain):
    """Weights are averaged by torch's AveragedModel, which is given those of the start first."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        mean = get_ema_multi_avg_fn(asked.average or 0.0)
        self.model = AveragedModel(self.network, multi_avg_fn=mean)
        self.begin_average()

    def begin_average(self) -> None:
        """The first update is a copy."""
        self.model.update_parameters(self.network)

    def average(self) -> None:
        if self.asked.average is not None:
            self.model.update_parameters(self.network)
            self.averaged = weights_of(self.model.module)

    def state(self) -> dict[str, Any]:
        return super().state() | {"model": self.model.state_dict()}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.model.load_state_dict(saved["model"])


class SmallScale(Plain):
    """The loss scale begins at 2^8 and never grows."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        on = asked.precision == "float16"
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**8, growth_interval=2**30, enabled=on)


class EvaluatedOften(Plain):
    """The held examples are evaluated on after each step too."""

    def count(self) -> None:
        super().count()
        self.evaluate()


# Other rules that are in use ----------------------------------------------------------------------


class Means(Plain):
    """A step takes the mean of its micro-batches' means."""

    def parts(self, window: list[Places]) -> int:
        """Number of micro-batches that a window is divided by."""
        return len(window)

    def backward(self, batch: Places, window: list[Places]) -> None:
        self.mean = self.counted(batch) * self.parts(window)
        super().backward(batch, window)

    def divisor(self, window: list[Places]) -> float:
        return super().divisor(window) if self.asked.tokens is not None else max(1, self.mean)


class Fixed(Means):
    """A step takes the sum of its micro-batches' means, divided by the number of them that was asked for."""

    def parts(self, window: list[Places]) -> int:
        return self.asked.accumulate


class Carried(Plain):
    """Windows go on from an epoch into the next; the last one, where it is incomplete, is not stepped on."""

    def steps_of(self) -> Any:
        read = [(epoch, batch) for epoch in range(self.asked.epochs) for batch in self.micro_batches(epoch)]
        size = self.asked.accumulate
        for at in range(0, len(read), size):
            window = [batch for _, batch in read[at : at + size]]
            for epoch, batch in read[at : at + size]:
                yield epoch, batch, window, batch is window[-1] and len(window) == size

    @property
    def total_steps(self) -> int:
        return self.asked.epochs * len(self.micro_batches(0)) // self.asked.accumulate


class KerasVelocity(Plain):
    """The velocity holds the rates of its steps: v = m v - rate g, w = w + v."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.before = self.rate()

    def rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def step(self) -> bool:
        rate, state = self.rate(), self.optimizer.state
        for p in self.trainable():
            if state[p].get("momentum_buffer") is not None:
                state[p]["momentum_buffer"] *= self.before / rate  # torch multiplies all of it by this step's
        self.before = rate
        return super().step()

    def state(self) -> dict[str, Any]:
        return super().state() | {"before": self.before}

    def restore(self, saved: dict[str, Any]) -> None:
        super().restore(saved)
        self.before = saved["before"]


class Decoupled(Plain):
    """Weights are multiplied by 1 - rate decay, and their gradient stays as it is."""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.optimizer.param_groups[0]["weight_decay"] = 0.0

    @torch.no_grad()
    def step(self) -> bool:
        shrunk = 1 - self.optimizer.param_groups[0]["lr"] * self.asked.decay
        for p in self.trainable():
            p.mul_(shrunk)
        return super().step()


class IndependentDecay(Decoupled):
    """So, by the rate of the first step throughout."""

    @torch.no_grad()
    def step(self) -> bool:
        for p in self.trainable():
            p.mul_((1 - self.asked.lr * self.asked.decay) / (1 - self.rate() * self.asked.decay))
        return super().step()

    def rate(self) -> float:
        """Of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])


class AveragedFromFirst(AveragedByTorch):
    """The average begins with the weights after the first step, as torch's AveragedModel does by itself."""

    def begin_average(self) -> None:
        pass


class Padded(Plain):
    """The first examples of an epoch come again, so that each rank has as many, as with torch's sampler."""

    def order(self, epoch: int) -> Places:
        order = super().order(epoch)
        return order + order[: -len(order) % self.asked.ranks]


TWINS = (
    TrainerTwin("plain", Plain),
    TrainerTwin("criterion", Criterion),
    TrainerTwin("float32", Single),
    TrainerTwin("foreach", Foreach),
    TrainerTwin("loader", Loaded),
    TrainerTwin("one-stream", OneStream),
    TrainerTwin("blocks", Blocks),
    TrainerTwin("wrapped", Wrapped),
    TrainerTwin("own-rate", OwnRate),
    TrainerTwin("clipped-exactly", ClippedExactly),
    TrainerTwin("averaged-by-torch", AveragedByTorch),
    TrainerTwin("small-scale", SmallScale),
    TrainerTwin("evaluated-often", EvaluatedOften),
    TrainerTwin("means", Means, ("means",)),
    TrainerTwin("fixed", Fixed, ("means", "fixed")),
    TrainerTwin("carried", Carried, ("carried",)),
    TrainerTwin("keras-velocity", KerasVelocity, ("keras",)),
    TrainerTwin("decoupled", Decoupled, ("decoupled",)),
    TrainerTwin("decay-independent", IndependentDecay, ("decoupled", "independent")),
    TrainerTwin("averaged-from-first", AveragedFromFirst, ("first",)),
    TrainerTwin("padded", Padded, ("padded",)),
)

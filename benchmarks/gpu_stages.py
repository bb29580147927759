"""What is measured on a GPU, stage by stage; gpu.py runs them."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # the package of this checkout, installed or not

import torch
from torch import Tensor, nn

from identity_props.claims.base import MNIST_VARIANCE
from identity_props.claims.registry import CLAIMS, SEED_STEPS, rmsprop
from identity_props.claims.running import judge_all
from identity_props.claims.verdict import judge
from identity_props.conformance.checking import planned
from identity_props.conformance.following import followed
from identity_props.conformance.learning import LEARNS
from identity_props.conformance.rows import OTHERS, Reference
from identity_props.engine.probe import ensemble_for, optimizer_for
from identity_props.engine.training import train
from identity_props.engine.trial import Run, Trial
from identity_props.laws import LAWS
from identity_props.stack.stack import Stack, resolve
from identity_props.task.data import Pixels, digits, mnist
from identity_props.task.models import Variant

PUBLISHED = {1: 167.95, 4: 523.72}  # the question's test MSEs, by depth
REPLICAS, AT_ONCE, PROBED = 1024, 64, 20  # networks in all and a pass; steps by which a pass is foreseen
WARM, SECONDS = 3, 0.3  # calls before a measurement, and how long it goes on
Result = dict[str, Any]


class LateError(Exception):
    """The time is up."""


@dataclass(frozen=True)
class Setting:
    """Where and on what is measured, and until when, in seconds of ``time.monotonic``."""

    device: str
    tiny: bool
    data: Path | None
    ends: float

    @cached_property
    def pixels(self) -> Pixels:
        """MNIST at 28 pixels a side, or few and small digits."""
        return self.small if self.tiny else mnist(28, self.data)

    @cached_property
    def small(self) -> Pixels:
        """Digits of 49 pixels."""
        return digits(7, 256, 64) if self.tiny else digits(7)

    def alive(self, step: int = 0) -> None:
        """Raise LateError once the time is up."""
        if time.monotonic() > self.ends:
            raise LateError


@dataclass(frozen=True)
class Item:
    """One measurement by name; ``seconds`` that it will take, as far as that is known."""

    name: str
    measure: Callable[[], Result]
    seconds: float = 0.0


def synchronised(device: str) -> float:
    """The time once the device has done what it was told."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def seconds_of(call: Callable[[], Any], device: str, at_least: float = SECONDS) -> float:
    """Seconds of a call, the mean of as many as take so long."""
    for _ in range(WARM):
        call()
    started, calls = synchronised(device), 0
    while True:
        call()
        calls += 1
        if (now := synchronised(device)) - started >= at_least:
            return (now - started) / calls


# Laws ---------------------------------------------------------------------------------------------------


def scaled_float16(optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """A step in float16 under autocast, its loss scaled by a GradScaler."""
    device = optimizer.param_groups[0]["params"][0].device.type
    scaler = torch.amp.GradScaler(device, init_scale=2.0**8)
    optimizer.zero_grad()
    with torch.autocast(device, torch.float16):
        value = loss()
    scaler.scale(value).backward()
    scaler.step(optimizer)
    scaler.update()


class ChannelsLast(nn.Linear):
    """A linear layer as a convolution of 1 x 1 over examples [1, d, n, 1] in channels-last."""

    def forward(self, x: Tensor) -> Tensor:
        images = x.mT[None, :, :, None].to(memory_format=torch.channels_last)
        weight = self.weight[:, :, None, None].contiguous(memory_format=torch.channels_last)
        out: Tensor = nn.functional.conv2d(images, weight, self.bias)
        return out[0, :, :, 0].mT


def rows_of(setting: Setting, stack: Stack, like: Reference, kinds: tuple[str, ...] = ()) -> Result:
    """What ``check`` says of a stack but for learning; of laws, those of these kinds, or all."""
    wanted = {*OTHERS, *(law.name for law in LAWS.values() if not kinds or law.kind in kinds)} - {LEARNS}
    plan = [(name, row) for name, row in planned(stack, like, 0) if name in wanted]
    found: list[list[Any]] = []
    for row in followed(plan[:5] if setting.tiny else plan, 60.0):
        setting.alive()
        found.append([row.name, row.verdict, row.measured, row.allowed, row.kind, row.note])
    verdicts = [verdict for _, verdict, *_ in found]
    return {"counts": {one: verdicts.count(one) for one in dict.fromkeys(verdicts)}, "rows": found}


# kinds of laws whose numbers a device may change
NUMERIC = ("wrong step", "rate", "floor", "wrong gradient", "wrong output", "wrong loss")
OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Adam": ("Adam", {}),
    "Adam capturable": ("Adam", {"capturable": True}),
    "Adam foreach": ("Adam", {"foreach": True}),
    "SGD foreach": ("SGD", {"foreach": True}),
    "RMSprop capturable": ("RMSprop", {"capturable": True}),
}


def laws(setting: Setting) -> Iterator[Item]:
    """Laws on the device: the default layer, its products in TF32, bfloat16, float16 scaled, and optimizers."""

    def layer(tf32: bool, dtype: torch.dtype = torch.float32) -> Result:
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, tf32
        try:
            return rows_of(setting, Stack(device=setting.device, dtype=dtype), Reference(), NUMERIC)
        finally:
            matmul.allow_tf32 = before

    def optimizer(name: str, arguments: dict[str, Any]) -> Result:
        made = resolve(f"torch.optim:{name}")
        stack = Stack(optimizer=made, arguments=arguments, device=setting.device)
        return rows_of(setting, stack, Reference(optimizer=made), (*NUMERIC, "contract"))

    yield Item("layer, TF32 off", lambda: layer(False))
    yield Item("layer, TF32 on", lambda: layer(True))
    yield Item("layer, bfloat16", lambda: layer(False, torch.bfloat16))
    for name, (made, arguments) in OPTIMIZERS.items():
        yield Item(name, lambda made=made, arguments=arguments: optimizer(made, arguments))
    yield Item(
        "float16 with GradScaler", lambda: learned(setting, Stack(device=setting.device, step=scaled_float16))
    )
    yield Item("float32 beside it", lambda: learned(setting, Stack(device=setting.device)))


def learned(setting: Setting, stack: Stack) -> Result:
    """The FVU [K] at the end of four linear layers, an Adam whose rate decays."""
    (trial,) = CLAIMS["linear-4"].plan(setting.small)
    trial = replace(trial, steps=2 if setting.tiny else 1000)
    return {"fvu": train(trial, setting.small, range(4), stack, setting.alive).fvu[:, -1].tolist()}


# Claims ---------------------------------------------------------------------------------------------------


def claims(setting: Setting) -> Iterator[Item]:
    """Each claim on 49 pixels here, the shortest first, beside those of the CPU."""
    pixels = setting.small
    fit = [claim for claim in CLAIMS.values() if not claim.slow and claim.applies(pixels)]
    fit.sort(key=lambda claim: sum(trial.steps * trial.variant.depth for trial in claim.plan(pixels)))
    fit = fit[:1] if setting.tiny else fit

    def on_cpu() -> Result:
        return {one.claim.name: [one.verdict, statistics.median(one.fvu)] for one in judge_all(fit, pixels)}

    def here(claim: Any) -> Result:
        stack, started = Stack(device=setting.device), time.perf_counter()

        def trained(trials: Any, seeds: Any) -> list[Run]:
            return [train(trial, pixels, seeds, stack, setting.alive) for trial in trials]

        outcome = judge(claim, pixels, trained)
        seconds = time.perf_counter() - started
        return {"verdict": outcome.verdict, "fvu": statistics.median(outcome.fvu), "seconds": seconds}

    yield Item("cpu", on_cpu)
    for claim in fit:
        yield Item(claim.name, lambda claim=claim: here(claim))


# The question's networks ------------------------------------------------------------------------------


def question(depth: int, tiny: bool) -> Trial:
    """The question's network: ReLU layers on raw pixels under RMSprop, 20 epochs."""
    return Trial(Variant("plain-relu", depth, "none"), rmsprop(784, "constant"), 3 if tiny else SEED_STEPS)


def replicas(depth: int, setting: Setting) -> Iterator[Item]:
    """The final test MSE of as many networks as fit into the time, a pass at a time."""
    pixels, trial = setting.pixels, question(depth, setting.tiny)
    at_once, total = (2, 4) if setting.tiny else (AT_ONCE, REPLICAS)
    foreseen = 0.0

    def ends(first: int) -> Result:
        seeds, started = range(first, first + at_once), synchronised(setting.device)
        run = train(trial, pixels, seeds, Stack(device=setting.device), setting.alive)
        variance = 1.0 if setting.tiny else MNIST_VARIANCE
        return {
            "mse": (run.fvu_pixels * variance).tolist(),
            "seconds": synchronised(setting.device) - started,
        }

    def probe() -> Result:
        nonlocal foreseen
        call = step_of(replace(trial, steps=PROBED), pixels, at_once, setting.device)
        each = seconds_of(call, setting.device)
        foreseen = 1.1 * each * trial.steps
        return {"seconds_a_step": each, "networks": at_once, "foreseen_a_pass": foreseen}

    if not setting.tiny:
        yield Item("probe", probe)
    for first in range(0, total, at_once):
        yield Item(f"seeds {first} to {first + at_once - 1}", lambda first=first: ends(first), foreseen)


def step_of(trial: Trial, pixels: Pixels, networks: int, device: str) -> Callable[[], None]:
    """A step of so many networks, again and again."""
    stack = Stack(device=device)
    ensemble = ensemble_for(trial, pixels.d, stack, range(networks), alone=networks == 1)
    optimizer, _ = optimizer_for(trial, ensemble.parameters, stack)
    data = pixels.scaled(trial.variant.scaling).train.to(device, stack.dtype)
    batches = stack.batches(data, trial.recipe.batch_size, ensemble.generators)
    return lambda: ensemble.step(optimizer, next(batches))


# Speed ----------------------------------------------------------------------------------------------------


def peak(setting: Setting) -> Iterator[Item]:
    """Products of large matrices, then how near a step of the question's network comes, and the CPU's time."""
    size, at_once = (32, 2) if setting.tiny else (8192, AT_ONCE)

    def products(dtype: torch.dtype, tf32: bool) -> Result:
        matmul = torch.backends.cuda.matmul
        before, matmul.allow_tf32 = matmul.allow_tf32, tf32
        try:
            a, b = torch.randn(2, size, size, device=setting.device, dtype=dtype)
            return {"teraflops": 2 * size**3 / seconds_of(lambda: a @ b, setting.device) / 1e12}
        finally:
            matmul.allow_tf32 = before

    def step(depth: int, networks: int, device: str) -> Result:
        pixels, trial = setting.pixels, question(depth, setting.tiny)
        seconds = seconds_of(step_of(trial, pixels, networks, device), device)
        # forward, and two products backward but for the first layer's input
        flops = 2 * 128 * pixels.d**2 * (3 * depth - 1) * networks
        return {"ms_a_step_and_network": 1e3 * seconds / networks, "teraflops": flops / seconds / 1e12}

    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, False),
        ("float16", torch.float16, False),
    ):
        yield Item(f"products in {name}", lambda dtype=dtype, tf32=tf32: products(dtype, tf32))
    for depth in PUBLISHED:
        for networks, device in ((at_once, setting.device), (1, setting.device), (1, "cpu")):
            name = f"depth {depth}, {networks} at once, {torch.device(device).type}"
            yield Item(name, lambda of=(depth, networks, device): step(*of))


# Parts ----------------------------------------------------------------------------------------------------


def parts(setting: Setting) -> Iterator[Item]:
    """``check`` of torch's fused optimizers, like the same ones as they are, and of layers in channels-last."""

    def fused(name: str) -> Result:
        made = resolve(f"torch.optim:{name}")
        stack = Stack(optimizer=made, arguments={"fused": True}, device=setting.device)
        return rows_of(setting, stack, Reference(optimizer=made))

    for name in ("SGD", "Adam", "AdamW", "Adagrad"):
        yield Item(f"{name} fused", lambda name=name: fused(name))
    yield Item(
        "channels-last",
        lambda: rows_of(
            setting, Stack(linear=ChannelsLast, device=setting.device), Reference(linear=nn.Linear)
        ),
    )


def growth(setting: Setting) -> Iterator[Item]:
    """Milliseconds a step of K networks, doubled until memory ends."""
    full, took = False, 0.0
    trial, pixels = question(1, tiny=True), setting.pixels
    on_gpu = torch.device(setting.device).type == "cuda"

    def networks(k: int) -> Result:
        nonlocal full, took
        started = time.monotonic()
        if on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        try:
            seconds = seconds_of(step_of(trial, pixels, k, setting.device), setting.device)
        except torch.OutOfMemoryError:
            full = True
            return {"networks": k, "out_of_memory": True}
        took = time.monotonic() - started
        return {
            "networks": k,
            "ms_a_step": 1e3 * seconds,
            "bytes": torch.cuda.max_memory_allocated() if on_gpu else 0,
        }

    for power in range(2) if setting.tiny else range(4, 16):
        if not full:  # drawing, too, doubles
            yield Item(f"K = {2**power}", lambda k=2**power: networks(k), 2 * took)


# share of the time, in this order
STAGES: dict[str, tuple[float, Callable[[Setting], Iterator[Item]]]] = {
    "laws": (0.24, laws),
    "claims": (0.14, claims),
    "replicas, depth 4": (0.28, lambda setting: replicas(4, setting)),
    "replicas, depth 1": (0.1, lambda setting: replicas(1, setting)),
    "peak": (0.06, peak),
    "parts": (0.12, parts),
    "growth": (0.06, growth),
}

"""Claims of layers of other kinds: each finds the identity, or comes as near as its shape lets it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from identity_props.claims.base import OFF_THE_ANSWER, PREDICTED, RECIPES, Claim, budget, learns
from identity_props.engine.trial import Recipe, Run, Trial
from identity_props.task.data import Pixels
from identity_props.task.kinds import Kind, image_shape
from identity_props.task.metrics import FAILED, NEAR_IDENTITY, pixel_variance
from identity_props.task.theory import (
    critical_rate,
    expected_steps,
    fourier_descent,
    fourier_fvu,
    fourier_power,
    kernel_moment,
    kernel_steps,
    modes,
)

RARE = 1.5  # margin on an embedding's predicted steps: seeds differ in the few tokens that are rare
AT_THE_FLOOR = 0.03  # 0.7% was measured
STARTS = 64  # of four convolutions, by theory; three in four are to be there
MOST = 500  # steps that are looked at; 276 are predicted at 7x7
PATIENT = 7 * 7  # pixels up to which plain ReLU convolutions were measured


def _sgd(lr: float, batch_size: int | None) -> Recipe:
    return Recipe("torch.optim:SGD", lr, batch_size=batch_size)


RELU_EVIDENCE = {
    4: "7x7, rendered digits, 16 seeds: FVU 4.8e-4 to 3.0e-3, 9 near-identity; one died, at 2.84; RMSprop of 8: 2 died",
    8: "7x7, rendered digits, 8 seeds: FVU 9.8e-4 to 4.5e-3, 1 near-identity",
}

# Plans --------------------------------------------------------------------------------------------


@lru_cache(maxsize=8)
def _one_kernel(pixels: Pixels) -> tuple[Trial]:
    """Half the critical rate of the 3x3 kernel's moment, and the steps that it predicts."""
    kind = Kind("convolution", 1, "standardise", 3)
    data, shape = kind.data(pixels), image_shape(pixels.d)
    train, test = (
        kernel_moment(fourier_power(x, shape), shape, (min(3, shape[0]), min(3, shape[1])))
        for x in (data.train, data.test)
    )
    lr = 0.5 / float(torch.linalg.eigvalsh(train)[-1])
    steps = kernel_steps(train, test, pixel_variance(data.test), lr)
    return (Trial(kind, _sgd(lr, 2048), math.ceil(PREDICTED * steps)),)


@lru_cache(maxsize=8)
def _four_kernels(pixels: Pixels) -> tuple[Trial]:
    """A sixteenth of 1 / the largest power: a quarter of the critical rate of four layers at the identity."""
    kind = Kind("convolution", 4, "standardise", None)
    data, shape = kind.data(pixels), image_shape(pixels.d)
    train, test = fourier_power(data.train, shape), fourier_power(data.test, shape)
    lr = 1 / (16 * float(train.max()))
    drawn = torch.rand(STARTS, 4, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    products = fourier_descent((2 * drawn - 1) * math.sqrt(3 / pixels.d), train, lr, MOST)
    near = (
        fourier_fvu(products, test, pixel_variance(data.test)) <= NEAR_IDENTITY
    ).double()  # [steps, STARTS]
    first = torch.where(near.any(0), near.argmax(0), MOST).sort().values
    return (Trial(kind, _sgd(lr, 16), math.ceil(PREDICTED * int(first[3 * STARTS // 4 - 1]))),)


@lru_cache(maxsize=8)
def _rows_together(pixels: Pixels) -> tuple[Trial]:
    """Half the critical rate of rows that a frozen convolution stretches by 2 at most."""
    kind = Kind("transposed", 1, "whiten")
    width = image_shape(pixels.d)[1]
    eigenvalues, _ = modes(kind.data(pixels).train.reshape(-1, width))
    return (Trial(kind, _sgd(critical_rate(eigenvalues) / (2 * 2**2), 256), 40),)


@lru_cache(maxsize=8)
def _brightest(pixels: Pixels) -> tuple[Trial]:
    """Half the critical rate of the most frequent token, and the steps that the rare ones ask for."""
    kind = Kind("embedding", 1, "none")
    data = kind.data(pixels)
    frequencies, power = modes(data.train, data.test)
    lr = critical_rate(frequencies) / 2
    steps = expected_steps(frequencies, power, pixel_variance(data.test), lr)
    return (Trial(kind, _sgd(lr, 512), math.ceil(RARE * steps)),)


def _scale(pixels: Pixels) -> tuple[Trial]:
    """Half the critical rate d: on what is normalised, of moment I, the first step is there."""
    return (Trial(Kind("norm", 1, "none"), _sgd(pixels.d / 2, None), 16),)


def _low_rank(pixels: Pixels) -> tuple[Trial]:
    kind = Kind("adapter", 1, "standardise", max(1, pixels.d // 4))
    return (Trial(kind, RECIPES["adam-decay"](pixels.d), budget(pixels.d)),)


def _rectified(pixels: Pixels, depth: int) -> tuple[Trial]:
    kind = Kind("relu-convolution", depth, "unit", 8)
    return (Trial(kind, RECIPES["adam-decay"](pixels.d), budget(pixels.d)),)


# Expectations -------------------------------------------------------------------------------------


def at_the_floor(runs: Sequence[Run]) -> Tensor:
    """Starts off the answer and ends within 3% of the least FVU that the variant could come to."""
    (run,) = runs
    assert run.floor is not None, "the engine measures it"
    end = run.fvu[:, -1]
    return (run.fvu[:, 0] >= OFF_THE_ANSWER) & ((end / run.floor - 1).abs() <= AT_THE_FLOOR)


def nears(runs: Sequence[Run]) -> Tensor:
    """Starts off the answer and ends better than what counts as failed."""
    (run,) = runs
    return (run.fvu[:, 0] >= OFF_THE_ANSWER) & (run.fvu[:, -1] <= FAILED)


# The claims ---------------------------------------------------------------------------------------

ROUNDS = frozenset(
    {torch.float64, torch.float32}
)  # measured in float32; bfloat16 loses an update of 1 part in 256
IDENTITY_CRISIS = "Zhang et al., Identity Crisis (ICLR 2020, 1902.04698), whose convolutions learn it too"


def _claim(name: str, statement: str, source: str, evidence: str, **parts: Any) -> Claim:
    usual: dict[str, Any] = {"expects": "learns", "share": 1 / 2, "succeeded": learns, "dtypes": ROUNDS}
    return Claim(name, statement=statement, source=source, evidence=evidence, **usual | parts)


def _relu_claim(depth: int) -> Claim:
    return _claim(
        f"relu-conv-{depth}-adam",
        f"plain ReLU 3x3 convolutions, depth {depth}, 8 channels, recipe adam-decay: FVU of 0.01 or less",
        IDENTITY_CRISIS,
        RELU_EVIDENCE[depth],
        expects="nears",
        succeeded=nears,
        plan=partial(_rectified, depth=depth),
        applies=lambda pixels: pixels.d <= PATIENT,
        slow=True,
    )


CLAIMS_OF_KINDS = (
    _claim(
        "convolution-1",
        f"a circular 3x3 convolution finds the delta kernel: plain SGD at half the critical rate is near-identity"
        f" within {PREDICTED:g} x the steps that the spectrum predicts",
        "w_k - delta = (I - 2 lr R)^k (w_0 - delta), see theory",
        "7x7, rendered digits, 8 seeds: in 0.8-1.3 x the predicted steps, FVU 1.9e-4 at most",
        plan=_one_kernel,
    ),
    _claim(
        "convolution-4",
        f"four circular convolutions as large as the image: plain SGD is near-identity within {PREDICTED:g} x the"
        " steps after which, by their Fourier modes, three starts in four are",
        "each Fourier mode is a product of four numbers and descends by itself, see theory",
        "7x7, rendered digits, 8 seeds: in 116-465 steps of 465, FVU 6e-12 at most; predicted median 252, 9 in 10 by 524",
        share=1 / 4,
        plan=_four_kernels,
        applies=lambda pixels: pixels.d <= PATIENT,
    ),
    _claim(
        "transposed-1",
        "a transposed convolution finds the inverse of a frozen one that takes rows of pixels apart",
        "it is a linear layer on rows, whose inverse is its only answer",
        "7x7, rendered digits, 8 seeds: in 10 steps of 40, FVU 6e-11 at most",
        plan=_rows_together,
    ),
    _claim(
        "embedding-1",
        f"an embedding of each image's brightest pixel finds the one-hot table within {RARE:g} x the steps that the"
        " frequencies of its tokens predict",
        "E[x x^T] of one-hot rows is the diagonal of their frequencies: each row learns at the rate of its token",
        "7x7, rendered digits, 8 seeds: in 0.8-1.3 x the predicted 254 steps, FVU 9e-4 at most",
        plan=_brightest,
    ),
    _claim(
        "norm-1",
        "a batch norm finds each pixel's scale and mean: plain SGD at half the critical rate is near-identity in 16 steps",
        "what it scales has moment I, so that one step is enough; its running averages halve their error a step",
        "7x7, rendered digits, 8 seeds: in 5-8 steps, FVU 1e-5 at most",
        plan=_scale,
    ),
    _claim(
        "adapter-1",
        "a low-rank adapter (LoRA) on a frozen layer ends within 3% of the least error of its rank, and not lower",
        "the floor is Eckart and Young's (1936), and has no local minima beside it (Baldi, Hornik 1989)",
        "7x7, rendered digits, 8 seeds: 0-0.7% from the floor, FVU 0.41-0.45",
        expects="floor",
        succeeded=at_the_floor,
        plan=_low_rank,
    ),
    *(_relu_claim(depth) for depth in RELU_EVIDENCE),
)

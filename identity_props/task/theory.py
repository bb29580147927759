"""Closed forms in float64: what is known exactly of learning the identity.

With x in R^d and S = E[x x^T] over the training data, not centred, ``nn.MSELoss`` (a mean over
examples and pixels) gives one linear layer under full-batch gradient descent
W_k - I = (W_0 - I)(I - eta S)^k with eta = 2 lr / d: each eigenmode shrinks by |1 - eta lambda_i| a
step. A bias changes nothing where the data's mean is 0. Leading axes [...] are a batch throughout.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from identity_props.errors import InputError
from identity_props.task.metrics import NEAR_IDENTITY, pixel_variance
from identity_props.task.threads import eigh

Array = NDArray[np.float64]


def modes(train: Tensor, test: Tensor | None = None) -> tuple[Array, Array]:
    """Eigenvalues [d] of E[x x^T] over train [n, d], largest first, and the power [d] of test on each.

    S = sum_i lambda_i v_i v_i^T, not centred; power_i = E[(v_i^T x)^2] over test [m, d], which is
    lambda_i where test is None.
    """
    train = train.double()
    eigenvalues, v = eigh(train.T @ train / len(train))
    power = eigenvalues if test is None else (test.double() @ v).square().mean(0)
    return eigenvalues.flip(0).clamp_min(0).numpy(), power.flip(0).clamp_min(0).numpy()


def critical_rate(eigenvalues: ArrayLike) -> float:
    """Learning rate d / lambda_1 from which gradient descent on the mean squared error diverges.

    From |1 - 2 lr lambda_1 / d| < 1. Eigenvalues [d], any order.
    """
    values = np.asarray(eigenvalues, np.float64)
    return float(len(values) / values.max())


def expected_fvu(
    eigenvalues: ArrayLike, power: ArrayLike, variance: float, lr: float, steps: ArrayLike
) -> Array:
    """FVU expected after k steps from a Glorot-uniform start, over seeds: [len(steps)].

    FVU(k) = sum_i power_i e_i (1 - eta lambda_i)^(2k) / (d variance), where
    e_i = E|(W_0 - I) v_i|^2 = 2: 1 from I, and d Var(W_0) = 1 since Glorot draws with variance 1/d.
    ``variance`` is the mean variance of a pixel, eigenvalues and power [d] are those of ``modes``.
    """
    values = np.asarray(eigenvalues, np.float64)  # [d]
    k = np.atleast_1d(np.asarray(steps, np.float64))[:, None]  # [len(steps), 1]
    shrink = (1 - 2 * lr / len(values) * values) ** 2  # [d]
    fvu: Array = (2 * np.asarray(power) * shrink**k).sum(1) / (len(values) * variance)
    return fvu


def expected_steps(
    eigenvalues: ArrayLike, power: ArrayLike, variance: float, lr: float, most: int = 10**7
) -> int:
    """Fewest steps after which the expected FVU is at most 1e-3.

    Raises InputError at or above the critical rate, and where ``most`` steps do not suffice.
    """
    if not 0 < lr < critical_rate(eigenvalues):
        raise InputError(f"lr: expected above 0 and below {critical_rate(eigenvalues):.3g}, got {lr}")

    def near(steps: int) -> bool:
        return bool(expected_fvu(eigenvalues, power, variance, lr, steps)[0] <= NEAR_IDENTITY)

    low, high = 0, most
    if not near(high):
        raise InputError(f"spectrum: expected FVU 1e-3 within {most} steps, got a slower one at lr {lr}")
    while low < high:  # below the critical rate FVU falls with every step
        middle = (low + high) // 2
        low, high = (low, middle) if near(middle) else (middle + 1, high)
    return low


# One linear layer, step by step --------------------------------------------------------------------


def second_moment(x: Tensor) -> Tensor:
    """S = E[x x^T] [..., d, d] over examples x [..., n, d]."""
    x = x.double()
    return x.mT @ x / x.shape[-2]


def gd_weights(start: Tensor, moment: Tensor, lr: float, step: int, decay: float = 0.0) -> Tensor:
    """Weights [..., d, d] after gradient descent from ``start`` on data of second moment S.

    W_k = W* + (W_0 - W*) ((1 - lr wd) I - eta S)^k, where W* = S (S + (d wd / 2) I)^-1 is the fixed
    point under coupled decay wd. Without decay it is I, and directions that S does not span keep
    W_0. Derived from W <- W - lr ((2 / d) (W - I) S + wd W).
    """
    eigenvalues, v = torch.linalg.eigh(moment)  # [..., d], [..., d, d]
    d = moment.shape[-1]
    ridge = d * decay / 2
    fixed = eigenvalues / (eigenvalues + ridge) if decay else torch.ones_like(eigenvalues)
    shrink = (1 - lr * decay - 2 * lr / d * eigenvalues) ** step
    goal = v * fixed[..., None, :]
    moved: Tensor = ((start.double() @ v - goal) * shrink[..., None, :] + goal) @ v.mT
    return moved


def off_span_limit(start: Tensor, moment: Tensor) -> Tensor:
    """Where gradient descent ends: W_0 (I - P) + P, P the projector on the span of the data.

    start and moment [..., d, d]; eigenvalues below 1e-12 of the largest count as 0. It is one of a
    whole space of perfect solutions: W differs from I, and W x = x on the data.
    """
    eigenvalues, v = torch.linalg.eigh(moment)
    spanned = v * (eigenvalues > 1e-12 * eigenvalues.amax(-1, keepdim=True))[..., None, :]
    projector = spanned @ v.mT
    limit: Tensor = start - start @ projector + projector
    return limit


def momentum_weights(start: Tensor, moment: Tensor, lr: float, momentum: float, step: int) -> Tensor:
    """Weights [..., d, d] under heavy-ball momentum, v <- mu v + g, W <- W - lr v.

    W_k - I = (W_0 - I) p_k(S), p_0 = 1, p_1 = 1 - eta lambda and
    p_(k+1) = (1 + mu - eta lambda) p_k - mu p_(k-1) (Polyak 1964).
    """
    eigenvalues, v = torch.linalg.eigh(moment)
    d = moment.shape[-1]
    eta = 2 * lr / d * eigenvalues
    before, now = torch.ones_like(eta), 1 - eta if step else torch.ones_like(eta)
    for _ in range(step - 1):
        before, now = now, (1 + momentum - eta) * now - momentum * before
    identity = torch.eye(d, dtype=torch.float64)
    weights: Tensor = identity + (((start.double() - identity) @ v) * now[..., None, :]) @ v.mT
    return weights


def momentum_edge(eigenvalues: ArrayLike, momentum: float) -> float:
    """Learning rate d (1 + mu) / lambda_1 from which heavy-ball momentum diverges (Polyak 1964)."""
    return (1 + momentum) * critical_rate(eigenvalues)


def adam_first_step(gradient: Tensor, lr: float, eps: float = 1e-8) -> Tensor:
    """Change of a parameter in Adam's first step, -lr g / (|g| + eps) (Kingma, Ba 2015, 1412.6980).

    Bias correction leaves m = g and v = g^2 exactly, so that |change| is lr wherever |g| >> eps.
    """
    return -lr * gradient / (gradient.abs() + eps)


def adam_steps(gradients: Tensor, lr: float, betas: tuple[float, float] = (0.9, 0.999)) -> Tensor:
    """Changes [k, ...] of a parameter after each of k Adam steps on gradients [k, ...], with eps 1e-8.

    m <- b1 m + (1 - b1) g, v <- b2 v + (1 - b2) g^2, change -lr m' / (sqrt(v') + eps), where m' = m / (1 - b1^k)
    and v' = v / (1 - b2^k) (Kingma, Ba 2015, 1412.6980, algorithm 1).
    """
    mean, square, changes = torch.zeros_like(gradients[0]), torch.zeros_like(gradients[0]), []
    for k, gradient in enumerate(gradients, 1):
        mean = betas[0] * mean + (1 - betas[0]) * gradient
        square = betas[1] * square + (1 - betas[1]) * gradient.square()
        unbiased, root = mean / (1 - betas[0] ** k), (square / (1 - betas[1] ** k)).sqrt()
        changes.append(-lr * unbiased / (root + 1e-8))
    return torch.stack(changes).cumsum(0)


def rmsprop_steps(gradients: Tensor, lr: float, alpha: float, eps: float) -> Tensor:
    """Changes [k, ...] of a parameter after each of k RMSprop steps on gradients [k, ...].

    v <- alpha v + (1 - alpha) g^2, change -lr g / (sqrt(v) + eps) (Tieleman, Hinton 2012, lecture 6.5).
    """
    square, changes = torch.zeros_like(gradients[0]), []
    for gradient in gradients:
        square = alpha * square + (1 - alpha) * gradient.square()
        changes.append(-lr * gradient / (square.sqrt() + eps))
    return torch.stack(changes).cumsum(0)


def rmsprop_floor(lr: float, alpha: float) -> float:
    """Bound lr / sqrt(1 - alpha) on |W - I| once RMSprop has arrived, on whitened data.

    There each weight is a quadratic of its own, and its step has the sign of its error and at most
    this length, as v >= (1 - alpha) g^2: an error within the bound never leaves it, a larger one
    shrinks.
    """
    return float(lr / (1 - alpha) ** 0.5)


# Floors and deep networks --------------------------------------------------------------------------


def relu_floor(x: Tensor) -> Tensor:
    """Least mean squared error [...] of a network that ends in a ReLU: E[min(x, 0)^2], x [..., n, d]."""
    return x.double().clamp_max(0).square().mean((-2, -1))


def bottleneck_floor(eigenvalues: Tensor, width: int) -> Tensor:
    """Least mean squared error [...] of linear maps of rank ``width``: sum_(i > r) lambda_i / d.

    Eigenvalues [..., d] of the second moment, any order (Eckart, Young 1936; Baldi, Hornik 1989).
    """
    ordered = eigenvalues.sort(-1, descending=True).values
    return ordered[..., width:].sum(-1) / eigenvalues.shape[-1]


def probability_alive(width: int, hidden: int) -> float:
    """Chance (1 - 2^-N)^L that a point passes L hidden ReLU layers of width N with a unit alive.

    For symmetric weights and zero bias: each unit is on with probability 1/2, whatever came before
    (Rister, Rubin 2020, 2007.06192).
    """
    return float((1 - 2.0**-width) ** hidden)


def saxe_mode(time: ArrayLike, start: float, goal: float = 1.0) -> Array:
    """Strength u(t) of a mode of two aligned linear layers under gradient flow, du/dt = 2 u (s - u).

    u(t) = s e^(2 s t) / (e^(2 s t) - 1 + s / u_0), time in units of 1 / (eta lambda), u_0 = ``start``,
    s = ``goal`` (Saxe, McClelland, Ganguli 2014, 1312.6120).
    """
    growth = np.exp(2 * goal * np.asarray(time, np.float64))
    strength: Array = goal * growth / (growth - 1 + goal / start)
    return strength


def low_rank_floor(frozen: Tensor, train: Tensor, test: Tensor, rank: int) -> Tensor:
    """FVU [K] on test [m, d] of frozen layers [K, d, d] with the low-rank part that is best on train [n, d].

    With M = (I - W) S^(1/2) = U diag(s) V^T the best part is U_r U_r^T (I - W), and leaves
    sum_(i > r) s_i^2 / d on train (Eckart, Young 1936).
    """
    lacking = torch.eye(train.shape[1], dtype=torch.float64) - frozen.double().cpu()
    eigenvalues, v = eigh(second_moment(train).cpu())
    left = torch.linalg.svd(lacking @ (v * eigenvalues.clamp_min(0).sqrt()))[0][
        ..., rank:
    ]  # what the part leaves
    lost = (left.mT @ lacking) @ test.double().cpu().T  # [K, d - r, m]
    floor: Tensor = lost.square().sum((-2, -1)) / test.numel() / pixel_variance(test)
    return floor


# Convolutions ---------------------------------------------------------------------------------------


def fourier_power(x: Tensor, shape: tuple[int, int]) -> Tensor:
    """Mean power E|x_f|^2 [d] of each Fourier mode over images x [n, d] of a shape, unitary transform.

    A circular convolution multiplies mode f by K_f, its kernel's transform, so that the mean squared
    error is sum_f E|x_f|^2 |K_f - 1|^2 / d for any images, and the modes are the eigenvectors of its
    Hessian where the kernel is as large as the image, with eigenvalues 2 E|x_f|^2.
    """
    modes = torch.fft.fft2(x.double().reshape(-1, *shape), norm="ortho")
    return modes.abs().square().mean(0).flatten()


def fourier_descent(kernels: Tensor, power: Tensor, lr: float, steps: int) -> Tensor:
    """Modes [steps + 1, ..., d] of L circular convolutions in a row after each step of gradient descent.

    ``kernels`` [..., L, h, w] are as large as the image, power [d] as ``fourier_power`` has it. Each mode
    is a product of L complex numbers, and descends by itself: with u = a_1 .. a_L,
    a_l <- a_l - 2 lr E|x_f|^2 (u - 1) conj(u / a_l). For L = 1, u_k - 1 = (u_0 - 1)(1 - 2 lr E|x_f|^2)^k.
    """
    modes = torch.fft.fft2(kernels.double()).flatten(-2).unbind(-2)  # L of [..., d]
    products = [math.prod(modes)]
    for _ in range(steps):
        error = 2 * lr * power * (products[-1] - 1)
        turned = tuple(mode.conj() for mode in modes)
        modes = tuple(mode - error * math.prod(turned[:k] + turned[k + 1 :]) for k, mode in enumerate(modes))
        products.append(math.prod(modes))
    return torch.stack(products)


def fourier_fvu(products: Tensor, power: Tensor, variance: float) -> Tensor:
    """FVU [...] of circular convolutions whose modes multiply to ``products`` [..., d], see ``fourier_power``."""
    fvu: Tensor = ((products - 1).abs().square() * power).mean(-1) / variance
    return fvu


def kernel_moment(power: Tensor, shape: tuple[int, int], kernel: tuple[int, int]) -> Tensor:
    """Moment R [taps, taps] of a circular convolution: its mean squared error is (w - delta)^T R (w - delta).

    R_ab = sum_f E|x_f|^2 cos(f (a - b)) / d, the transform of the power at the distance of two taps.
    """
    at = torch.fft.ifft2(power.reshape(shape)).real
    rows, columns = (i.flatten() for i in torch.meshgrid(*map(torch.arange, kernel), indexing="ij"))
    return at[(rows[:, None] - rows) % shape[0], (columns[:, None] - columns) % shape[1]]


def kernel_steps(moment: Tensor, test: Tensor, variance: float, lr: float, most: int = 10**5) -> int:
    """Fewest steps after which the FVU expected over Glorot-uniform kernels of t taps is at most 1e-3.

    w_k - delta = (I - 2 lr R)^k (w_0 - delta), E (w_0 - delta)(w_0 - delta)^T = I / t + delta delta^T, moments
    R [t, t] of training and test data as of ``kernel_moment``. Raises InputError where ``most`` do not suffice.
    """
    taps = len(moment)
    apart = torch.eye(taps, dtype=torch.float64) / taps
    apart[taps // 2, taps // 2] += 1
    shrink = torch.eye(taps, dtype=torch.float64) - 2 * lr * moment
    for steps in range(most):
        if float((apart * test).sum()) / variance <= NEAR_IDENTITY:
            return steps
        apart = shrink @ apart @ shrink.mT
    raise InputError(f"spectrum: expected FVU 1e-3 within {most} steps, got a slower one at lr {lr}")

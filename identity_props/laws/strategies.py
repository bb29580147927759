"""Hypothesis strategies: families of data sets, variants, recipes and seeds.

Hypothesis draws what is small and telling, a shape, a spectrum's width, a seed; tensors come from a
``torch.Generator``. One family is many data sets, trained as one ensemble.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

from identity_props.engine.trial import Recipe
from identity_props.laws import Case, scaled_alike
from identity_props.task.models import Variant

REPLICAS = 40  # data sets a family: 25 examples are 1,000 cases

seeds = st.integers(0, 2**32 - 1)


@dataclass(frozen=True)
class Family:
    """Data sets of one kind, drawn from ``seed``, and how they are trained on.

    n examples of d pixels in ``rank`` directions; eigenvalues from 1 to 10^-decades; ``sign`` signed
    or non-negative; a share ``sparsity`` of entries 0; the first ``dead`` pixels always 0, the last
    ``equal`` ones always the same; the largest eigenvalue is 10^(2 log_scale) and the learning rate
    ``factor`` of the critical one, for ``steps`` steps. Making data non-negative, sparse, dead or
    equal bends the spectrum.
    """

    d: int = 8
    n: int = 16
    rank: int = 8
    decades: float = 2.0
    sign: str = "signed"
    sparsity: float = 0.0
    dead: int = 0
    equal: int = 1
    log_scale: float = 0.0
    factor: float = 0.5
    steps: int = 6
    seed: int = 0

    def data(self, replicas: int = REPLICAS) -> Tensor:
        """Data sets [replicas, n, d] in float64."""
        generator = torch.Generator().manual_seed(self.seed)
        x = self._spectral(replicas, generator)
        x = x.abs() if self.sign == "non-negative" else x
        kept = torch.rand(x.shape, generator=generator) >= self.sparsity
        x = x * kept
        x[:, :, : self.dead] = 0
        x[:, :, self.d - self.equal :] = x[:, :, -1:]
        x[~x.flatten(1).any(1), 0, self.d - self.equal :] = 1  # an empty data set teaches nothing
        return scaled_alike(x, 10**self.log_scale)

    def case(self, replicas: int = REPLICAS) -> Case:
        return Case(self.data(replicas), self.factor, self.steps, self.seed)

    def _spectral(self, replicas: int, generator: torch.Generator) -> Tensor:
        """X = sqrt(n) U diag(sqrt(lambda)) V^T, with U and V drawn orthonormal."""
        rank = min(self.rank, self.n, self.d)
        u, v = (
            torch.linalg.qr(torch.randn(replicas, m, rank, generator=generator, dtype=torch.float64)).Q
            for m in (self.n, self.d)
        )
        root = torch.logspace(0, -self.decades / 2, rank, dtype=torch.float64)
        return self.n**0.5 * (u * root) @ v.mT


@st.composite
def families(draw: st.DrawFn) -> Family:
    """Families with 2 to 32 pixels, any rank, condition 1 to 1e6, scales 1e-3 to 1e3."""
    d = draw(st.integers(2, 32))
    dead = draw(st.integers(0, d - 1))
    return Family(
        d=d,
        n=draw(st.integers(1, 48)),
        rank=draw(st.integers(1, d)),
        decades=draw(st.floats(0, 6)),
        sign=draw(st.sampled_from(["signed", "non-negative"])),
        sparsity=draw(st.sampled_from([0.0, 0.5, 0.9])),
        dead=dead,
        equal=draw(st.integers(1, d - dead)),
        log_scale=draw(st.floats(-3, 3)),
        factor=draw(st.floats(0.05, 0.95)),
        steps=draw(st.integers(3, 12)),
        seed=draw(seeds),
    )


def variants(most: int = 4) -> st.SearchStrategy[Variant]:
    """Every variant, 1 to ``most`` layers deep, with and without bias."""

    def make(name: str, depth: int, bias: bool) -> Variant:
        return Variant(name, depth, "whiten" if name == "scaled-input" else "unit", bias=bias)

    names = st.sampled_from(["plain-relu", "linear", "residual", "scaled-input"])
    return st.builds(make, names, st.integers(1, most), st.booleans())


OPTIMIZERS: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (
    ("torch.optim:SGD", ()),
    ("torch.optim:SGD", (("momentum", 0.9), ("weight_decay", 0.1))),
    ("torch.optim:RMSprop", (("alpha", 0.9), ("eps", 1e-7))),
    ("torch.optim:Adam", ()),
)


def recipes(lr: float = 0.01) -> st.SearchStrategy[Recipe]:
    """SGD, SGD with momentum and decay, RMSprop and Adam; every schedule and init; batches of 1 to all."""

    def make(optimizer: int, schedule: str, size: int | None, init: str) -> Recipe:
        name, arguments = OPTIMIZERS[optimizer]
        return Recipe(name, lr, arguments, schedule, size, init)

    return st.builds(
        make,
        st.integers(0, len(OPTIMIZERS) - 1),
        st.sampled_from(["constant", "linear-decay"]),
        st.sampled_from([None, 1, 7, 16, 1000]),
        st.sampled_from(["glorot", "torch"]),
    )

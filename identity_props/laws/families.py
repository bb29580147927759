"""Families: data sets of one kind, as the laws are measured on them; one is many data sets, trained as one ensemble."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from identity_props.laws import Case, scaled_alike

REPLICAS = 40  # data sets a family: 25 examples are 1,000 cases


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

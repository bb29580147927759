"""torch's fully_shard, within the loop that torch's own pages show.

- https://docs.pytorch.org/tutorials/intermediate/FSDP_tutorial.html: ``fully_shard`` of each layer and of all, the
  optimizer after it, clipping, and mixed precision
- https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html: ``set_requires_gradient_sync``

The loop is that of ddp. One rank is a process group of one. Not offered: float16, whose loss scale it does not show,
averages, evaluation, a reported loss, stop and resume, tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from identity_props.trainers import ddp
from identity_props.trainers.protocol import Asked, NotOffered, Trained

DESIGNS = ddp.DESIGNS
POLICIES = {
    "full": MixedPrecisionPolicy(),
    "bfloat16": MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
}


class Loop(ddp.Loop):
    """A training under way, its weights in shards."""

    def wrapped(self, network: nn.Module) -> Any:
        if self.asked.precision not in POLICIES:
            raise NotOffered("precision")
        mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
        policy = POLICIES[self.asked.precision]
        for layer in network.children():
            fully_shard(layer, mesh=mesh, mp_policy=policy)
        return fully_shard(network, mesh=mesh, mp_policy=policy)

    def average(self) -> None:
        if self.asked.average is not None:
            raise NotOffered("average")

    @contextmanager
    def unsynchronised(self) -> Iterator[None]:
        self.model.set_requires_gradient_sync(False)
        yield
        self.model.set_requires_gradient_sync(True)

    def cast(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def weights(self) -> list[Tensor]:
        return [p.full_tensor().detach().clone() for p in self.model.parameters()]


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    return ddp.trained(Loop, asked)

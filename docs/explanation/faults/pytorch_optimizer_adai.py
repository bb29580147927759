"""Adai of pytorch-optimizer bounds the mean of second moments at eps from below: it stands almost still near an optimum.

The paper divides each second moment by the mean of all, so that gradients a thousand times as small change no momentum.
"""

import torch
from pytorch_optimizer import Adai


def momentum(size):
    """That of an entry whose gradients are all of one size, after its first: 1 - b0, 0.9, whatever the size."""
    p = torch.nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    optimizer = Adai([p], lr=1.0, weight_decay=0.0)
    p.grad = torch.full_like(p, size)
    optimizer.step()
    return float(optimizer.state[p]["beta1_prod"].flatten()[0])


print(large := momentum(1.0), small := momentum(1e-3))  # 0.9 and 0.999
assert large < 0.91
assert small > 0.998

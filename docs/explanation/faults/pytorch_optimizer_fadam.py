"""FAdam of pytorch-optimizer keeps its averages in float32, and so raises where weights are in float64."""

import torch
from pytorch_optimizer import FAdam

p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
p.grad = torch.ones_like(p)
try:
    FAdam([p], lr=0.1).step()
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("it steps")

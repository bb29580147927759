"""Yogi of torch_optimizer starts both of its averages at 1e-6, the gradient's too, and moves without a gradient."""

import torch
from torch_optimizer import Yogi

p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.zeros(3)
Yogi([p], lr=0.1).step()
print(1 - p)  # 2.8e-5
assert (p != 1).all()

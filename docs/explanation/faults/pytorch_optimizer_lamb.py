"""Lamb of pytorch-optimizer corrects its mean after the trust ratio: its first step is ten times lr |w|.

The paper: w -= lr |w| / |u| u, so that each step is as long as lr |w|, whatever is corrected in u.
"""

import torch
from pytorch_optimizer import Lamb

p = torch.nn.Parameter(torch.ones(4, 4))
p.grad = torch.randn(4, 4)
Lamb([p], lr=0.01, weight_decay=0.0).step()
print(long := float((p.detach() - 1).norm() / 4))  # 0.1
assert long > 0.05

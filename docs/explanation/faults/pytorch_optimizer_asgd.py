"""ASGD of pytorch-optimizer bounds its rate by differences of norms where the paper has norms of differences.

The paper: lr <= |w - w_before| / (2 |g - g_before|), Malitsky, Mishchenko 2020.
"""

import torch
from pytorch_optimizer import ASGD

p = torch.nn.Parameter(torch.ones(1))
asgd, before, gradients = ASGD([p], lr=0.1), p.detach().clone(), (1.0, -10.0)
p.grad = torch.full((1,), gradients[0])
asgd.step()
bound = float((p.detach() - before).norm()) / (2 * abs(gradients[1] - gradients[0]))
p.grad = torch.full((1,), gradients[1])
asgd.step()
print(asgd.param_groups[0]["lr"], bound)  # 0.1, 0.005
assert asgd.param_groups[0]["lr"] > 10 * bound

"""Adan of pytorch-optimizer, and DAdaptAdan, do not maximize: the first difference of gradients is twice a gradient."""

import torch
from pytorch_optimizer import Adan

ends = []
for maximize, sign in ((True, 1.0), (False, -1.0)):
    p = torch.nn.Parameter(torch.zeros(3))
    adan = Adan([p], lr=0.1, maximize=maximize)
    for g in (1.0, 2.0):
        p.grad = torch.full((3,), sign * g)
        adan.step()
    ends.append(p.detach())
print(ends)
assert not torch.allclose(*ends)

"""Ranger of pytorch-optimizer goes up the gradient for five steps: while it is not rectified, its rate is below 0."""

import torch
from pytorch_optimizer import Ranger

p = torch.nn.Parameter(torch.zeros(3))
ranger, seen = Ranger([p], lr=0.1), []
for _ in range(6):
    p.grad = torch.ones(3)  # so that the loss falls where p does
    ranger.step()
    seen.append(float(p[0].detach()))
print(seen)  # 0.1 0.2 0.3 0.4 0.5 0.25
assert seen[:5] == sorted(seen[:5])
assert seen[0] > 0

"""ASGD of torch computes its rate in float32 where foreach is on, which is 1e-9 of a weight in float64."""

import torch

ends = []
for foreach in (False, True):
    p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    p.grad = torch.ones_like(p)
    asgd = torch.optim.ASGD([p], lr=1 / 128, foreach=foreach)
    [asgd.step() for _ in range(8)]
    ends.append(p.detach())
print(far := (ends[0] - ends[1]).abs().max())
assert far > 1e-12

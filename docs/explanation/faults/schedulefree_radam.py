"""RAdamScheduleFree takes a tensor as rate, and its first step is 0 / 0."""

import schedulefree
import torch

parameter = torch.nn.Parameter(torch.ones(3))
optimizer = schedulefree.RAdamScheduleFree([parameter], lr=torch.tensor(1e-3))
optimizer.train()
parameter.grad = torch.ones(3)
optimizer.step()
print(parameter)
assert parameter.isnan().all()

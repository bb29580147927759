"""A2Grad of pytorch-optimizer takes lr and keeps none, so that every scheduler of torch raises KeyError."""

import torch
from pytorch_optimizer import A2Grad

groups = A2Grad([torch.nn.Parameter(torch.ones(3))], lr=0.1).param_groups
print(groups[0].keys())
assert "lr" not in groups[0]

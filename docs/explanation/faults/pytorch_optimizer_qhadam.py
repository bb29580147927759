"""QHAdam's and NAdam's factors are float32 until a state is loaded, and of the parameter's dtype after."""

import torch
from pytorch_optimizer import load_optimizer

for name, factor in (("qhadam", "beta1_weight"), ("nadam", "mu_product")):
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    parameter.grad = torch.ones_like(parameter)
    optimizer = load_optimizer(name)([parameter], lr=1e-3)
    optimizer.step()
    before = optimizer.state[parameter][factor].dtype
    optimizer.load_state_dict(optimizer.state_dict())
    after = optimizer.state[parameter][factor].dtype
    print(name, before, after)
    assert (before, after) == (torch.float32, torch.float64)

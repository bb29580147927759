"""AdaBound of torch_optimizer never steps a group that is added later."""

import torch
from torch_optimizer import AdaBound

one, late = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
adabound = AdaBound([one], lr=0.1)
adabound.add_param_group({"params": [late]})
one.grad = late.grad = torch.ones(3)
adabound.step()
print(one, late)
assert (one != 0).all()
assert (late == 0).all()

"""Kron keeps its factors in float32; a state that is loaded has them in the dtype of the weights, and the next step raises."""

import torch
from pytorch_optimizer import load_optimizer

parameter = torch.nn.Parameter(torch.ones(3, 4, dtype=torch.float64))
parameter.grad = torch.randn(3, 4, dtype=torch.float64)
optimizer = load_optimizer("kron")([parameter], lr=1e-3)
optimizer.step()
optimizer.load_state_dict(optimizer.state_dict())
try:
    optimizer.step()
except RuntimeError as error:
    print(error)
else:
    raise AssertionError("it steps")

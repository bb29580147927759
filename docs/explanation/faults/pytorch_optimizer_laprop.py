"""LaProp's step sizes are float32 with foreach, whatever the weights are."""

import torch
from pytorch_optimizer import load_optimizer

stepped = []
for foreach in (False, True):
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = load_optimizer("laprop")([parameter], lr=1 / 128, foreach=foreach)
    for _ in range(3):
        parameter.grad = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
        optimizer.step()
    stepped.append(parameter.detach())
print(stepped[1] - stepped[0])
assert 1e-13 < (stepped[1] - stepped[0]).abs().max() < 1e-8

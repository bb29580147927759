"""AdamP, SGDP and SWATS view the entries of a matrix by rows: one that is not contiguous raises."""

import torch
from pytorch_optimizer import load_optimizer

for name in ("adamp", "sgdp", "swats"):
    parameter = torch.nn.Parameter(torch.randn(3, 4).T)
    parameter.grad = torch.randn(3, 4).T
    try:
        load_optimizer(name)([parameter], lr=1e-3).step()
    except RuntimeError as error:
        print(name, error)
    else:
        raise AssertionError(f"{name} steps")

"""StableAdamW of optimi calls its GPU kernels on the CPU wherever Triton is installed, which torch brings."""

import torch
from optimi import StableAdamW

p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.ones(3)
StableAdamW([p], lr=0.1, triton=False).step()
try:
    StableAdamW([p], lr=0.1).step()
except RuntimeError as error:
    print(error)  # 0 active drivers
else:
    raise AssertionError("it steps")

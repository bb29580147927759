"""DAdaptSGD divides by the norm of its first gradient, and so fails where training starts at the optimum."""

import torch
from dadaptation import DAdaptSGD

p = torch.nn.Parameter(torch.ones(3))
p.grad = torch.zeros(3)
try:
    DAdaptSGD([p], lr=1.0).step()
except ZeroDivisionError as error:
    print(error)
else:
    raise AssertionError("it steps")

"""torch: the pass back of hardsigmoid multiplies by 1/6 in float32, also in float64; off by 3e-8 of the gradient."""

import torch

x = torch.zeros(1, dtype=torch.float64, requires_grad=True)
torch.nn.functional.hardsigmoid(x).sum().backward()
assert abs(x.grad.item() * 6 - 1) > 1e-8, x.grad.item()  # 0.16666667163

"""SimplifiedAdEMAMix of pytorch-optimizer averages where the paper sums, and divides by sqrt(1 - b2^t) to multiply.

The paper: m = b1 m + g, w -= lr (m + alpha g) / (sqrt(v / (1 - b2^t)) + eps), so the first step is as long as lr.
"""

import torch
from pytorch_optimizer import SimplifiedAdEMAMix

p = torch.nn.Parameter(torch.zeros(1))
p.grad = torch.ones(1)
SimplifiedAdEMAMix([p], lr=1.0, betas=(0.99, 0.95)).step()
print(p)  # -0.2: 0.01 / 0.05
assert abs(float(p.detach()) + 1.0) > 0.5

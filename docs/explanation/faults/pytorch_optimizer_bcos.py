"""BCOS of pytorch-optimizer foresees its second moment from the momentum that it has just updated in place.

The paper: v = (3 b^2 - 2 b^3) m^2 + (1 - b)^2 g^2 + 2 b (1 - b)^2 m g, with the m of before the gradient g.
"""

import torch
from pytorch_optimizer import BCOS

p, b, (g1, g2) = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64)), 0.9, (1.0, -1.0)
bcos = BCOS([p], lr=1.0, beta=b, eps=0.0, weight_decay=0.0)
for g in (g1, g2):
    before = float(p.detach())
    p.grad = torch.full_like(p, g)
    bcos.step()
m, after = g1, b * g1 + (1 - b) * g2
v = (3 * b**2 - 2 * b**3) * m**2 + (1 - b) ** 2 * g2**2 + 2 * b * (1 - b) ** 2 * m * g2
print(step := before - float(p.detach()), after / v**0.5)
assert abs(step - after / v**0.5) > 0.05

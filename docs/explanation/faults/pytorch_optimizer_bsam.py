"""bSAM of pytorch-optimizer never takes its perturbations back, and its mean is of gradients times the decay.

The paper evaluates gradients at weights with noise, then at weights that have climbed, and steps from the weights
themselves (Moellenhoff and Khan 2023, 2210.01620, algorithm 1): w <- w - lr m / s, m a mean of g + decay w.
"""

import torch
from pytorch_optimizer import BSAM

torch.manual_seed(0)
p = torch.nn.Parameter(torch.ones(4, 4))
optimizer = BSAM([p], num_data=10**9, lr=0.0, rho=0.5, weight_decay=0.0)


def closure():
    optimizer.zero_grad()
    loss = p.square().sum()
    loss.backward()
    return loss


loss = closure().item()
optimizer.step(closure)  # at a rate of 0
print(loss, climbed := float(p.detach().square().sum()))  # 16 and 64
assert climbed > 2 * loss

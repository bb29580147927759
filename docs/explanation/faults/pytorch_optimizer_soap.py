"""SOAP of pytorch-optimizer multiplies a rate that is a tensor in place, step after step."""

import torch
from pytorch_optimizer import SOAP

p, rate = torch.nn.Parameter(torch.ones(2, 2)), torch.tensor(0.1)
soap = SOAP([p], lr=rate)
for _ in range(3):
    p.grad = torch.randn(2, 2)
    soap.step()
print(rate)
assert rate != torch.tensor(0.1)

"""SPlus of pytorch-optimizer cannot be evaluated before its first step."""

import torch
from pytorch_optimizer import SPlus

try:
    SPlus([torch.nn.Parameter(torch.ones(3))], lr=0.1).eval()
except KeyError as error:
    print(error)  # 'ema'
else:
    raise AssertionError("it is evaluated")

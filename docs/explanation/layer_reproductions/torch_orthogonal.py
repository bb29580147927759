"""torch: matrix_exp of small matrices, and so the orthogonal parametrization, gives NaN or huge numbers in bfloat16."""

import torch
from torch.nn.utils.parametrizations import orthogonal

torch.manual_seed(0)
layer = orthogonal(torch.nn.Conv2d(4, 6, 3))  # a matrix of 3 x 3 for each pair of channels
layer.parametrizations.weight.original.data.add_(torch.randn(6, 4, 3, 3) / 4)
for dtype in (torch.float32, torch.bfloat16):
    w = layer.to(dtype).weight.float()
    off = (w @ w.mT - torch.eye(3)).abs().max().item()
    print(dtype, off)
    assert (off < 1e-4) == (dtype == torch.float32)
assert not off < 1

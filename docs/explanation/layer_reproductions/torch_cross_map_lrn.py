"""torch: CrossMapLRN2d's gradient is not the derivative of its output, which gradcheck says too."""

import torch

torch.manual_seed(0)
x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)
layer = torch.nn.CrossMapLRN2d(3, alpha=1.0)
assert not torch.autograd.gradcheck(layer, (x,), raise_exception=False)
assert torch.autograd.gradcheck(torch.nn.LocalResponseNorm(3, alpha=1.0), (x,))

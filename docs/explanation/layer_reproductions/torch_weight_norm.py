"""torch: the second derivative of weight_norm on a CPU is wrong, which gradgradcheck says too."""

import torch

torch.manual_seed(0)
v, g = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 6), (5, 1)))


def plain(v, g):
    return v * g / v.norm(dim=1, keepdim=True)


assert torch.autograd.gradgradcheck(plain, (v, g))
assert not torch.autograd.gradgradcheck(torch._weight_norm, (v, g), raise_exception=False)

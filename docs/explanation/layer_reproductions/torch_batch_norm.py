"""torch: on a CPU the pass back of batch_norm reads a weight that is strided as if it were contiguous."""

import torch

torch.manual_seed(0)
weight, given = torch.randn(12)[::2], (torch.zeros(6), torch.ones(6))
x, upstream, found = torch.randn(5, 6), torch.randn(5, 6), []
for each in (weight, weight.contiguous()):
    leaf = x.clone().requires_grad_()
    out = torch.nn.functional.batch_norm(leaf, *given, each)
    out.backward(upstream)
    found.append((out, leaf.grad))
(out, wrong), (same, right) = found
torch.testing.assert_close(out, same)
assert (wrong - right).abs().max() > 0.1

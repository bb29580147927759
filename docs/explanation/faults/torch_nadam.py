"""NAdam of torch loads a state in another dtype than it saved."""

import torch

p = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
p.grad = torch.ones_like(p)
saved, loaded = torch.optim.NAdam([p]), torch.optim.NAdam([p])
saved.step()
loaded.load_state_dict(saved.state_dict())
dtypes = [one.state[p]["mu_product"].dtype for one in (saved, loaded)]
print(dtypes)
assert dtypes == [torch.float32, torch.float64]

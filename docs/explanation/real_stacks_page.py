"""The page of real stacks: what was measured, and the reason of every row that fails."""

import math


def page(found):
    """The page in Markdown."""
    lines = [INTRODUCTION.strip().format(**_counts(found))]
    for group in dict.fromkeys(one["group"] for one in found):
        lines += ["", f"## {group}", "", "| part | version | pass | fails | lr | steps | why |"]
        lines += ["|---|---|---|---|---|---|---|"]
        lines += [_line(one) for one in found if one["group"] == group]
    return "\n".join([*lines, "", REPRODUCTIONS.strip(), ""])


def _counts(found):
    failing = [one for one in found if any(row["verdict"] == "fail" for row in one["rows"])]
    return {"parts": len(found), "failing": len(failing), "torch": found[0]["version"]}


def _line(one):
    rows = {row["name"]: row for row in one["rows"]}
    failed = [row for row in one["rows"] if row["verdict"] == "fail"]
    learns = rows.get("learns-identity", {})
    passed = sum(row["verdict"] == "pass" for row in one["rows"])
    fails = ", ".join(f"{row['name']} ({row.get('kind', '')}{_figures(row)})" for row in failed)
    steps = learns.get("steps", math.inf)
    cells = (one["name"], one["version"], passed, fails or "-", _short(learns.get("lr")), _short(steps))
    return f"| {' | '.join(map(str, cells))} | {why(one['name'], failed)} |"


def _figures(row):
    return f" {row['measured']:.1e} > {row['allowed']:.1e}" if "measured" in row else ""


def _short(value):
    return f"{value:.3g}" if value is not None and math.isfinite(value) else "-"


def why(name, failed):
    """What explains the rows that fail, or a question mark that the tests refuse."""
    return WHY.get(name, "?") if failed else ""


INTRODUCTION = """
# Real stacks

What `identity-props check` says of optimizers and layers as they are installed: {parts} parts, of which
{failing} fail a row. Made by `docs/explanation/real_stacks.py`, which `tox -e stacks` runs, on a CPU with torch {torch},
seed 0; all that was measured is in [real-stacks.json](real-stacks.json).

**pass** counts the rows that pass, those that do not apply left out; **lr** is the best of the thirteen rates
searched, **steps** the median step at which FVU was 0.001 (a linear layer on whitened digits, full batches, 1,250
steps, rate decayed linearly). **why** says of a failure whether it is a *fault* of the part, a *limit* of what it is
made for or can represent, or its *design*: something that it does on purpose and that a law does not expect.
"""
REPRODUCTIONS = """
## The faults, in a few lines each

```python
import torch


def weights(gradient=0.0, dtype=torch.float32):
    p = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    p.grad = torch.full((3,), gradient, dtype=dtype)
    return p
```

**NAdam** of torch loads a state in another dtype than it saved:

```python
saved = torch.optim.NAdam([p := weights(1.0, torch.float64)])
saved.step()
loaded = torch.optim.NAdam([p])
loaded.load_state_dict(saved.state_dict())
print(saved.state[p]["mu_product"].dtype, loaded.state[p]["mu_product"].dtype)  # float32, float64
```

**ASGD** of torch computes its rate in float32 where `foreach` is on, which is 1e-9 of a weight in float64:

```python
ends = []
for foreach in (False, True):
    asgd = torch.optim.ASGD([p := weights(1.0, torch.float64)], lr=1 / 128, foreach=foreach)
    [asgd.step() for _ in range(8)]
    ends.append(p.detach())
print((ends[0] - ends[1]).abs().max())
```

**StableAdamW** of optimi calls its GPU kernels on the CPU wherever triton is installed, which torch does:

```python
from optimi import StableAdamW

StableAdamW([weights(1.0)], lr=0.1).step()  # RuntimeError: 0 active drivers; triton=False works
```

**DAdaptSGD** divides by the norm of its first gradient, and so fails where training starts at the optimum:

```python
from dadaptation import DAdaptSGD

DAdaptSGD([weights()], lr=1.0).step()  # ZeroDivisionError
```

**Yogi** of torch_optimizer starts both of its averages at 1e-6, the gradient's too, and moves without a gradient:

```python
from torch_optimizer import Yogi

Yogi([p := weights()], lr=0.1).step()
print(1 - p)  # 2.8e-5
```

**A2Grad** of pytorch_optimizer takes `lr` and keeps none, **SPlus** cannot be evaluated before its first step:

```python
from pytorch_optimizer import load_optimizer

a2grad = load_optimizer("a2grad")([weights()], lr=0.1)
print("lr" in a2grad.param_groups[0])  # False, so that every scheduler of torch raises KeyError
load_optimizer("splus")([weights()], lr=0.1).eval()  # KeyError: 'ema'
```
"""

MODEL = "*limit*: wants the model, or its named parameters, in place of parameters."
HESSIAN = "*limit*: wants gradients of gradients, `backward(create_graph=True)`."
CLOSURE = "*limit*: wants a closure, although the signature of its step can do without."
WHY = {
    "torch.optim:ASGD": "*fault*, small: with `foreach` its rate is computed in float32, whatever the weights are;"
    " 1e-9 of a weight, which no loss curve shows.",
    "torch.optim:NAdam": "*fault*, small: `mu_product` is float32 until a state is loaded, and of the parameter's dtype"
    " after; in float64 that moves weights by 4e-12, which no loss curve shows.",
    "torch.optim:SparseAdam": "*limit*: takes sparse gradients alone.",
    "schedulefree:RAdamScheduleFree": "*design*: stands still for its first five steps, and a layer that is thawed"
    " half-way through eight has no time left to move.",
    "optimi:StableAdamW": "*fault*: takes its Triton kernels on the CPU too, unless told not to: see the next row.",
    "dadaptation:DAdaptSGD": "*fault*: divides by the norm of the first gradient, which is 0 at the optimum.",
    "torch_optimizer:Yogi": "*fault*: its average of gradients starts at 1e-6 and not at 0, and moves weights"
    " that have no gradient.",
    "spectral_norm": "*design*: each forward pass moves its estimate of the norm, so two half batches are not one.",
    "lora": "*limit*: four dimensions of 49 train beside a frozen random weight.",
    "LowRank": "*limit*: half of the rank leaves half of the variance of whitened pixels, the law *bottleneck*.",
    "a2grad": "*fault*: takes `lr` and keeps none, so a scheduler finds none.",
    "adahessian": HESSIAN,
    "sophiah": HESSIAN,
    "adai": "*limit*: slow, its momentum is near 1 where gradients vary little; FVU 3e-6 in 20,000 steps.",
    "adalomo": MODEL,
    "adammini": MODEL,
    "lomo": MODEL,
    "adamg": "*limit*: slow, it finds its own step length; near-identity at step 1,984, 1.5e-6 in 5,000 steps.",
    "alig": CLOSURE + " Sets its own rate, so a scheduler finds none.",
    "bsam": CLOSURE,
    "demo": "*limit*: wants einops and a process group.",
    "distributedmuon": "*limit*: wants a process group.",
    "ftrl": "*design*: rebuilds weights from all gradients at the present rate, so a rate that decays to 0 takes"
    " them to 0. At a constant rate of 1 FVU is 1.1e-5.",
    "kron": "*limit*: trains one by one, and too slowly for the search of a rate.",
    "kate": "*design*: its first step is lr / |g|, 5,000 lr at most, so an entry with almost no gradient is"
    " thrown far.",
    "lorarite": "*limit*: trains pairs of LoRA factors alone.",
    "nero": "*limit*: keeps each neuron's weights at mean 0 and constant norm, and I has no such rows.",
    "sara": "*limit*: trains only weights that start below 0.001.",
    "simplifiedademamix": "*limit*: slow by a little; 1.8e-6 in 5,000 steps.",
    "splus": "*fault*: `eval()` before the first step raises.",
}

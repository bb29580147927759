"""Real stacks: ``check`` over torch.optim, optimizers and layers of other packages; who of pytorch-optimizer learns.

``tox -e stacks`` runs it: two hours of one core, half of that on two. It writes real-stacks.json,
all that was measured, and the page real-stacks.md; ``--page`` writes the page alone, from the JSON.
"""

import argparse
import json
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrizations

HERE = Path(__file__).parent
JSON, PAGE = HERE / "real-stacks.json", HERE / "real-stacks.md"
SECONDS = {"check": 900, "learns": 900}  # a part may take

# distribution: its optimizers, with what they have to be told
PACKAGES = {
    "lion-pytorch": ["lion_pytorch:Lion"],
    "schedulefree": [
        "schedulefree:AdamWScheduleFree",
        "schedulefree:SGDScheduleFree",
        "schedulefree:RAdamScheduleFree",
    ],
    "prodigyopt": ["prodigyopt:Prodigy"],
    "adabelief-pytorch": ["adabelief_pytorch:AdaBelief print_change_log=False"],
    "madgrad": ["madgrad:MADGRAD"],
    "dadaptation": ["dadaptation:DAdaptAdam", "dadaptation:DAdaptSGD"],
    "torch-optimi": [
        "optimi:StableAdamW",
        "optimi:StableAdamW triton=False",
        "optimi:Adan",
        "optimi:Ranger",
    ],
    "adan-pytorch": ["adan_pytorch:Adan"],
    "came-pytorch": ["came_pytorch:CAME"],
    "torch-optimizer": [
        "torch_optimizer:Yogi",
        "torch_optimizer:Lamb",
        "torch_optimizer:AggMo",
        "torch_optimizer:AdaMod",
    ],
}
# of pytorch-optimizer: those that want to be told which parameters are matrices, or how long they train
OF_MATRICES = ("adago", "adamuon", "distributedmuon", "muon", "muonclip", "normuon")
TOLD = {"bsam": {"num_data": 512}, "ranger21": {"num_iterations": 1250}}


class Rounded(torch.autograd.Function):
    """Eight bits over the largest weight, passed by gradients as if it were not there."""

    @staticmethod
    def forward(context, weight):
        unit = weight.abs().max().clamp_min(1e-12) / 127
        return (weight / unit).round() * unit

    @staticmethod
    def backward(context, gradient):
        return gradient


class QuantisationAware(nn.Linear):
    def forward(self, x):
        return nn.functional.linear(x, Rounded.apply(self.weight), self.bias)


class LowRank(nn.Module):
    """U V of half the rank."""

    def __init__(self, fan_in, fan_out, bias=True):
        super().__init__()
        rank = max(1, min(fan_in, fan_out) // 2)
        self.v, self.u = nn.Linear(fan_in, rank, bias=False), nn.Linear(rank, fan_out, bias=bias)

    def forward(self, x):
        return self.u(self.v(x))


def weight_norm(fan_in, fan_out, bias=True):
    return parametrizations.weight_norm(nn.Linear(fan_in, fan_out, bias=bias))


def spectral_norm(fan_in, fan_out, bias=True):
    return parametrizations.spectral_norm(nn.Linear(fan_in, fan_out, bias=bias))


def orthogonal(fan_in, fan_out, bias=True):
    return parametrizations.orthogonal(nn.Linear(fan_in, fan_out, bias=bias))


def lora(fan_in, fan_out, bias=True):
    import loralib

    return loralib.Linear(fan_in, fan_out, r=4, bias=bias)


LAYERS = {
    "weight_norm": (weight_norm, "torch"),
    "spectral_norm": (spectral_norm, "torch"),
    "orthogonal": (orthogonal, "torch"),
    "lora": (lora, "loralib"),
    "QuantisationAware": (QuantisationAware, "torch"),
    "LowRank": (LowRank, "torch"),
}


def parts():
    """(group, name, distribution) of all that is measured."""
    import pytorch_optimizer

    own = [name for name in torch.optim.__all__ if isinstance(getattr(torch.optim, name), type)]
    yield from (("torch.optim", f"torch.optim:{name}", "torch") for name in own if name != "Optimizer")
    for distribution, names in PACKAGES.items():
        yield from (("other packages", name, distribution) for name in names)
    yield from (("layers", name, distribution) for name, (_, distribution) in LAYERS.items())
    names = sorted(pytorch_optimizer.get_supported_optimizers())
    yield from (("pytorch-optimizer", name, "pytorch-optimizer") for name in names)


def stack_of(group, name):
    from identity_props import Stack
    from identity_props.stack import arguments_of, resolve

    if group == "layers":
        return Stack(linear=LAYERS[name][0])
    if group == "pytorch-optimizer":
        import pytorch_optimizer

        optimizer = pytorch_optimizer.load_optimizer(name)
        return Stack(
            optimizer=of_matrices(optimizer) if name in OF_MATRICES else optimizer,
            arguments=TOLD.get(name, {}),
        )
    name, *arguments = name.split()
    return Stack(optimizer=resolve(name), arguments=arguments_of(arguments))


def of_matrices(optimizer):
    def make(params, **arguments):
        return optimizer([{"params": list(params), "use_muon": True}], **arguments)

    return make


def measure(group, name):
    """Rows of check, or the last one alone for the many."""
    from identity_props import conformance

    stack = stack_of(group, name)
    if group == "pytorch-optimizer":
        conformance.LAWS = {}
    return [asdict(row) for row in conformance.check(stack)]


def measured(part):
    """In a process of its own, since some parts change torch's global state, and some never end."""
    group, name, distribution = part
    limit = SECONDS["learns" if group == "pytorch-optimizer" else "check"]
    command = [sys.executable, __file__, "--part", group, name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = {"group": group, "name": name, "package": distribution, "version": version(distribution)}
    try:
        done = subprocess.run(
            command, env=environment, timeout=limit, capture_output=True, text=True, check=False
        )
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        rows = json.loads(lines[-1]) if lines else [_failed("error", done.stderr.strip().rpartition("\n")[2])]
    except subprocess.TimeoutExpired:
        rows = [_failed(f"not finished in {limit} s", "")]
    print(name, *[row["name"] for row in rows if row["verdict"] == "fail"], flush=True)
    return found | {"rows": [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]}


def _failed(kind, note):
    return {"name": "check", "verdict": "fail", "kind": kind, "note": note}


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
{failing} fail a row. Made by `tox -e stacks` on a CPU with torch {torch}, seed 0; all that was measured is in
`real-stacks.json`.

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
    "torch.optim:ASGD": "*fault*, small: with `foreach` its rate is computed in float32, whatever the weights are.",
    "torch.optim:NAdam": "*fault*, small: `mu_product` is float32 until a state is loaded, and float64 after.",
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="write the page alone, from the JSON")
    parser.add_argument("--only", nargs="+", help="measure the parts of these names, keep the others")
    given = parser.parse_args()
    if given.part:
        print(json.dumps(measure(*given.part)))
        return
    found = json.loads(JSON.read_text()) if JSON.exists() and (given.page or given.only) else []
    if not given.page:
        wanted = [part for part in parts() if given.only is None or part[1] in given.only]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            fresh = list(pool.map(measured, wanted))
        known = {(one["group"], one["name"]): one for one in [*found, *fresh]}
        found = [known[part[:2]] for part in parts() if part[:2] in known]
        JSON.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
    PAGE.write_text(page(found))


if __name__ == "__main__":
    main()

"""Real stacks: ``check`` over torch.optim, optimizers and layers of other packages; who of pytorch-optimizer learns.

``tox -e stacks`` runs it, an hour on two cores. It writes real-stacks.json, all that was measured, and
the page real-stacks.md, see real_stacks_page; ``--page`` writes the page alone, from the JSON.
"""

import argparse
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from real_stacks_page import page
from torch import nn
from torch.nn.utils import parametrizations

HERE = Path(__file__).parent
JSON, PAGE = HERE / "real-stacks.json", HERE / "real-stacks.md"
SECONDS = 900  # a part may take

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
    from identity_props.stack.stack import arguments_of, resolve

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

    from identity_props.conformance import checking

    stack = stack_of(group, name)
    if group == "pytorch-optimizer":
        checking.LAWS.clear()
    return [asdict(row) for row in checking.check(stack)]


def measured(part):
    """In a process of its own, since some parts change torch's global state, and some never end."""
    group, name, distribution = part
    command = [sys.executable, __file__, "--part", group, name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    found = {"group": group, "name": name, "package": distribution, "version": version(distribution)}
    try:
        done = subprocess.run(
            command, env=environment, timeout=SECONDS, capture_output=True, text=True, check=False
        )
        lines = done.stdout.splitlines() if done.returncode == 0 else []
        rows = json.loads(lines[-1]) if lines else [_failed("error", done.stderr.strip().rpartition("\n")[2])]
    except subprocess.TimeoutExpired:
        rows = [_failed(f"not finished in {SECONDS} s", "")]
    print(name, *[row["name"] for row in rows if row["verdict"] == "fail"], flush=True)
    return found | {"rows": [{k: v for k, v in row.items() if v not in (None, "")} for row in rows]}


def _failed(kind, note):
    return {"name": "check", "verdict": "fail", "kind": kind, "note": note}


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

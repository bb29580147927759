"""Real stacks: ``check``, all laws, over torch.optim, optimizers and layers of other packages, and pytorch-optimizer.

``tox -e stacks`` runs it, an hour of a core. It writes real-stacks.json, all that was measured, one part after the
other, and goes on from there; the page real-stacks.md is made from that, see real_stacks_page; ``--page`` writes the page
alone.
"""

import argparse
import json
import multiprocessing
import time
from dataclasses import asdict
from importlib.metadata import version
from itertools import islice
from multiprocessing.connection import wait
from pathlib import Path

import torch
from real_stacks_page import page
from torch import nn
from torch.nn.utils import parametrizations

HERE = Path(__file__).parent
JSON, PAGE = HERE / "real-stacks.json", HERE / "real-stacks.md"
SECONDS = 900  # a part may take
CONTEXT = multiprocessing.get_context("fork")  # packages are imported once

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
# of pytorch-optimizer: those that want to be told which parameters are matrices, or how long they train, or to do
# what their paper does: steps of all shapes alike (MARS), controllers' gains in use (PID), the rate as given (Grokfast,
# Adafactor), averages in the dtype of the weights (FAdam, Adafactor)
OF_MATRICES = ("adago", "adamuon", "distributedmuon", "muon", "muonclip", "normuon")
TOLD = {
    "bsam": {"num_data": 512},
    "ranger21": {"num_iterations": 1250},
    "mars": {"optimize_1d": True},
    "pid": {"momentum": 0.9},
    "grokfastadamw": {"normalize_lr": False},
    "adafactor": {"relative_step": False, "momentum_dtype": torch.float64},
    "fadam": {"momentum_dtype": torch.float64, "fim_dtype": torch.float64},
}


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
        groups = [*params]
        groups = groups if isinstance(groups[0], dict) else [{"params": groups}]
        if any(p.ndim != 2 for group in groups for p in group["params"]):
            raise ValueError("expected matrices")
        return optimizer([{**group, "use_muon": True} for group in groups], **arguments)

    return make


def measure(group, name, quick):
    """Rows of check, those that fail or tell something in full."""
    from identity_props.conformance.checking import check

    kept = ("recognised", "learns-identity")
    rows = [asdict(row) for row in check(stack_of(group, name), quick=quick)]
    return [
        {key: value for key, value in row.items() if value not in (None, "") and key != "curves"}
        if row["verdict"] == "fail" or row["name"] in kept
        else {"name": row["name"], "verdict": row["verdict"]}
        for row in rows
    ]


def measured(parts, quick, jobs):
    """What is found of each, as it comes, so many beside one another.

    In processes of their own, since some parts change torch's global state, and some never end.
    """
    coming, running = iter(parts), {}
    while True:
        for part in islice(coming, jobs - len(running)):
            ours, theirs = CONTEXT.Pipe(duplex=False)
            process = CONTEXT.Process(target=_answer, args=(theirs, *part[:2], quick))
            process.start()
            theirs.close()
            running[ours] = part, process, time.monotonic()
        if not running:
            return
        first = min(begun for _, _, begun in running.values())
        ready = wait(running, max(0.0, first + SECONDS - time.monotonic()))
        late = [pipe for pipe, (_, _, begun) in running.items() if time.monotonic() - begun >= SECONDS]
        for pipe in {*ready, *late}:
            part, process, begun = running.pop(pipe)
            rows = _heard(pipe) if pipe in ready else [_failed(f"not finished in {SECONDS} s", "")]
            process.kill()
            process.join()
            yield _found(part, rows, round(time.monotonic() - begun))


def _heard(pipe):
    try:
        return pipe.recv()
    except EOFError:
        return [_failed("error", "it ended its process")]


def _found(part, rows, seconds):
    group, name, distribution = part
    print(name, f"{seconds} s", *[row["name"] for row in rows if row["verdict"] == "fail"], flush=True)
    return {
        "group": group,
        "name": name,
        "package": distribution,
        "version": version(distribution),
        "rows": rows,
    }


def _answer(pipe, group, name, quick):
    try:
        pipe.send(measure(group, name, quick))
    except Exception as error:
        pipe.send([_failed("error", f"{type(error).__name__}: {error}")])


def _failed(kind, note):
    return {"name": "check", "verdict": "fail", "kind": kind, "note": note}


def write(known):
    found = [known[part[:2]] for part in parts() if part[:2] in known]
    JSON.write_text("[\n" + ",\n".join(map(json.dumps, found)) + "\n]\n")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", action="store_true", help="write the page alone, from the JSON")
    parser.add_argument("--anew", action="store_true", help="forget what was measured before")
    parser.add_argument("--only", nargs="+", help="measure the parts of these names anew, keep the others")
    parser.add_argument(
        "--quick", action="store_true", help="ask what it is and the contract, keep other rows"
    )
    parser.add_argument("--jobs", type=int, default=1, help="parts that are measured beside one another")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(JSON.read_text()) if JSON.exists() and not given.anew else []
    known = {(one["group"], one["name"]): one for one in found}
    wanted = [part for part in parts() if (part[1] in given.only if given.only else part[:2] not in known)]
    for fresh in measured([] if given.page else wanted, given.quick, max(1, given.jobs)):
        name = fresh["group"], fresh["name"]
        if given.quick:
            before = known.get(name, {"rows": []})["rows"]
            asked = {row["name"] for row in fresh["rows"]}
            fresh["rows"] += [row for row in before if row["name"] not in asked]
        known[name] = fresh
        write(known)
    PAGE.write_text(page(write(known)))


if __name__ == "__main__":
    main()

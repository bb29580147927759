"""The options --identity-..., as data: those that make the stack, the trainer, and the others."""

from __future__ import annotations

from typing import Any

NAME = {"metavar": "PKG.MOD:NAME"}
ARGUMENT = {"action": "append", "default": [], "metavar": "KEY=VALUE", "help": "argument of it; repeat"}
# of --identity-...: those that make the stack, then the others
STACK: dict[str, dict[str, Any]] = {
    "optimizer": {**NAME, "help": "optimizer under test"},
    "optimizer-arg": ARGUMENT,
    "linear": {**NAME, "help": "linear layer under test"},
    "activation": {**NAME, "help": "what stands in for ReLU"},
    "init": {**NAME, "help": "draws a layer's parameters in place"},
    "loss": {**NAME, "help": "loss(prediction, target)"},
    "step": {**NAME, "help": "takes a training step, (optimizer, loss)"},
    "batches": {**NAME, "help": "yields batches, (data, size, generators)"},
    "like": {**NAME, "help": "optimizer that the one under test has to equal, or paper:adam"},
    "like-arg": ARGUMENT,
    "like-linear": {**NAME, "help": "layer that the one under test has to equal"},
    "like-loss": {**NAME, "help": "loss that the one under test has to equal"},
    "like-step": {**NAME, "help": "step that the one under test has to equal"},
    "like-batches": {**NAME, "help": "batches that those under test have to equal, of equal seeds"},
    "clip": {"type": float, "metavar": "NORM", "help": "norm of all gradients at which the step clips"},
    "like-tolerance": {
        "type": float,
        "default": 0.0,
        "metavar": "X",
        "help": "relative distance allowed to a part that rounds on purpose (default: rounding)",
    },
    "features": {
        "default": "",
        "metavar": "SIZES",
        "help": "sizes that the layer takes, such as 16,64 (default: any)",
    },
    "novel": {
        "action": "store_true",
        "default": False,
        "help": "the optimizer under test is meant to be none that is published",
    },
    "device": {
        "default": "cpu",
        "metavar": "DEVICE",
        "help": "cpu, cuda (one GPU a worker, in turn) or cuda:N (default: cpu)",
    },
    "dtype": {
        "choices": ("float64", "float32", "bfloat16"),
        "default": "float32",
        "help": "dtype of training (default: float32)",
    },
    "mode": {
        "choices": ("eager", "compiled"),
        "default": "eager",
        "help": "compiled sends loss and step through torch.compile (default: eager)",
    },
    "ranks": {
        "type": int,
        "default": 1,
        "metavar": "N",
        "help": "processes that train data-parallel, with gloo (default: 1)",
    },
}
TRAINER: dict[str, dict[str, Any]] = {
    "trainer": {
        "default": "plain",
        "metavar": "NAME|PKG.MOD:FIT",
        "help": "whole trainer under test (default: plain, the package's own)",
    },
    "trainer-arg": ARGUMENT,
    "accept": {
        "action": "append",
        "default": [],
        "metavar": "RULE",
        "help": "rule that the trainer is meant to follow, such as means; repeat",
    },
}
LAYER: dict[str, dict[str, Any]] = {
    "layer": {
        "default": None,
        "metavar": "PKG.MOD:FACTORY",
        "help": "layer of any kind under test, which makes a torch.nn.Module (default: a convolution)",
    },
    "layer-arg": ARGUMENT,
    "input-shape": {
        "action": "append",
        "default": [],
        "metavar": "SIZES",
        "help": "shape of one example of its input, such as 3,7,7; repeat for further inputs",
    },
    "input-kind": {
        "choices": ("float", "tokens"),
        "default": "float",
        "help": "numbers, or ids of tokens (default: float)",
    },
    "like-layer": {"metavar": "PKG.MOD:FACTORY", "help": "layer that the one under test has to equal"},
}
# those that make the reference, in the order of reference_of
LIKE = (
    *("like", "like-arg", "like-linear", "like-loss", "like-step", "like-batches"),
    *("clip", "like-tolerance", "novel"),
)
OPTIONS: dict[str, dict[str, Any]] = {
    **STACK,
    **TRAINER,
    **LAYER,
    "data": {
        "choices": ("digits", "mnist"),
        "default": "digits",
        "help": "data the claims are judged on (default: digits)",
    },
    "side": {"type": int, "choices": (7, 14, 28), "default": 7, "help": "pixels a side (default: 7)"},
    "data-dir": {"metavar": "DIR", "help": "folder that holds MNIST/raw (default: $IDENTITY_PROPS_DATA)"},
    "replicas": {
        "type": int,
        "metavar": "N",
        "help": "networks a claim, doubled while it is undecided (default: 8, with a baseline 16)",
    },
    "seed": {"type": int, "default": 0, "metavar": "N", "help": "seed of the first replica (default: 0)"},
    "baseline": {"metavar": "FILE", "help": "baseline that the claims are compared with, see gate"},
    "update": {
        "action": "store_true",
        "help": "record the claims in the baseline in place of comparing them; its others stay",
    },
    "strict": {"action": "store_true", "help": "better, faster or other machines fail there too"},
}

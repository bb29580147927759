"""The trainers that have a name here, each an adapter in the module of that name."""

from importlib import import_module
from types import ModuleType

NAMES = {  # with the package that each has to find
    "plain": "torch",
    "lightning": "lightning",
    "accelerate": "accelerate",
    "transformers": "transformers",
    "trl": "trl",
    "keras-torch": "keras",
    "keras-jax": "keras",
    "keras-tensorflow": "keras",
    "optax": "optax",
    "ddp": "torch",
    "fsdp": "torch",
    "deepspeed": "deepspeed",
    "skorch": "skorch",
    "ignite": "ignite",
    "fastai": "fastai",
}


def module_of(name: str) -> ModuleType:
    """Its adapter; raises ModuleNotFoundError where the package is not there."""
    return import_module(f"identity_props.trainers.{name.replace('-', '_')}")

"""Passes of one built layer, forward and backward, each from the same state and the same draws."""

from __future__ import annotations

import copy
import inspect
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from identity_props.errors import InputError
from identity_props.layers.widening import widened
from identity_props.stack.guard import RAISED, alive
from identity_props.stack.seeding import seeded

RESETS = ("reset", "reset_state", "reset_states", "reset_cache")
COMPLEX = {torch.float64: torch.complex128, torch.float32: torch.complex64}
LARGEST = 4096  # token ids tried where nothing says how many there are
Gradients = dict[str, Tensor | None]  # of parameters and inputs, by name


def tensors_of(found: Any) -> list[Tensor]:
    """The floating tensors of an output, whatever holds them."""
    if isinstance(found, Tensor):
        return [found] if found.is_floating_point() else []
    if isinstance(found, dict):
        found = found.values()
    if isinstance(found, list | tuple) or hasattr(found, "__iter__"):
        return [tensor for one in found for tensor in tensors_of(one)]
    return []


def inputs_of(module: nn.Module) -> list[str]:
    """Names of the inputs that its forward pass wants; one where its signature does not say."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        found = inspect.signature(module.forward).parameters.values()
    except ValueError:  # it has none to be read
        return ["input"]
    return [p.name for p in found if p.kind in kinds and p.default is p.empty] or ["input"]


def trained(module: nn.Module) -> dict[str, nn.Parameter]:
    """Its parameters that take gradients, each once."""
    return {name: p for name, p in module.named_parameters() if p.requires_grad and p.is_floating_point()}


def generators_of(module: nn.Module) -> list[Any]:
    """Generators of its own, of torch, numpy or Python, which it draws from in place of the global ones."""
    kinds = torch.Generator, np.random.Generator, np.random.RandomState, random.Random
    held = (value for one in module.modules() for value in vars(one).values())
    return [value for value in held if isinstance(value, kinds)]


def rewind(generator: Any, was: Any, seed: int | None) -> None:
    """Put a generator where another of its kind is, or at a seed that nobody chooses."""
    seed = None if seed is None else (seed + 2_654_435_769) % 2**32
    if isinstance(generator, torch.Generator):
        generator.set_state(
            was.get_state() if seed is None else torch.Generator().manual_seed(seed).get_state()
        )
    elif isinstance(generator, random.Random):
        generator.setstate(was.getstate() if seed is None else random.Random(seed).getstate())
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(was.get_state() if seed is None else np.random.RandomState(seed).get_state())
    else:
        other = was if seed is None else np.random.Generator(type(generator.bit_generator)(seed))
        generator.bit_generator.state = other.bit_generator.state


def resets_of(module: nn.Module) -> list[Callable[[], Any]]:
    """Its ways to forget the state that it keeps between passes, as stateful networks have: such as change no parameter."""
    named = (getattr(one, name, None) for one in module.modules() for name in RESETS)
    return [reset for reset in named if callable(reset) and _forgets(module, reset)]


def _forgets(module: nn.Module, reset: Callable[[], Any]) -> bool:
    kept = [one.detach().clone() for one in module.parameters()]
    try:
        reset()
    except Exception:  # it wants to be told something
        return False
    if all(map(torch.equal, kept, module.parameters())):
        return True
    with torch.no_grad():
        for p, was in zip(module.parameters(), kept, strict=True):
            p.copy_(was)
    return False


def states_of(module: nn.Module) -> list[Tensor]:
    """Its parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """All numbers [n], in float64; of complex ones both parts."""
    real = [torch.view_as_real(one.detach().resolve_conj()) if one.is_complex() else one for one in tensors]
    return torch.cat([one.detach().double().cpu().reshape(-1) for one in real] or [torch.zeros(0)])


def plain(module: nn.Module) -> Tensor:
    """All parameters [n] that are kept as plain tensors, packed ones being their own."""
    return flat([p.data for p in module.parameters() if type(p.data) is Tensor])


def dense(gradient: Tensor | None) -> Tensor | None:
    """A copy in float64, of a sparse one too."""
    if gradient is None:
        return None
    whole = gradient.to_dense() if gradient.layout != torch.strided else gradient
    return whole.detach().double().cpu().clone()


@contextmanager
def quietly() -> Iterator[None]:
    """Warnings of a layer are its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass(eq=False)
class Passes:
    """A built layer in one mode; each pass begins from its buffers as they were, with the same draws."""

    module: nn.Module
    training: bool
    seed: int = 0
    device: str = "cpu"
    call: Callable[..., Any] | None = None  # in place of the layer, as compiled
    wide: bool = False  # nothing is cast to 16 bits
    names: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.names = inputs_of(self.module)
        self.buffers = {name: b.detach().clone() for name, b in self.module.named_buffers()}
        self.resets = resets_of(self.module)
        self.streams = [(one, copy.deepcopy(one)) for one in generators_of(self.module)]

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """Those that take gradients."""
        return trained(self.module)

    @property
    def when(self) -> str:
        return "training" if self.training else "evaluating"

    def restore(self) -> None:
        """Put the buffers back."""
        now = dict(self.module.named_buffers())
        for name, kept in self.buffers.items():
            with suppress(Exception):  # one that was replaced by another shape is the layer's own
                now[name].data.copy_(kept)

    def outs(self, xs: Sequence[Tensor], seed: int | None = None, again: bool = False) -> list[Tensor]:
        """Its floating outputs; with ``again`` from the buffers that the pass before left."""
        alive()
        if not again:
            self.restore()
        for forget in self.resets:
            forget()
        for generator, was in self.streams:
            rewind(generator, was, None if seed in (None, self.seed) else seed)
        self.module.train(self.training)
        with seeded(self.seed if seed is None else seed, self.device), quietly(), widened(self.wide):
            return tensors_of((self.call or self.module)(*xs))

    def flat(self, xs: Sequence[Tensor], seed: int | None = None, again: bool = False) -> Tensor:
        """Its outputs [n] in float64, without a graph."""
        with torch.no_grad():
            return flat(self.outs([x.detach().clone() for x in xs], seed, again))

    def along(self, outs: Sequence[Tensor], seed: int = 1) -> list[Tensor]:
        """A drawn upstream gradient of each output."""
        drawn = torch.Generator().manual_seed(self.seed + seed)
        return [torch.randn(out.shape, generator=drawn, dtype=torch.float64).to(out) for out in outs]

    def leaves(self, xs: Sequence[Tensor]) -> list[Tensor]:
        """Copies of the inputs that take gradients where they can."""
        return [x.detach().clone().requires_grad_(x.is_floating_point()) for x in xs]

    def clear(self) -> None:
        """Forget all gradients."""
        for p in self.module.parameters():
            p.grad = None

    def gradients(self, leaves: Sequence[Tensor]) -> Gradients:
        """What backward passes have left on parameters and inputs."""
        found: Gradients = {name: dense(p.grad) for name, p in self.parameters.items()}
        return found | {self.input(k): dense(x.grad) for k, x in enumerate(leaves) if x.is_floating_point()}

    def input(self, k: int) -> str:
        """What an input is called."""
        return "the input" if len(self.names) == 1 else f"the input {self.names[k]}"

    def floating(self, xs: Sequence[Tensor]) -> dict[str, Tensor]:
        """Parameters that take gradients, and inputs that can, by name."""
        inputs = {self.input(k): x for k, x in enumerate(xs) if x.is_floating_point()}
        return {**self.parameters, **inputs}

    def backward(
        self, xs: Sequence[Tensor], along: Sequence[Tensor] | None = None, seed: int = 1
    ) -> tuple[list[Tensor], Gradients]:
        """Outputs, and the gradients of one pass back with an upstream gradient that is given or drawn."""
        self.clear()
        leaves = self.leaves(xs)
        outs = self.outs([x.clone() for x in leaves])
        self.back(outs, self.along(outs, seed) if along is None else along)
        return [out.detach() for out in outs], self.gradients(leaves)

    def back(self, outs: Sequence[Tensor], along: Sequence[Tensor], retain: bool = False) -> None:
        """A pass back through all outputs that have one."""
        pairs = [(out, a) for out, a in zip(outs, along, strict=True) if out.requires_grad]
        if pairs:
            with quietly(), widened(self.wide):
                torch.autograd.backward([out for out, _ in pairs], [a for _, a in pairs], retain_graph=retain)

    def of(self, module: nn.Module) -> Passes:
        """The same of another module."""
        return Passes(module, self.training, self.seed, self.device, wide=self.wide)


def reason_of(passes: Passes, xs: Sequence[Tensor]) -> str:
    """Why passes in this mode are no function of inputs and parameters."""
    passes.module.train()
    before = plain(passes.module)
    passes.module.train(passes.training)
    if not torch.equal(before, plain(passes.module)):
        return f"{passes.when}, it merges or changes its parameters"
    first, second = passes.flat(xs), passes.flat(xs)
    if not torch.equal(before, plain(passes.module)):
        return f"{passes.when}, a pass changes its parameters"
    if not torch.equal(first.nan_to_num(), second.nan_to_num()):
        return f"{passes.when}, equal draws do not give equal outputs"
    if not torch.equal(first.nan_to_num(), passes.flat(xs, again=True).nan_to_num()):
        return f"{passes.when}, its output depends on buffers that each pass changes"
    return ""


def size(tensor: Tensor) -> float:
    """Root of the mean square, 1 of nothing but zeros."""
    return (float(tensor.detach().double().square().mean().sqrt()) if tensor.numel() else 0.0) or 1.0


def check_layer(made: object, name: str) -> nn.Module:
    """The module that a factory gave; raises InputError for what is none."""
    if not isinstance(made, nn.Module):
        raise InputError(f"layer {name}: expected a factory of torch.nn.Module, got {type(made).__name__}")
    return made


def tokens_of(module: nn.Module, shape: Sequence[int]) -> int:
    """How many token ids it takes: as a module of it says, else the most that do not raise."""
    module.eval()  # which of some gives nothing back
    said = [n for one in module.modules() if isinstance(n := getattr(one, "num_embeddings", None), int)]
    if said:
        return min(said)
    low, high = 1, LARGEST
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _takes(module, shape, middle - 1) else (low, middle - 1)
    return low


def _takes(module: nn.Module, shape: Sequence[int], token: int) -> bool:
    try:
        with torch.no_grad(), quietly():
            module(torch.full((1, *shape), token))
    except RAISED:
        return False
    return True


def begun_by_data(module: nn.Module, xs: Sequence[Tensor]) -> bool:
    """Whether its first pass in training, and not the second, changes parameters; not asked of a lazy one."""
    if any(map(is_lazy, states_of(module))):
        return False
    seen = [plain(module)]
    for _ in range(2):
        try:
            module.train()(*[x.clone() for x in xs])
        except RAISED:  # it says so where it is judged
            return False
        seen.append(plain(module))
    return not torch.equal(seen[0], seen[1]) and torch.equal(seen[1], seen[2])


def cast(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module in a dtype, complex numbers in that of as many digits; raises TypeError where torch has none."""

    def to(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(COMPLEX[dtype])
        return tensor.to(dtype) if tensor.is_floating_point() else tensor

    if not any(tensor.is_complex() for tensor in states_of(module)):
        return module.to(dtype)
    if dtype not in COMPLEX:
        raise TypeError(f"complex parameters: expected float64 or float32, got {dtype}")
    return module._apply(to)


def displace(module: nn.Module, seed: int) -> None:
    """Add a quarter of a standard normal to all that trains."""
    drawn = torch.Generator().manual_seed(seed + 104729)
    with torch.no_grad():
        for p in trained(module).values():
            noise = torch.randn(p.shape, generator=drawn, dtype=torch.float64)
            p.add_((noise / 4).to(p))

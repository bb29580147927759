"""The stack under test: what a user can swap, and how it is named on a command line."""

from __future__ import annotations

import ast
import importlib
import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from types import MethodType
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import mse_loss

from identity_props.errors import InputError, MissingError
from identity_props.stack.guard import RAISED
from identity_props.stack.loop import shuffled, take_step


def resolve(name: str) -> Any:
    """The object that ``pkg.mod:Name`` names; raises InputError, or MissingError if pkg is absent."""
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise InputError(f"expected pkg.mod:Name, such as torch.optim:SGD, got {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        raise MissingError(f"{name}: there is no module {error.name!r} to import") from error
    except AttributeError as error:
        raise InputError(f"{name}: module {module!r} has no {attribute!r}") from error
    except RAISED as error:  # a module of the user's may raise anything while it is imported
        raise InputError(f"{name}: importing {module!r} raised {type(error).__name__}: {error}") from error


def check_rate(lr: float) -> None:
    """Raise InputError for a rate that is none, or that float32, in which torch multiplies, does not hold."""
    if not 0 < lr <= torch.finfo(torch.float32).max:
        size = ", more than float32 holds" if 0 < lr < math.inf else ""
        raise InputError(f"lr: expected a finite rate above 0, got {lr}{size}")


MODES = ("eager", "compiled")
MOST_FEATURES = 784
PARTS = ("optimizer", "linear", "activation", "init", "loss", "step", "batches")
# as recorded baselines name them, wherever the functions lie
OWN = {"identity_props.loop:take_step": take_step, "identity_props.loop:shuffled": shuffled}


@dataclass(frozen=True, eq=False)
class Stack:
    """The implementation that trains: optimizer, layers, init, loss, loop, device, dtype, mode and ranks.

    ``optimizer(params, lr=..., **arguments)`` and ``linear(fan_in, fan_out, bias=...)`` are real
    classes or factories, ``activation(x)`` stands in for ReLU and ``init(layer)`` draws a layer's
    parameters in place; ``None`` for optimizer, ``lr`` or ``init`` takes what each recipe names.
    ``loss(prediction, target)`` [n, d] gives a mean over both, ``step(optimizer, loss)`` takes a training
    step on what ``loss()`` evaluates, and ``batches(data, size, generators)`` yields as loop.shuffled does.
    ``mode`` compiled sends loss and optimizer step through ``torch.compile``; ``ranks`` above 1
    trains in as many processes under DistributedDataParallel with gloo, each on its share of a batch.
    ``features`` are the sizes that its layers take, where they do not take any.
    Replicas share one optimizer over parameters stacked along a first axis [K, ...] where that
    is the same training, else they train one by one. Raises MissingError for a device, a dtype on it
    or ranks that are not there, InputError for a part that cannot be called or a value not listed.
    """

    optimizer: Callable[..., torch.optim.Optimizer] | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    linear: Callable[..., nn.Module] = nn.Linear
    activation: Callable[[Tensor], Tensor] = torch.relu
    init: Callable[[nn.Module], None] | None = None
    loss: Callable[[Tensor, Tensor], Tensor] = mse_loss
    step: Callable[[torch.optim.Optimizer, Callable[[], Tensor]], None] = take_step
    batches: Callable[[Tensor, int | None, list[torch.Generator]], Iterator[Tensor]] = shuffled
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    mode: str = "eager"
    ranks: int = 1
    lr: float | None = None
    features: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in PARTS:
            part = getattr(self, name)
            if part is not None and not callable(part):
                raise InputError(f"{name}: expected a class or function, got {part!r}")
        if not self.dtype.is_floating_point:
            raise InputError(f"dtype: expected a floating one, got {self.dtype}")
        if self.mode not in MODES:
            raise InputError(f"mode: expected {' or '.join(MODES)}, got {self.mode!r}")
        if self.lr is not None:
            check_rate(self.lr)
        for size in self.features:
            if not 1 <= size <= MOST_FEATURES:
                raise InputError(f"features: expected 1 to {MOST_FEATURES}, got {size}")
        self._check_device()
        self._check_ranks()

    def _check_device(self) -> None:
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise InputError(f"device: expected cpu, cuda or cuda:N, got {self.device!r}") from error
        if device.type == "cuda":
            found = torch.cuda.device_count()
            if (device.index or 0) >= found:
                raise MissingError(
                    f"device {self.device}: torch sees {found} CUDA devices; --device cpu works"
                )
        try:
            torch.ones(1, device=device, dtype=self.dtype).item()
        except Exception as error:  # each backend has its own for a dtype that it lacks
            raise MissingError(f"device {self.device}: has no {self.dtype}: {error}") from error

    def _check_ranks(self) -> None:
        if self.ranks < 1:
            raise InputError(f"ranks: expected at least 1, got {self.ranks}")
        if self.ranks > 1 and self.mode != "eager":
            raise InputError(f"ranks: expected mode eager for more than 1, got {self.mode!r}")
        if self.ranks > 1 and not (distributed.is_available() and distributed.is_gloo_available()):
            raise MissingError(f"ranks: expected a torch with gloo for {self.ranks}; 1 works without")

    def sized(self, *sizes: int) -> tuple[int, ...]:
        """These sizes of layers, or as many of ``features``, the first for the smallest."""
        if not self.features:
            return sizes
        order = sorted(set(sizes))
        return tuple(self.features[min(order.index(size), len(self.features) - 1)] for size in sizes)

    def beside(self, size: int) -> int:
        """Another size than this: two more, or another of ``features`` where there is one."""
        return next((other for other in self.features if other != size), size) if self.features else size + 2

    def describe(self) -> dict[str, Any]:
        """Names of the parts, for results.json."""
        parts = {name: part_name(getattr(self, name)) for name in PARTS}
        dtype = str(self.dtype).removeprefix("torch.")
        return parts | {"device": self.device, "dtype": dtype, "mode": self.mode, "ranks": self.ranks}

    def __str__(self) -> str:
        usual = Stack().describe()
        named = [f"{part} {name}" for part, name in self.describe().items() if name != usual[part]]
        return ", ".join(named) or "torch's own parts"


def part_name(part: Callable[..., Any] | None) -> str:
    """A part as pkg.mod:Name, by which it may be found again."""
    if part is None:
        return "the recipe's"
    for known, own in OWN.items():
        if part is own:
            return known
    name: str = getattr(part, "__qualname__", repr(part))
    return f"{part.__module__}:{name.removeprefix('_VariableFunctionsClass.')}"  # torch.relu is torch:relu


def features_of(text: str) -> tuple[int, ...]:
    """Sizes from text such as 16,64; raises InputError for what is none."""
    try:
        return tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError as error:
        raise InputError(f"features: expected sizes such as 16,64, got {text!r}") from error


DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


def arguments_of(pairs: Sequence[str]) -> dict[str, Any]:
    """Arguments from ``key=value`` texts, values as Python literals, else as they are."""
    arguments = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (key.isidentifier() and equals):
            raise InputError(f"argument: expected key=value, such as weight_decay=0.1, got {pair!r}")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[key] = value
    return arguments


def stack_of(
    optimizer: str | None = None,
    arguments: Sequence[str] = (),
    linear: str | None = None,
    activation: str | None = None,
    init: str | None = None,
    loss: str | None = None,
    step: str | None = None,
    batches: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    mode: str = "eager",
    ranks: int = 1,
    lr: float | None = None,
    features: str = "",
) -> Stack:
    """A stack from what a command line says: names as pkg.mod:Name, arguments as key=value."""
    if arguments and optimizer is None:
        raise InputError("optimizer arguments: expected an optimizer that takes them, got none")
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    return Stack(
        optimizer=None if optimizer is None else resolve(optimizer),
        arguments=arguments_of(arguments),
        linear=nn.Linear if linear is None else resolve(linear),
        activation=torch.relu if activation is None else resolve(activation),
        init=None if init is None else resolve(init),
        loss=mse_loss if loss is None else resolve(loss),
        step=take_step if step is None else resolve(step),
        batches=shuffled if batches is None else resolve(batches),
        device=device,
        dtype=DTYPES[dtype],
        mode=mode,
        ranks=ranks,
        lr=lr,
        features=features_of(features),
    )


def at_home(stack: Stack, device: str = "cpu", dtype: torch.dtype | None = None) -> Stack:
    """The same parts where nothing is in their way: on the CPU, eager, in one process."""
    return replace(stack, device=device, dtype=dtype or stack.dtype, mode="eager", ranks=1)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` through torch.compile, from an empty cache and never silently eager."""
    torch.compiler.reset()
    fast = torch.compile(function)

    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            return fast(*arguments, **named)

    return call


def ready(optimizer: Any, mode: str = "eager") -> torch.optim.Optimizer:
    """The optimizer, switched to training where it knows of that, as schedule-free ones do; compiled on request."""
    if hasattr(optimizer, "train"):
        optimizer.train()
    if mode == "compiled":
        # a bound method, as schedulers want to wrap it
        optimizer.step = MethodType(compiled(type(optimizer).step), optimizer)
    return optimizer


def rate_of(stack: Stack, lr: float) -> float | Tensor:
    """The rate in the form that a schedule may move: compiled code takes a float for a constant."""
    return torch.tensor(lr, dtype=torch.float64) if stack.mode == "compiled" else lr


def without_eps(optimizer: Callable[..., Any], mode: str = "eager") -> dict[str, float]:
    """Arguments that take an optimizer's ``eps`` out of the way, where it has one.

    It is the least normal number; compiled code holds it in float32, where that of float64 is 0. One that
    names ``eps`` and refuses a number is given it all the same: its own is in the way.
    """
    least = torch.finfo(torch.float32 if mode == "compiled" else torch.float64).tiny
    return {"eps": least} if names(optimizer, "eps") or takes(optimizer, "eps", least) else {}


def takes(optimizer: Callable[..., Any], argument: str, value: Any = 0.9, **beside: Any) -> bool:
    """Whether an optimizer takes ``argument=value``, found by building one with it.

    It also has to name the argument, to show the value in its groups, or to step otherwise with it:
    one that swallows whatever it is given does not take it.
    """
    try:
        made = optimizer([nn.Parameter(torch.ones(2, 3))], lr=1.0, **{**beside, argument: value})
    except Exception:  # of several types
        return False
    if names(optimizer, argument) or any(group.get(argument) == value for group in made.param_groups):
        return True
    one, other = (_two_steps(optimizer, given) for given in (beside, {**beside, argument: value}))
    return not torch.equal(one, other)


def names(optimizer: Callable[..., Any], argument: str) -> bool:
    """Whether an optimizer's signature has the argument; False where it has none to be read."""
    try:
        return argument in inspect.signature(optimizer).parameters
    except ValueError:
        return False


def of_floats(optimizer: Callable[..., Any], argument: str) -> bool:
    """Whether an optimizer's signature annotates an argument as a float, and as nothing else beside."""
    if not names(optimizer, argument):
        return False
    return inspect.signature(optimizer).parameters[argument].annotation in (float, "float")


def _two_steps(optimizer: Callable[..., Any], arguments: Mapping[str, Any]) -> Tensor:
    """A parameter of ones [2, 3] after two steps in float64, NaN where it takes none."""
    parameter = nn.Parameter(torch.ones(2, 3, dtype=torch.float64))
    try:
        stepper = ready(optimizer([parameter], lr=1 / 128, **arguments))
        for factor in (1, -2):
            parameter.grad = factor * torch.arange(1, 7, dtype=torch.float64).view(2, 3)
            stepper.step()
    except Exception:  # a closure or a shape that it wants
        return torch.zeros(0)
    return parameter.detach()

"""Networks for long training, whose gradient is recorded once; ensembles of them in rows of one tensor.

A step of small networks is mostly dispatch: of Python, ``vmap``, autograd and an optimizer's six operations
on each of eight tensors. Here the layers' own forward pass and autograd's own backward pass run once, under
``make_fx``, and every step runs the operations that they called, in their order; an optimizer is given one
tensor for all of an ensemble. The result changes by rounding at most, see the law *recorded*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.fx.node import map_arg
from torch.nn.functional import mse_loss

from identity_props.engine.ensemble import Ensemble, Single, State
from identity_props.stack.guard import alive
from identity_props.stack.loop import needs_loss, step_alone, take_step
from identity_props.stack.stack import Stack
from identity_props.task.models import Variant

CLEARS = torch.optim.Optimizer.zero_grad
KEPT = 2**20  # numbers of a constant at most
aten = torch.ops.aten
VIEWS = (
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
)


def recordable(stack: Stack) -> bool:
    """Whether network, loss and step are the usual ones, which do the same at every step, and where it was measured."""
    own = stack.linear is nn.Linear and stack.activation is torch.relu and stack.loss is mse_loss
    here = (torch.device(stack.device).type, stack.mode, stack.ranks) == ("cpu", "eager", 1)
    return own and here and stack.step is take_step


class _Recorded(Ensemble):
    """Steps by a recorded gradient; the stack has to be ``recordable``."""

    def __init__(
        self, variant: Variant, d: int, seeds: Sequence[int], stack: Stack, init: str = "glorot"
    ) -> None:
        super().__init__(variant, d, seeds, stack, init)
        kind: tuple[Any, ...] = type(self), variant, d, stack.device, stack.dtype
        self._record: Callable[..., GraphModule] = lru_cache(maxsize=None)(partial(_record, *kind))

    def step(self, optimizer: torch.optim.Optimizer, x: Tensor, target: Tensor | None = None) -> None:
        """One training step as ``take_step`` takes it: the optimizer clears the gradients, and autograd adds to what it left."""
        if target is not None or needs_loss(optimizer):
            super().step(optimizer, x, target)
            return
        alive()
        gradients = self.gradients(x)
        given = [(p, g) for p, g in zip(self.leaves.values(), gradients, strict=True) if p.requires_grad]
        if _usual(optimizer) and not any(_other(p, g) for p, g in given):
            for p, gradient in given:
                p.grad = gradient  # what clearing and adding come to, without 0.2 ms a step of autograd
        else:
            optimizer.zero_grad()
            for p, gradient in given:
                p.backward(gradient)  # with the hooks that an optimizer may have set
        step_alone(optimizer, partial(super().step, optimizer, x))

    def gradients(self, x: Tensor) -> tuple[Tensor, ...]:
        """The leaves' gradients on a batch, x as in ``loss``."""
        record = self._record(len(self.seeds), x.shape)
        with torch.no_grad():
            gradients: tuple[Tensor, ...] = record(x, *self.leaves.values())
        return gradients

    def hold(self, leaves: Mapping[str, Tensor], seeds: Sequence[int]) -> None:
        """Be these replicas from now on: leaves [K, ...] by name, of K seeds."""
        self._leaves = {name: nn.Parameter(leaf) for name, leaf in leaves.items()}
        self.seeds = tuple(seeds)

    def loss_of(self, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
        """What ``loss`` is with other tensors in the place of the leaves."""
        raise NotImplementedError


class RecordedSingle(_Recorded, Single):
    """One network by itself."""

    def loss_of(self, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
        x, state = x.reshape(x.shape[-2:]), dict(zip(self.leaves, leaves, strict=True))
        return self.stack.loss(functional_call(self.model, state, (x,)), x)


class RecordedRows(_Recorded):
    """K replicas as rows [K, P] of one leaf, for an optimizer that is elementwise."""

    def __init__(
        self, variant: Variant, d: int, seeds: Sequence[int], stack: Stack, init: str = "glorot"
    ) -> None:
        super().__init__(variant, d, seeds, stack, init)
        self._shapes = {name: p.shape for name, p in self._leaves.items()}
        rows = torch.cat([_turned(p.detach()).flatten(1) for p in self._leaves.values()], 1)
        self._leaves = {"rows": nn.Parameter(rows)}

    @property
    def state(self) -> State:
        """Parameters [K, ...], views of the rows."""
        return self._views(self._leaves["rows"])

    def _views(self, rows: Tensor) -> State:
        sizes = [shape[1:].numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), rows.split(sizes, 1), strict=True)
        return {name: _turned(p.view(len(rows), *reversed(shape))) for (name, (_, *shape)), p in parts}

    def loss_of(self, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
        return self._losses(self._views(*leaves), x, x).sum()


class RecordedStacked(_Recorded):
    """K replicas as parameters [K, ...]."""

    def loss_of(self, x: Tensor, leaves: Sequence[Tensor]) -> Tensor:
        return self._losses(dict(zip(self.leaves, leaves, strict=True)), x, x).sum()


def _usual(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it is one of torch's own, which set no hooks, and clears gradients as they do."""
    own = type(optimizer).__module__.startswith("torch.optim.")
    return own and type(optimizer).zero_grad is CLEARS and "zero_grad" not in vars(optimizer)


def _other(p: Tensor, gradient: Tensor) -> bool:
    """Whether autograd leaves something else than the gradient as it is: what hooks make of it, or a copy."""
    return bool(p._backward_hooks or p._post_accumulate_grad_hooks) or p.stride() != gradient.stride()


def _turned(part: Tensor) -> Tensor:
    """Matrices lie in the rows as their gradients come from autograd, transposed."""
    return part.mT if part.ndim == 3 else part


@lru_cache(maxsize=32)
def _record(
    kind: type[_Recorded],
    variant: Variant,
    d: int,
    device: str,
    dtype: torch.dtype,
    replicas: int,
    shape: torch.Size,
) -> GraphModule:
    """A batch and leaves to the leaves' gradients, whatever the numbers in them."""
    networks = kind(variant, d, range(replicas), Stack(device=device, dtype=dtype))

    def gradient(x: Tensor, *leaves: Tensor) -> tuple[Tensor, ...]:
        leaves = tuple(leaf.detach().requires_grad_() for leaf in leaves)
        one = torch.ones((), dtype=dtype, device=device)
        return torch.autograd.grad(networks.loss_of(x, leaves), leaves, one)

    x = torch.zeros(shape, dtype=dtype, device=device)
    return _lean(make_fx(gradient, tracing_mode="fake")(x, *networks.leaves.values()))


def _lean(module: GraphModule) -> GraphModule:
    """The same numbers from fewer and cheaper calls: without what changes nothing, nor what is the same each time.

    The loss goes too, as only gradients are returned. Calls that are left go to torch's own functions, which
    are faster to reach than its operators.
    """
    nodes, constants = module.graph.nodes, dict[Node, Tensor]()
    for node in nodes:
        if node.op == "call_function" and _changes_nothing(node):
            node.replace_all_uses_with(node.all_input_nodes[0])
    module.graph.eliminate_dead_code()
    for node in nodes:
        known = node.op == "call_function" and constants.keys() >= {*node.all_input_nodes}
        if known and node.meta["val"].numel() <= KEPT:
            arguments = map_arg((node.args, node.kwargs), constants.__getitem__)
            constants[node] = node.target(*arguments[0], **arguments[1])
    for node in [*nodes]:
        if node.target is aten.mse_loss_backward.default and node.args[0] in constants:
            _subtracted(node, constants[node.args[0]])
    for node, value in constants.items():
        module.register_buffer(node.name, value, persistent=False)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(node.name))
    module.graph.eliminate_dead_code()
    for node in nodes:
        node.target = _direct(node.target) if node.op == "call_function" else node.target
    module.graph.set_codegen(CodeGen())  # arguments and results as they are, not as trees
    module.recompile()
    return module


def _changes_nothing(node: Node) -> bool:
    if node.target is aten.mul.Scalar:
        return bool(node.args[1] == 1)
    if node.target not in VIEWS:
        return False
    before, after = (one.meta["val"] for one in (*node.all_input_nodes, node))
    return [*before.shape, *before.stride()] == [*after.shape, *after.stride()]


def _subtracted(node: Node, outer: Tensor) -> None:
    """The gradient of a mean of squares as two passes in place of four, bit for bit: (a - b) 2 / n."""
    _, prediction, target, mean = node.args
    first = float(outer.flatten()[0])
    if not bool((outer == first).all()) or (mean and first != 1):
        return
    factor = 2 / node.meta["val"].numel() if mean else 2 * first
    with node.graph.inserting_before(node):
        difference = node.graph.call_function(torch.sub, (prediction, target))
        node.replace_all_uses_with(node.graph.call_method("mul_", (difference, factor)))
    node.graph.erase_node(node)


def _direct(operator: Any) -> Any:
    name = getattr(operator, "_opname", "")
    return getattr(torch, name, None) or getattr(Tensor, name, operator)

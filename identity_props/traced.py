"""Ensembles for long training: the gradient recorded once, over parameters in rows of one tensor.

A step of eight small networks is mostly dispatch: of Python, ``vmap``, autograd and an optimizer's six
operations on each of eight tensors. Here the layers' own forward pass and autograd's own backward pass run
once, under ``make_fx``, and every step runs the operations that they called, in their order. The optimizer
is given one tensor. Not a bit of the result changes, see the law *recorded*.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg
from torch.nn.functional import mse_loss

from identity_props.ensemble import Ensemble, State
from identity_props.guard import alive
from identity_props.loop import take_step
from identity_props.models import Variant
from identity_props.stack import Stack

KEPT = 2**20  # numbers of a constant at most
aten = torch.ops.aten
VIEWS = (
    aten.alias.default,
    aten.detach.default,
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
)


def traceable(stack: Stack) -> bool:
    """Whether network, loss and step are the usual ones, which do the same at every step, in one process."""
    own = stack.linear is nn.Linear and stack.activation is torch.relu and stack.loss is mse_loss
    return own and stack.step is take_step and stack.mode == "eager" and stack.ranks == 1


class Traced(Ensemble):
    """K replicas as rows [K, P] of one parameter; the stack has to be ``traceable``, its optimizer elementwise."""

    def __init__(
        self, variant: Variant, d: int, seeds: Sequence[int], stack: Stack, init: str = "glorot"
    ) -> None:
        super().__init__(variant, d, seeds, stack, init)
        self._shapes = {name: p.shape for name, p in self._leaves.items()}
        self.rows = nn.Parameter(_in_rows([p.detach() for p in self._leaves.values()]))
        self._leaves = {"rows": self.rows}
        self._gradient = partial(_recorded, variant, d, len(seeds), stack.device, stack.dtype)

    @property
    def state(self) -> State:
        """Parameters [K, ...], views of the rows."""
        return self._views(self.rows)

    def _views(self, rows: Tensor) -> State:
        sizes = [shape[1:].numel() for shape in self._shapes.values()]
        parts = zip(self._shapes.items(), rows.split(sizes, 1), strict=True)
        return {name: _turned(p.view(k, *reversed(shape))) for (name, (k, *shape)), p in parts}

    def step(self, optimizer: torch.optim.Optimizer, x: Tensor, target: Tensor | None = None) -> None:
        """One training step: the gradient of the rows, then the optimizer."""
        if target is not None:
            super().step(optimizer, x, target)
            return
        alive()
        gradient = self._gradient(x.shape)
        with torch.no_grad():
            self.rows.grad = gradient(self.rows, x)
        optimizer.step()

    def losses(self, rows: Tensor, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Losses [K] of the networks in ``rows`` on x, and the leaves that they depend on."""
        state = {name: p.requires_grad_() for name, p in self._views(rows.detach()).items()}
        return self._losses(state, x, x), [*state.values()]


@lru_cache(maxsize=32)
def _recorded(
    variant: Variant, d: int, replicas: int, device: str, dtype: torch.dtype, shape: torch.Size
) -> GraphModule:
    """Rows [K, P] and a batch to the rows' gradient [K, P], whatever the numbers in them."""
    networks = Traced(variant, d, range(replicas), Stack(device=device, dtype=dtype))

    def gradient(rows: Tensor, x: Tensor) -> Tensor:
        losses, leaves = networks.losses(rows, x)
        each = torch.ones(replicas, dtype=dtype, device=device)  # of a sum over replicas
        return _in_rows(torch.autograd.grad(losses, leaves, each))

    x = torch.zeros(shape, dtype=dtype, device=device)
    return _lean(make_fx(gradient, tracing_mode="fake")(networks.rows, x))


def _turned(part: Tensor) -> Tensor:
    """Matrices lie in the rows as their gradients come from autograd, transposed."""
    return part.mT if part.ndim == 3 else part


def _in_rows(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat([_turned(part).flatten(1) for part in parts], 1)


def _lean(module: GraphModule) -> GraphModule:
    """The same numbers from fewer and cheaper calls: without what changes nothing, nor what is the same each time.

    What the losses themselves are goes too, as only their gradient is returned. Calls that are left go to
    torch's own functions, which are faster to reach than its operators.
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
    for node, value in constants.items():
        module.register_buffer(node.name, value, persistent=False)
        with module.graph.inserting_before(node):
            node.replace_all_uses_with(module.graph.get_attr(node.name))
    module.graph.eliminate_dead_code()
    for node in nodes:
        node.target = _direct(node.target) if node.op == "call_function" else node.target
    module.recompile()
    return module


def _changes_nothing(node: Node) -> bool:
    if node.target is aten.mul.Scalar:
        return bool(node.args[1] == 1)
    if node.target not in VIEWS:
        return False
    before, after = (one.meta["val"] for one in (*node.all_input_nodes, node))
    return [*before.shape, *before.stride()] == [*after.shape, *after.stride()]


def _direct(operator: Any) -> Any:
    name = getattr(operator, "_opname", "")
    return getattr(torch, name, None) or getattr(Tensor, name, operator)

"""Laws of a layer's life: modes, freezing, copies and files, what a pass leaves as it was, and equal bits."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.laws.base import changed
from identity_props.laws.walking import NotOfferedError, offered
from identity_props.layers.adding import compared, near, same_outputs
from identity_props.layers.base import NotPromised, judged_modes, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.evaluating import of_both_modes
from identity_props.layers.passes import Gradients, Passes, cast, trained
from identity_props.stack.stack import compiled

Result = tuple[list[Tensor], Gradients]


@layer_law(
    "layer-modes",
    "outputs are the same in training and evaluating, or probabilities of its logits there, of what neither draws nor counts, and of what goes by its"
    " batch in training, and evaluates by what it counts of batches, once that has settled on one; outputs and gradients are, after another mode, after passes without a graph, frozen and thawed, in a copy,"
    " saved and loaded into one that is drawn anew, with part of the inputs without gradient, after new weights, after inputs of another size, and compiled where that is asked",
    "what a pass keeps for the next one is stale, or a copy is none",
    "a layer is a function of its state and its mode",
)
def layer_modes(bench: LayerBench) -> Discrepancy:
    """Rounding of sums in another order, and a hundredth where statistics settle: variances of 160 examples are counted
    with n - 1 by some. What a layer refuses is no fault: it is loud.
    """
    found = [
        *of_both_modes(bench),
        *(one for passes in judged_modes(bench) for one in _lives(bench, passes)),
    ]
    return told(found)


def _lives(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    expected = passes.backward(xs)
    for name, life in LIVES.items():
        try:
            with offered(name):
                outcome = [*life(bench, bench.passes(passes.training), xs, expected)]
        except NotOfferedError:
            continue
        yield from outcome
    if bench.mode == "compiled" and not passes.wide:
        yield from _compiled(bench, bench.passes(passes.training), xs, expected)


def _same(
    bench: LayerBench, passes: Passes, xs: Sequence[Tensor], expected: Result, when: str
) -> Iterator[Discrepancy]:
    outs, gradients = passes.backward(xs)
    yield from _both(bench, (outs, gradients), expected, f"{passes.when}, {when}")


def _both(bench: LayerBench, one: Result, other: Result, when: str) -> Iterator[Discrepancy]:
    allowed = near(bench, sum(out.numel() for out in other[0]), 16)
    yield from same_outputs(one[0], other[0], allowed, when)
    yield from compared(one[1], other[1], allowed, when)


def _other_mode(
    bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result
) -> Iterator[Discrepancy]:
    """A pass in the other mode, then back; its buffers are put back."""
    passes.training = not passes.training
    passes.backward(bench.inputs(salt=5))
    passes.training = not passes.training
    yield from _same(bench, passes, xs, expected, "after a pass in the other mode")


def _no_graph(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    for name, without in (("no_grad", torch.no_grad), ("inference_mode", torch.inference_mode)):
        with without():
            outs = [out.clone() for out in passes.outs([x.clone() for x in xs])]
        when = f"{passes.when}, under {name}"
        yield from same_outputs(outs, expected[0], near(bench, 16, sum(map(Tensor.numel, outs))), when)
        yield from _same(bench, passes, xs, expected, f"after a pass under {name}")


def _frozen(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    outs, gradients = expected
    for name, p in passes.parameters.items():
        p.requires_grad_(False)
        found = passes.backward(xs)
        p.requires_grad_(True)
        rest = {other: g for other, g in gradients.items() if other != name}
        yield from _both(bench, found, (outs, rest), f"{passes.when}, {name} frozen")
        came = 0 if p.grad is None else int((p.grad != 0).sum())
        yield Discrepancy(came, 0, f"backward, {name}, {passes.when}: gradients of it, frozen")
    yield from _same(bench, passes, xs, expected, "thawed again")


def _part_without(
    bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result
) -> Iterator[Discrepancy]:
    """Each input in turn takes no gradient; what else there is comes all the same."""
    for k in range(len(xs)):
        passes.clear()
        leaves = passes.leaves(xs)
        leaves[k] = xs[k].clone()
        outs = passes.outs([x.clone() for x in leaves])
        passes.back(outs, passes.along(outs))
        rest = {name: g for name, g in expected[1].items() if name != passes.input(k)}
        found = {name: g for name, g in passes.gradients(leaves).items() if name in rest}
        yield from _both(
            bench, (outs, found), (expected[0], rest), f"{passes.when}, no gradient for {passes.input(k)}"
        )


def _copied(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    """A deep copy is the same, and shares nothing."""
    other = passes.of(copy.deepcopy(passes.module))
    yield from _same(bench, other, xs, expected, "a deep copy")
    tied = len(trained(passes.module)) - len(trained(other.module))
    yield Discrepancy(
        abs(tied), 0, f"{passes.when}, a deep copy: parameters more or fewer, as of ties that it cuts"
    )
    other.module.train()
    with torch.no_grad():
        for p in other.parameters.values():
            p.mul_(2)
    yield from _same(bench, passes, xs, expected, "its deep copy changed")
    passes.clear()
    other.backward(xs)
    came = sum(p.grad is not None for p in passes.parameters.values())
    yield Discrepancy(came, 0, f"{passes.when}: gradients that a pass of a deep copy leaves on the original")


def _loaded(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    """Into a layer of the same draws; evaluating, of others, as what is drawn once and not saved is another there."""
    file = io.BytesIO()
    torch.save(passes.module.state_dict(), file)
    file.seek(0)
    anew = bench if passes.training else replace(bench, seed=bench.seed + 1)
    fresh = cast(anew.made().to(bench.device), bench.dtype)
    with torch.no_grad():
        for p in trained(fresh).values():
            p.add_(1)
    fresh.load_state_dict(torch.load(file, weights_only=False))
    other = passes.of(fresh)
    yield from _same(bench, other, xs, expected, "saved and loaded" + ", drawn anew" * (anew is not bench))


def _renewed(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    """Weights are changed in training, as by an optimizer, and put back: what is kept of them shows."""
    other = bench.passes(passes.training)
    for one in (other, passes):
        if one is passes:
            one.backward(xs)
        one.module.train()
        with torch.no_grad():
            for p in one.parameters.values():
                p.mul_(-2).add_(0.25)
    expected = other.backward(xs)
    if all(bool(out.isfinite().all()) for out in expected[0]):  # as weights may be that large
        yield from _same(bench, passes, xs, expected, "after new weights")


def _resized(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    """Inputs of another size, axis by axis where it takes them: what is kept for one size is not that of another."""
    for axis in range(max(map(len, bench.shapes))):
        shapes = [tuple(n + 2 * (k == axis) for k, n in enumerate(shape)) for shape in bench.shapes]
        larger = bench.inputs(shapes=shapes)
        try:
            with offered("another size"):
                alone, seen = bench.passes(passes.training).backward(larger), bench.passes(passes.training)
                when = f"inputs longer by 2 along axis {axis}"
                seen.backward(xs)
                found = [*_same(bench, seen, larger, alone, f"{when} after others")]
                found += _same(bench, seen, xs, expected, f"after {when}")
        except NotOfferedError:
            continue
        yield from found


def _compiled(bench: LayerBench, passes: Passes, xs: list[Tensor], expected: Result) -> Iterator[Discrepancy]:
    passes.call = compiled(passes.module)
    yield from _same(bench, passes, xs, expected, "compiled")


Life = Callable[[LayerBench, Passes, list[Tensor], Result], Iterator[Discrepancy]]
LIVES: dict[str, Life] = {
    "another mode": _other_mode,
    "no graph": _no_graph,
    "frozen": _frozen,
    "part without gradient": _part_without,
    "copied": _copied,
    "loaded": _loaded,
    "new weights": _renewed,
    "another size": _resized,
}


# What a pass leaves as it was ---------------------------------------------------------------------------


@layer_law(
    "in-place",
    "a pass forward and back changes neither the input, nor the upstream gradient, nor a parameter; back, none of the"
    " buffers that it counts in forward",
    "another layer that reads the same tensor computes with other numbers",
    "what is not said to be in place is not",
    needs="no module with inplace=True",
    kind="changes what it reads",
)
def in_place(bench: LayerBench) -> Discrepancy:
    """None: numbers that are not the same bit for bit are counted."""
    if any(getattr(one, "inplace", False) for one in bench.made().modules()):
        raise NotPromised("a module of it has inplace=True")
    if any(getattr(one, "max_norm", None) is not None for one in bench.made().modules()):
        raise NotPromised("max_norm: it scales rows of its table, as documented")
    return told(_left(bench, bench.passes(training)) for training in (False, True))


def _left(bench: LayerBench, passes: Passes) -> Discrepancy:
    passes.module.train(passes.training)  # which may merge parameters
    leaves = passes.leaves(bench.inputs())
    given = [x.clone() for x in leaves]
    read = {passes.input(k): (x, x.detach().clone()) for k, x in enumerate(given)}
    read |= {name: (p, p.detach().clone()) for name, p in passes.parameters.items()}
    outs = passes.outs(given)
    along = passes.along(outs)
    counted = {name: b.detach().clone() for name, b in passes.module.named_buffers()}
    read |= {f"upstream gradient {k}": (a, a.clone()) for k, a in enumerate(along)}
    passes.back(outs, along)
    counts = {name: changed({name: was}, {name: now.detach()}) for name, (now, was) in read.items()}
    for name, b in passes.module.named_buffers():  # as checkpointed batch norms count twice
        was = passes.buffers.get(name)
        if name in counted and was is not None and not torch.equal(counted[name], was):
            counts[f"{name} back"] = changed({name: counted[name]}, {name: b.detach()})
    names = ", ".join(name for name, count in counts.items() if count)
    return Discrepancy(
        sum(counts.values()), 0, f"{passes.when}, numbers that changed{' of ' * bool(names)}{names}"
    )


@layer_law(
    "deterministic",
    "evaluating, the same twice has the same bits, whatever was drawn before; in training too, of equal draws",
    "no run can be repeated, and what is evaluated is a matter of luck",
    "torch.nn.Module.eval; dropout that is left on by torch.nn.functional.dropout's default",
    kind="not repeatable",
)
def deterministic(bench: LayerBench) -> Discrepancy:
    """None: numbers that are not the same bit for bit are counted."""
    return told(_differing(bench, bench.passes(training)) for training in (False, True))


def _differing(bench: LayerBench, passes: Passes) -> Discrepancy:
    xs = bench.inputs()
    first = passes.backward(xs)
    draws = passes.seed
    passes.seed += not passes.training
    with torch.no_grad():
        along = bench.passes(passes.training).along(first[0])
    second = passes.backward(xs, along)
    passes.seed = draws
    outs = sum(changed({"": a}, {"": b}) for a, b in zip(first[0], second[0], strict=True))
    back_too = sum(
        changed({"": a}, {"": b})
        for a, b in zip(first[1].values(), second[1].values(), strict=True)
        if a is not None and b is not None
    )
    way = "forward" if outs else "backward"
    return Discrepancy(outs + back_too, 0, f"{way}, {passes.when}: numbers that differ the second time")

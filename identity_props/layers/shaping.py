"""Laws of memory and sizes: strides, offsets and odd sizes change no number."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from identity_props.laws import Discrepancy
from identity_props.laws.walking import NotOfferedError, offered
from identity_props.layers.adding import compared, near, rounded_once, same_outputs
from identity_props.layers.base import NotPromised, beside_mixing, if_offered, judged_modes, layer_law, told
from identity_props.layers.bench import LayerBench
from identity_props.layers.derivatives import jointly
from identity_props.layers.passes import Gradients, Passes

View = Callable[[Tensor], Tensor]  # the same numbers, laid out in another way


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(0, -1).contiguous().transpose(0, -1)


def _channels_last(x: Tensor) -> Tensor:
    formats = {4: torch.channels_last, 5: torch.channels_last_3d}
    return (
        x.contiguous(memory_format=formats[x.ndim])
        if x.ndim in formats
        else x.movedim(1, -1).contiguous().movedim(-1, 1)
    )


def _strided(x: Tensor) -> Tensor:
    return torch.stack([x, torch.zeros_like(x)], -1).select(-1, 0)


def _offset(x: Tensor) -> Tensor:
    flat = torch.cat([x.new_zeros(3), x.reshape(-1)])
    return flat[3:].view(x.shape)


def _expanded(x: Tensor) -> Tensor:
    return x[:1].expand(x.shape)


def _even(x: Tensor) -> Tensor:
    return x.reshape(-1)[:1].view((1,) * x.ndim).expand(x.shape)


LAYOUTS: Mapping[str, View] = {
    "transposed": _transposed,
    "channels last": _channels_last,
    "every second number": _strided,
    "at an offset": _offset,
    "one expanded": _expanded,
    "strides of 0": _even,
}


@layer_law(
    "layer-layout",
    "inputs, upstream gradients and weights that are transposed, channels-last, strided, expanded or at an offset"
    " give the outputs and gradients of contiguous ones",
    "a kernel reads memory as if it were contiguous",
    "strides are how numbers lie, not what they are",
)
def layer_layout(bench: LayerBench) -> Discrepancy:
    """Rounding of sums in another order, and 64 times what rounding each number once more moves, as what is even in
    memory may cancel. In training where nothing is drawn, as draws follow memory. A layout that a layer refuses is no fault: it is loud."""
    quiet = [passes for passes in judged_modes(bench) if not bench.draws(passes.training)]
    found = [one for passes in quiet for one in _laid_out(bench, passes)]
    if not found:
        raise NotPromised("it refuses all layouts but contiguous ones")
    return told(found)


def _laid_out(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    for name, view in LAYOUTS.items():
        for what, measure in (("inputs", _of_inputs), ("upstream gradients", _of_upstream)):
            try:
                with offered(name):
                    yield from [*measure(bench, passes, view, f"{passes.when}, {what} {name}")]
            except NotOfferedError:
                continue
    for name in ("transposed", "every second number", "at an offset"):
        try:
            with offered(name):
                yield from [*_of_weights(bench, passes, LAYOUTS[name], f"{passes.when}, weights {name}")]
        except NotOfferedError:
            continue


Result = tuple[list[Tensor], Gradients]


def _passed(passes: Passes, xs: Sequence[Tensor], view: View, of_outs: View) -> Result:
    passes.clear()
    leaves = passes.leaves(xs)
    outs = passes.outs([view(x) for x in leaves])
    passes.back(outs, [of_outs(a) for a in passes.along(outs)])
    return [out.detach() for out in outs], passes.gradients(leaves)


def _compared(
    bench: LayerBench, one: Result, other: Result, when: str, rounded: Result | None = None
) -> Iterator[Discrepancy]:
    allowed = near(bench, sum(out.numel() for out in other[0]), 16)
    outs, gradients = rounded or ((), None)
    yield from same_outputs(one[0], other[0], allowed, when, outs)
    yield from compared(one[1], other[1], allowed, when, rounded=gradients)


def _copied(view: View, eps: float = 0.0) -> View:
    """The same in contiguous memory, each number rounded once more by as much."""

    def copied(x: Tensor) -> Tensor:
        return rounded_once(view(x).clone(memory_format=torch.contiguous_format), eps)

    return copied


def _of_inputs(bench: LayerBench, passes: Passes, view: View, when: str) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    expected, rounded = (_passed(passes, xs, _copied(view, eps), torch.clone) for eps in (0.0, 2 * bench.eps))
    yield from _compared(bench, _passed(passes, xs, view, torch.clone), expected, when, rounded)


def _of_upstream(bench: LayerBench, passes: Passes, view: View, when: str) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    expected, rounded = (_passed(passes, xs, torch.clone, _copied(view, eps)) for eps in (0.0, 2 * bench.eps))
    yield from _compared(bench, _passed(passes, xs, torch.clone, view), expected, when, rounded)


def _of_weights(bench: LayerBench, passes: Passes, view: View, when: str) -> Iterator[Discrepancy]:
    xs = bench.inputs()
    expected = _passed(passes, xs, torch.clone, torch.clone)
    other = bench.passes(passes.training)
    for p in other.parameters.values():
        if p.ndim:
            p.data = view(p.data)
    yield from _compared(bench, _passed(other, xs, torch.clone, torch.clone), expected, when)


# Sizes ------------------------------------------------------------------------------------------------

BATCHES = (1, 2, 3, 7, 8, 13)
SIZES = (1, 2, 3, 5, 11, 17)
GROUP = 4  # examples of which each depends on itself alone, as is found


@layer_law(
    "layer-shapes",
    "batches of any number of examples, none among them, other sizes that a layer takes, further batch axes and no"
    " bias give what is due: outputs example by example, and gradients that are derivatives",
    "the rest of a size that is no multiple of a block is dropped, or read from beyond",
    "what one example gives does not depend on how many there are",
)
def layer_shapes(bench: LayerBench) -> Discrepancy:
    """Rounding of sums in another order, and as of parameter-gradient. Sizes that a layer refuses, forward or back, are no fault."""
    found = [one for passes in judged_modes(bench) for one in _of_sizes(bench, passes)]
    if not found:
        raise NotPromised("it takes the one shape that was asked for")
    return beside_mixing(bench, told(found))


def _of_sizes(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    if bench.apart and not passes.training:
        yield from _of_batches(bench, passes)
        yield from _of_none(bench, passes)
    for what, xs in sizes_of(bench):
        if _taken(passes, xs):
            yield from if_offered(what, jointly(bench, passes, xs, what))
    if bench.offers_bias:
        yield from if_offered("no bias", _without_bias(bench, passes))


def _without_bias(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    yield from jointly(bench, bench.passes(passes.training, bias=False), bench.inputs(), "no bias")


def sizes_of(bench: LayerBench) -> Iterator[tuple[str, list[Tensor]]]:
    """Inputs of other numbers of examples and sizes, by name."""
    for n in BATCHES[:4]:
        yield f"{n} example{'s' * (n > 1)}", bench.inputs(n)
    for axis in range(len(bench.shapes[0])):
        for size in SIZES:
            each = [tuple(size if k == axis else m for k, m in enumerate(shape)) for shape in bench.shapes]
            if each != [*bench.shapes]:
                yield f"examples {[*each[0]]}", bench.inputs(3, shapes=each)
    yield "two batch axes", bench.inputs(2, shapes=[(3, *shape) for shape in bench.shapes])


def _taken(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether a pass forward does not raise, and gives something."""
    try:
        with offered("a shape"):
            return passes.flat(xs).numel() > 0
    except NotOfferedError:
        return False


def _of_batches(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """Outputs and gradients of n examples are those of groups of four."""
    most = bench.inputs(16)
    groups = [passes.outs([x[k : k + GROUP].clone() for x in most]) for k in range(0, 16, GROUP)]
    outs = [torch.cat([one.detach() for one in each]) for each in zip(*groups, strict=True)]
    around = passes.outs([rounded_once(x, 2 * bench.eps) for x in most])
    for n in BATCHES:
        if not _taken(passes, [x[:n] for x in most]):
            continue
        found = passes.outs([x[:n].clone() for x in most])
        when, due, once = (
            f"{passes.when}, {n} examples",
            *([out[:n] for out in each] for each in (outs, around)),
        )
        yield from same_outputs(found, due, near(bench, 16), when, once)


def _of_none(bench: LayerBench, passes: Passes) -> Iterator[Discrepancy]:
    """No example gives no output, and gradients of 0."""
    xs = bench.inputs(0)
    try:
        with offered("no example"):
            outs, gradients = passes.backward(xs)
    except NotOfferedError:
        return
    count = sum(out.numel() for out in outs)
    came = sum(int((g != 0).sum()) for g in gradients.values() if g is not None)
    yield Discrepancy(count + came, 0, f"{passes.when}, no example: outputs and gradients that are not 0")

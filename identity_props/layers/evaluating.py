"""What a layer gives in evaluation, beside what it gives in training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, normalize

from identity_props.laws import Discrepancy
from identity_props.layers.adding import near, same_outputs
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Passes
from identity_props.layers.watching import apart

TILES, PASSES = 32, 400  # a batch is repeated, and passed until what is counted of it settles
DECODED = torch.sigmoid, torch.tanh, torch.exp, logsigmoid
SETTLED = 1e-2  # n - 1 for n = 160 makes 3e-3 of a deviation; torch's batch norms come to 5e-4 of 320


def of_both_modes(bench: LayerBench) -> Iterator[Discrepancy]:
    """What neither draws nor changes buffers evaluates to what it gives in training, merged or not, or to what that means."""
    both, xs = [bench.passes(training) for training in (True, False)], bench.inputs()
    if bench.draws(True) or bench.draws(False):
        return
    if _counts(both[0], xs):
        yield from _settled(bench)
        return
    if _reads(both[0], both[1], xs):
        return
    if _reads(both[1], both[0], xs):
        yield from _uncounted(bench)
        return
    with torch.no_grad():
        outs = [passes.outs([x.clone() for x in xs]) for passes in both]
    if [one.shape for one in outs[0]] == [one.shape for one in outs[1]]:
        terms = sum(map(Tensor.numel, outs[0]))
        found = same_outputs(outs[1], outs[0], near(bench, 16, terms), "evaluating, as in training")
        meant = map(_meant, *outs)
        yield from (one for one, is_meant in zip(found, meant, strict=True) if not is_meant)


def _meant(trained: Tensor, evaluated: Tensor) -> bool:
    """Whether it evaluates to the probabilities of logits that a loss takes in training, or to their directions."""
    if not trained.is_floating_point() or trained.dtype != evaluated.dtype:
        return False
    whats = [f(trained) for f in DECODED]
    for dim in range(1, trained.ndim):
        whats += [trained.softmax(dim), trained.log_softmax(dim), normalize(trained, dim=dim)]
    return any(torch.allclose(evaluated, what, rtol=1e-4, atol=1e-6) for what in whats)


def _reads(passes: Passes, other: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether one mode reads buffers that the other does not, as of noise that a method draws: it is meant to differ."""
    heard = []
    for one in (passes, other):
        kept, before = one.buffers, one.flat(xs)
        one.buffers = {name: 2 * b + 1 if b.is_floating_point() else b for name, b in kept.items()}
        heard.append(not torch.equal(before.nan_to_num(), one.flat(xs).nan_to_num()))
        one.buffers = kept
    return heard[0] and not heard[1]


def _settled(bench: LayerBench) -> Iterator[Discrepancy]:
    """Of what mixes examples in training, as batch norms do, and evaluates by what it has counted of them."""
    passes = bench.passes(True)
    xs = [x.repeat(TILES, *[1] * (x.ndim - 1)) for x in bench.inputs()]
    counted = passes.buffers
    for _ in range(PASSES):
        passes.flat(xs, again=True)
        before = counted
        counted = {name: b.detach().clone() for name, b in passes.module.named_buffers()}
        if counted.keys() == before.keys() and all(_near(counted[name], before[name]) for name in before):
            break
    else:
        return
    others = [torch.cat([x[:-1], 2 * x[-1:]]) if x.is_floating_point() else x for x in xs]
    passes.buffers = counted
    outs, beside = passes.flat(xs), passes.flat(others)
    mixed = not torch.equal(*(one[: len(one) // 2] for one in (outs, beside)))
    evaluating = bench.passes(False)
    first = evaluating.flat(xs)
    evaluating.buffers = counted
    settled = evaluating.flat(xs)
    if mixed and settled.shape == outs.shape and not torch.equal(first, settled):
        yield from same_outputs([settled], [outs], SETTLED, "evaluating, what it has counted of one batch")


def _uncounted(bench: LayerBench) -> Iterator[Discrepancy]:
    """Of what goes by its batch in training, and evaluates by buffers that nothing ever changes: it does not count."""
    training, xs = bench.passes(True), bench.inputs()
    mixes = bench.apart and not apart(training, bench.inputs(4), bench.inputs(4, salt=1))
    if not mixes or _changes(bench.passes(True), xs):
        return
    outs, settled = training.flat(xs), bench.passes(False).flat(xs)
    if outs.shape == settled.shape:
        when = "evaluating, by buffers that no pass changes, where training goes by its batch"
        yield from same_outputs([settled], [outs], SETTLED, when)


def _changes(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether sixteen passes forward and back in training, and evaluation after them, change buffers."""
    for _ in range(16):
        outs = passes.outs([x.clone() for x in passes.leaves(xs)], again=True)
        passes.back(outs, passes.along(outs))
    passes.training = False
    passes.flat(xs, again=True)
    return _changed(passes)


def _near(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return not one.is_floating_point() or bool(torch.allclose(one, other, rtol=1e-5, atol=1e-6))


def _counts(passes: Passes, xs: Sequence[Tensor]) -> bool:
    """Whether a pass changes buffers."""
    passes.flat(xs)
    return _changed(passes)


def _changed(passes: Passes) -> bool:
    now = dict(passes.module.named_buffers())
    return any(not torch.equal(was, now[name]) for name, was in passes.buffers.items())

"""What a law of layers is: an exact statement about a module, judged against its own forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from identity_props.errors import InputError
from identity_props.laws import Discrepancy
from identity_props.laws.walking import NotOfferedError, offered
from identity_props.layers.bench import LayerBench
from identity_props.layers.passes import Passes


class NotPromised(Exception):  # noqa: N818 - it is no error
    """Raised where a law says nothing of a layer, with the reason."""


@dataclass(frozen=True)
class LayerLaw:
    """An exact statement about a layer: ``measure`` says how far it is from it.

    ``derivation`` says where the tolerance comes from, ``why`` what breaks where it does not hold, and ``needs``
    what a layer has to be for the law to speak of it, in words, which is found by passes forward.
    """

    name: str
    statement: str
    why: str
    source: str
    needs: tuple[str, ...]
    kind: str
    derivation: str
    measure: Callable[[LayerBench], Discrepancy] = field(repr=False)


FORWARD, BACKWARD = "forward", "backward"  # what a discrepancy is of, the first word that it says
KINDS = {FORWARD: "wrong output", BACKWARD: "wrong gradient"}


def told(found: Iterable[Discrepancy]) -> Discrepancy:
    """The first output that does not hold, else the first gradient, which may follow from it, else the nearest to it."""
    return max(found, key=_weight)


def _weight(one: Discrepancy) -> tuple[bool, bool, float]:
    if not one.holds:
        return True, one.what.startswith(FORWARD), 0.0
    return False, False, one.measured / one.tolerance if one.tolerance else 0.0


def beside_mixing(bench: LayerBench, found: Discrepancy) -> Discrepancy:
    """What holds, and that no example was looked at alone where they mix: they may be meant to, and may not."""
    if bench.apart or not found.holds:
        return found
    mixing = "its examples mix in evaluation, or do not come first, so that none is looked at alone"
    return replace(found, what=f"{found.what}; {mixing}")


def if_offered(what: str, found: Iterator[Discrepancy]) -> Iterator[Discrepancy]:
    """What is found, unless the layer refuses what is tried, forward or on the way back: that is loud."""
    try:
        with offered(what):
            yield from [*found]
    except NotOfferedError:
        return


def judged_modes(bench: LayerBench) -> list[Passes]:
    """Passes in the modes in which they repeat; raises NotPromised where they do in none."""
    if not bench.modes:
        raise NotPromised("; ".join(bench.reasons.values()))
    return [bench.passes(training) for training in bench.modes]


LAYER_LAWS: dict[str, LayerLaw] = {}
Measure = Callable[[LayerBench], Discrepancy]


def layer_law(
    name: str, statement: str, why: str, source: str, needs: str = "", kind: str = "wrong gradient"
) -> Callable[[Measure], Measure]:
    """Register a measurement as a law of layers; its docstring is the derivation, needs are words."""

    def register(measure: Measure) -> Measure:
        if name in LAYER_LAWS or not measure.__doc__:
            raise InputError(f"layer law {name}: expected a new name and a docstring")
        wanted = tuple(filter(None, needs.split(", ")))
        LAYER_LAWS[name] = LayerLaw(name, statement, why, source, wanted, kind, measure.__doc__, measure)
        return measure

    return register

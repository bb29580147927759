"""Hypothesis strategies: families of data sets, variants, recipes and seeds.

Hypothesis draws what is small and telling, a shape, a spectrum's width, a seed; tensors come from a
``torch.Generator``, see families.
"""

from __future__ import annotations

from hypothesis import strategies as st

from identity_props.engine.trial import Recipe
from identity_props.laws.families import Family
from identity_props.task.models import Variant

seeds = st.integers(0, 2**32 - 1)


@st.composite
def families(draw: st.DrawFn) -> Family:
    """Families with 2 to 32 pixels, any rank, condition 1 to 1e6, scales 1e-3 to 1e3."""
    d = draw(st.integers(2, 32))
    dead = draw(st.integers(0, d - 1))
    return Family(
        d=d,
        n=draw(st.integers(1, 48)),
        rank=draw(st.integers(1, d)),
        decades=draw(st.floats(0, 6)),
        sign=draw(st.sampled_from(["signed", "non-negative"])),
        sparsity=draw(st.sampled_from([0.0, 0.5, 0.9])),
        dead=dead,
        equal=draw(st.integers(1, d - dead)),
        log_scale=draw(st.floats(-3, 3)),
        factor=draw(st.floats(0.05, 0.95)),
        steps=draw(st.integers(3, 12)),
        seed=draw(seeds),
    )


def variants(most: int = 4) -> st.SearchStrategy[Variant]:
    """Every variant, 1 to ``most`` layers deep, with and without bias."""

    def make(name: str, depth: int, bias: bool) -> Variant:
        return Variant(name, depth, "whiten" if name == "scaled-input" else "unit", bias=bias)

    names = st.sampled_from(["plain-relu", "linear", "residual", "scaled-input"])
    return st.builds(make, names, st.integers(1, most), st.booleans())


OPTIMIZERS: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = (
    ("torch.optim:SGD", ()),
    ("torch.optim:SGD", (("momentum", 0.9), ("weight_decay", 0.1))),
    ("torch.optim:RMSprop", (("alpha", 0.9), ("eps", 1e-7))),
    ("torch.optim:Adam", ()),
)


def recipes(lr: float = 0.01) -> st.SearchStrategy[Recipe]:
    """SGD, SGD with momentum and decay, RMSprop and Adam; every schedule and init; batches of 1 to all."""

    def make(optimizer: int, schedule: str, size: int | None, init: str) -> Recipe:
        name, arguments = OPTIMIZERS[optimizer]
        return Recipe(name, lr, arguments, schedule, size, init)

    return st.builds(
        make,
        st.integers(0, len(OPTIMIZERS) - 1),
        st.sampled_from(["constant", "linear-decay"]),
        st.sampled_from([None, 1, 7, 16, 1000]),
        st.sampled_from(["glorot", "torch"]),
    )

"""A layer of any kind as a command line says it; torch is imported where it is made alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from identity_props.conformance.isolated import Measured, Named


@dataclass(frozen=True)
class AskedLayer:
    """A layer as a command line says it: arguments of ``layers.bench_of``."""

    layer: Mapping[str, Any]
    guard: float | None
    quiet = False
    alone = True  # its first row is all, where that fails

    @contextmanager
    def made(self) -> Iterator[Measured]:
        """The layer on its bench; raises InputError or MissingError."""
        from identity_props.conformance.following import limited
        from identity_props.conformance.layered import check_layer, planned
        from identity_props.layers import bench_of

        bench = bench_of(**self.layer)
        names = tuple(name for name, _ in planned(bench))
        named = Named(str(bench), bench.describe(), bench.device, names)
        yield named, lambda done: check_layer(bench, limited(self.guard, bench.mode), done)

"""Ten networks of the kinds that people build, explained: ``python docs/explanation/ten_networks.py``, some minutes on two cores.

Trains each, takes its error apart, and does the first thing that is advised: from outside where that can be, else by
hand, as written here. Writes ten-networks.json and the table of ten-networks.md; ``--tables`` the table alone,
``--only NAME`` one network.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import Linear, Sequential

from identity_props.engine.trial import Recipe, Trial
from identity_props.explanation import advice
from identity_props.explanation.explain import explain
from identity_props.explanation.networks import descend, measured
from identity_props.task.data import Pixels, digits
from identity_props.task.models import Variant

HERE = Path(__file__).parent
JSON, PAGE = HERE / "ten-networks.json", HERE / "ten-networks.md"
ADAM = Recipe("torch.optim:Adam", 1e-3)


class Maps(nn.Module):
    """Three convolutions over pictures of a side."""

    def __init__(self, side: int, maps: int) -> None:
        super().__init__()
        self.side = side
        first, second, last = (nn.Conv2d(i, o, 3, padding=1) for i, o in ((1, maps), (maps, maps), (maps, 1)))
        self.net = Sequential(first, nn.ReLU(), second, nn.ReLU(), last)

    def forward(self, x):
        return self.net(x.reshape(-1, 1, self.side, self.side)).flatten(1)


class Residual(nn.Module):
    """x + relu(W x + b), three times."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(d, d) for _ in range(3))

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return x


def wide_start(spread: float = 5.0) -> nn.Module:
    model = Sequential(Linear(49, 64), nn.Tanh(), Linear(64, 49))
    nn.init.normal_(model[0].weight, 0, spread)
    return model


def autoencoder(width: int = 32) -> nn.Module:
    return Sequential(Linear(196, width), nn.ReLU(), Linear(width, 196), nn.Sigmoid())


def stack(activation: type[nn.Module], *widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for i, o in pairwise(widths):
        layers += [Linear(i, o), activation()]
    return Sequential(*layers[:-1])


def measurements() -> Pixels:
    """Ten correlated measurements, as a CSV file would hold them."""
    draws = np.random.default_rng(0)
    x = (draws.normal(size=(2000, 10)) * 2.0 ** -np.arange(10)) @ draws.normal(size=(10, 10))
    x = torch.from_numpy(x + 3 * draws.normal(size=10))
    return Pixels("measurements", x[:1600], x[1600:])


@dataclass(frozen=True)
class Network:
    """How a network is built, on what and how it trains, and changes of it that are made by hand."""

    build: Callable[[], nn.Module]
    pixels: Callable[[], Pixels] = lambda: digits(7)
    scaling: str = "unit"
    recipe: Recipe = ADAM
    steps: int = 1500
    by_hand: Callable[[str], nn.Module] | None = None


NETWORKS = {
    "GELU": Network(lambda: stack(nn.GELU, 49, 64, 64, 49)),
    "tanh": Network(lambda: stack(nn.Tanh, 49, 64, 64, 49)),
    "BatchNorm and dropout": Network(
        lambda: Sequential(Linear(49, 128), nn.BatchNorm1d(128), nn.ReLU(), nn.Dropout(0.5), Linear(128, 49))
    ),
    "bottleneck of 32, sigmoid": Network(
        autoencoder,
        lambda: digits(14),
        steps=2000,
        by_hand=lambda name: autoencoder(int(name.removeprefix("widen to "))),
    ),
    "convolutions": Network(lambda: Maps(14, 8), lambda: digits(14, 2048, 512), steps=300),
    "ten measurements": Network(lambda: stack(nn.Tanh, 10, 6, 10), measurements, "standardise"),
    "residual": Network(lambda: Residual(49), recipe=Recipe("torch.optim:SGD", 0.1), steps=1000),
    "saturated tanh": Network(wide_start, by_hand=lambda name: wide_start(0.1)),
    "too small a rate": Network(lambda: stack(nn.ReLU, 49, 64, 49), recipe=Recipe("torch.optim:Adam", 1e-6)),
    "not trained": Network(lambda: stack(nn.ReLU, 49, 64, 49), steps=0),
}


def examined(name: str, network: Network | None = None) -> dict:
    network = network or NETWORKS[name]
    pixels = network.pixels()
    scaled = pixels.scaled(network.scaling)
    trial = Trial(Variant("linear-output", 2, network.scaling), network.recipe, network.steps)

    def trained(model: nn.Module, trial: Trial) -> nn.Module:
        torch.manual_seed(0)
        descend(model.train(), trial, scaled, 0, None)
        return model.eval()

    torch.manual_seed(0)
    start = network.build()
    torch.manual_seed(0)
    model = trained(network.build(), trial)
    found = explain(model, scaled, network.recipe, name)
    asked = advice.described(found, network.recipe, network.scaling, network.steps or 1500)
    each = advice.tried(found, asked, pixels, 0, model=start, trained=model)
    first = next(each, None)
    after = None if first is None else first.after
    if first is not None and first.by_hand and network.by_hand is not None:
        torch.manual_seed(0)
        after = measured(trained(network.by_hand(first.name), replace(asked, steps=network.steps)), scaled)
    named = sum(part.fvu for part in found.parts if part.name != "other") / found.fvu
    parts = {part.name: part.fvu / found.fvu for part in found.parts if part.fvu}
    made = {"fvu": found.fvu, "named": named, "parts": parts, "fvu_pixels": found.fvu_pixels}
    made |= {"first": first and first.name, "by_hand": bool(first and first.by_hand), "after": after}
    if after is None or after > found.fvu_pixels / 2:  # then no other may do so either
        made["least"] = min(
            [after or found.fvu_pixels, *(one.after for one in each if one.after is not None)]
        )
    return made


def table(found: dict) -> str:
    head = "| network | FVU | largest parts | named | first advice | FVU before | after |"
    return "\n".join([head, "|---|---:|---|---:|---|---:|---:|", *map(row, found, found.values())])


def row(name: str, one: dict) -> str:
    largest = sorted(one["parts"].items(), key=lambda part: -part[1])[:3]
    parts = ", ".join(f"{part} {share:.0%}" for part, share in largest)
    after = "-" if one["after"] is None else f"{one['after']:.2e}"
    hand = ", by hand" if one["by_hand"] else ""
    figures = f"{one['named']:.1%} | {one['first']}{hand} | {one['fvu_pixels']:.2e} | {after} |"
    return f"| {name} | {one['fvu']:.2e} | {parts} | {figures}"


def filled(page: str, found: dict, name: str = "table") -> str:
    begin, end = f"<!-- {name} -->\n", "<!-- end -->"
    before, _, rest = page.partition(begin)
    return f"{before}{begin}{table(found)}\n{end}{rest.partition(end)[2]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true")
    parser.add_argument("--only", choices=NETWORKS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(examined(given.only), indent=1))
        return
    if not given.tables:
        found = {}
        for name in NETWORKS:
            found[name] = examined(name)
            print(row(name, found[name]), flush=True)
        JSON.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), json.loads(JSON.read_text())))


if __name__ == "__main__":
    main()

"""Twelve networks of other kinds than those that parts and advice were made by, explained: ``python docs/explanation/held_back.py``.

As ``ten_networks.py``, beside it, does for ten. Writes held-back.json and its table of ten-networks.md; ``--tables``
the table alone.
"""

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import Linear, Sequential, functional
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

sys.path.insert(0, str(Path(__file__).parent))
from ten_networks import HERE, PAGE, Network, examined, filled, measurements, row

from identity_props.engine.trial import Recipe
from identity_props.task.data import digits

JSON = HERE / "held-back.json"


class Pictures(Sequential):
    """Layers over pictures of 14 x 14, of rows to rows."""

    def forward(self, x):
        return super().forward(x.reshape(-1, 1, 14, 14)).flatten(1)


class Transformer(nn.Module):
    """Two encoder layers, with dropout, over four patches of a picture."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, 4, 64, dropout=0.1, batch_first=True)
        self.put_in, self.place = Linear(49, width), nn.Parameter(torch.randn(4, width) / 10)
        self.inner, self.out = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), Linear(width, 49)

    def forward(self, x):
        patches = functional.unfold(x.reshape(-1, 1, 14, 14), 7, stride=7).transpose(1, 2)
        made = self.out(self.inner(self.put_in(patches) + self.place)).transpose(1, 2)
        return functional.fold(made, (14, 14), 7, stride=7).flatten(1)


class Passed(torch.autograd.Function):
    """What ``make`` makes of a tensor, with the gradient of the tensor itself."""

    @staticmethod
    def forward(ctx, x, make):
        return make(x)

    @staticmethod
    def backward(ctx, given):
        return given, None


class Rounded(Linear):
    """Weights rounded to eighths."""

    def forward(self, x):
        return functional.linear(x, Passed.apply(self.weight, lambda w: (w * 8).round() / 8), self.bias)


class Applied(nn.Module):
    """A function as a layer."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Bag(nn.Module):
    """An embedding of each pixel, summed by its grey levels."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.EmbeddingBag(49, 40, mode="sum"), Linear(40, 49)

    def forward(self, x):
        each = torch.arange(49).expand(len(x), 49)
        return self.out(torch.relu(self.table(each, per_sample_weights=x)))


def largest(h: torch.Tensor, count: int = 8) -> torch.Tensor:
    return h * (h >= h.topk(count, 1).values[:, -1:])


def sine(h: torch.Tensor) -> torch.Tensor:
    return torch.sin(3 * h)


def bits(h: torch.Tensor) -> torch.Tensor:
    return Passed.apply(h, torch.sign)


def strided() -> nn.Module:
    return Pictures(
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.ReLU(),
        nn.Conv2d(16, 8, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 16, 3, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 1, 4, 2, 1),
        nn.Sigmoid(),
    )


def grouped() -> nn.Module:
    inner = (nn.Conv2d(1, 8, 3, padding=1), nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    return Pictures(*inner, nn.GroupNorm(4, 8), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))


def limited() -> nn.Module:
    layers = (spectral_norm(Linear(49, 49)) for _ in range(3))
    first, second, last = layers
    return Sequential(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.2), last)


def mixed() -> nn.Module:
    first, inner, last = Linear(49, 64), (Linear(64, 64), Linear(64, 64)), Linear(64, 49)
    return Sequential(first, nn.Tanh(), inner[0], nn.ReLU(), inner[1], nn.Tanh(), last, nn.ReLU())


def coded() -> nn.Module:
    narrow = (Linear(49, 64), nn.ReLU(), Linear(64, 24), Applied(bits))
    return Sequential(*narrow, Linear(24, 64), nn.ReLU(), Linear(64, 49))


def of_pictures() -> object:
    return digits(14)


NETWORKS = {
    "strided and transposed convolutions": Network(
        strided, of_pictures, recipe=Recipe("torch.optim:Adam", 2e-3, (), "constant", 64), steps=600
    ),
    "group norm": Network(grouped, of_pictures, steps=300),
    "spectral norm": Network(limited, steps=2000),
    "tanh and ReLU": Network(mixed, recipe=Recipe("torch.optim:RMSprop", 3e-3)),
    "weight norm": Network(
        lambda: Sequential(weight_norm(Linear(10, 24)), nn.ELU(), weight_norm(Linear(24, 10))),
        measurements,
        "standardise",
        Recipe("torch.optim:SGD", 1e-2, (("momentum", 0.9),)),
        400,
    ),
    "Transformer": Network(Transformer, of_pictures, steps=400),
    "rounded weights": Network(lambda: Sequential(Rounded(49, 64), nn.Tanh(), Rounded(64, 49)), steps=2000),
    "sines": Network(
        lambda: Sequential(Linear(49, 64), Applied(sine), Linear(64, 64), Applied(sine), Linear(64, 49)),
        scaling="standardise",
    ),
    "gated, weight decay": Network(
        lambda: Sequential(Linear(49, 128), nn.GLU(), Linear(64, 49)),
        recipe=Recipe("torch.optim:AdamW", 1e-3, (("weight_decay", 0.3),)),
        steps=2000,
    ),
    "the 8 largest of 64": Network(
        lambda: Sequential(Linear(49, 64), Applied(largest), Linear(64, 49)), steps=2000
    ),
    "bag of embeddings": Network(Bag, steps=2000),
    "code of 24 bits": Network(coded, steps=3000),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", action="store_true")
    if not parser.parse_args().tables:
        found = {}
        for name, network in NETWORKS.items():
            found[name] = examined(name, network)
            print(row(name, found[name]), flush=True)
        JSON.write_text(json.dumps(found, indent=1) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), json.loads(JSON.read_text()), "held back"))


if __name__ == "__main__":
    main()

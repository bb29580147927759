"""Layers that do nothing wrong, of torch.nn and of its parametrizations: no law may fail of them."""

from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import parametrizations

from identity_props.layers import LayerBench


@dataclass(frozen=True)
class Sound:
    """A factory, its arguments and the shapes of one example."""

    factory: object
    arguments: dict = field(default_factory=dict)
    shapes: tuple = ((5,),)
    kind: str = "float"

    def bench(self, seed=0):
        return LayerBench(self.factory, self.shapes, self.kind, self.arguments, seed=seed)


class LoRA(nn.Module):
    """A frozen layer and a product of two low-rank ones, the second of which begins at 0."""

    def __init__(self, features=5, rank=2):
        super().__init__()
        self.base = nn.Linear(features, features).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, features))
        self.b = nn.Parameter(torch.zeros(features, rank))

    def forward(self, x):
        return self.base(x) + x @ self.a.mT @ self.b.mT


def weight_norm():
    return parametrizations.weight_norm(nn.Linear(5, 4))


def spectral_norm():
    return parametrizations.spectral_norm(nn.Linear(5, 4))


def orthogonal():
    return parametrizations.orthogonal(nn.Linear(5, 5))


def rectified():
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 4))


class Rounded(nn.Module):
    """Weights on a grid in the forward pass, straight through in the backward."""

    def __init__(self, scale=8.0):
        super().__init__()
        self.inner, self.scale = nn.Linear(5, 4), scale

    def forward(self, x):
        w = self.inner.weight
        rounded = (w * self.scale).round() / self.scale
        return nn.functional.linear(x, w + (rounded - w).detach(), self.inner.bias)


class Rescaled(nn.Module):
    """Eight bits of the input in the forward pass, the scale that of its largest; straight through back."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 4)

    def forward(self, x):
        scale = x.abs().amax() / 127
        return self.inner(x + ((x / scale).round() * scale - x).detach())


def conv(n, **arguments):
    kind = getattr(nn, f"Conv{n}d")
    return Sound(kind, {"in_channels": 2, "out_channels": 4, "kernel_size": 3} | arguments, ((2, *[5] * n),))


def transposed(n, **arguments):
    kind = getattr(nn, f"ConvTranspose{n}d")
    return Sound(kind, {"in_channels": 2, "out_channels": 4, "kernel_size": 3} | arguments, ((2, *[4] * n),))


LINEAR = {  # in their parameters
    "Linear": Sound(nn.Linear, {"in_features": 5, "out_features": 4}),
    "Linear identity": Sound(nn.Linear, {"in_features": 7, "out_features": 7, "bias": False}, ((7,),)),
    "Linear 3-D": Sound(nn.Linear, {"in_features": 5, "out_features": 3}, ((3, 5),)),
    "Bilinear": Sound(nn.Bilinear, {"in1_features": 3, "in2_features": 4, "out_features": 2}, ((3,), (4,))),
    "Conv1d": conv(1),
    "Conv1d dilated": conv(1, dilation=2, padding=2),
    "Conv2d": conv(2),
    "Conv2d strided": conv(2, stride=2, padding=1),
    "Conv2d grouped": conv(2, groups=2),
    "Conv2d circular": conv(2, padding=1, padding_mode="circular"),
    "Conv2d reflect": conv(2, padding=1, padding_mode="reflect"),
    "Conv2d replicate": conv(2, padding=1, padding_mode="replicate"),
    "Conv2d same": conv(2, padding="same", kernel_size=(3, 2), out_channels=2),
    "Conv2d 1x1": conv(2, kernel_size=1, bias=False),
    "Conv3d": conv(3, kernel_size=2),
    "ConvTranspose1d": transposed(1),
    "ConvTranspose2d": transposed(2, stride=2, padding=1, output_padding=1),
    "ConvTranspose2d dilated": transposed(2, dilation=2, groups=2),
    "ConvTranspose3d": transposed(3, kernel_size=2),
    "LayerNorm": Sound(nn.LayerNorm, {"normalized_shape": 6}, ((4, 6),)),
    "LayerNorm 2-D": Sound(nn.LayerNorm, {"normalized_shape": [4, 6]}, ((4, 6),)),
    "RMSNorm": Sound(nn.RMSNorm, {"normalized_shape": 6}, ((6,),)),
    "GroupNorm": Sound(nn.GroupNorm, {"num_groups": 2, "num_channels": 4}, ((4, 3, 3),)),
    "InstanceNorm1d": Sound(nn.InstanceNorm1d, {"num_features": 3, "affine": True}, ((3, 7),)),
    "InstanceNorm2d": Sound(
        nn.InstanceNorm2d, {"num_features": 3, "affine": True, "track_running_stats": True}, ((3, 4, 4),)
    ),
    "BatchNorm1d": Sound(nn.BatchNorm1d, {"num_features": 5}),
    "BatchNorm2d": Sound(nn.BatchNorm2d, {"num_features": 3}, ((3, 4, 4),)),
    "BatchNorm1d batch": Sound(nn.BatchNorm1d, {"num_features": 5, "track_running_stats": False}),
    "Embedding": Sound(nn.Embedding, {"num_embeddings": 11, "embedding_dim": 3}, ((4,),), "tokens"),
    "Embedding padded": Sound(
        nn.Embedding, {"num_embeddings": 11, "embedding_dim": 3, "padding_idx": 2}, ((4,),), "tokens"
    ),
    "Embedding sparse": Sound(
        nn.Embedding, {"num_embeddings": 7, "embedding_dim": 3, "sparse": True}, ((4,),), "tokens"
    ),
    "Embedding by frequency": Sound(
        nn.Embedding, {"num_embeddings": 7, "embedding_dim": 3, "scale_grad_by_freq": True}, ((4,),), "tokens"
    ),
    "Embedding max_norm": Sound(
        nn.Embedding, {"num_embeddings": 7, "embedding_dim": 3, "max_norm": 0.5}, ((4,),), "tokens"
    ),
    "EmbeddingBag": Sound(nn.EmbeddingBag, {"num_embeddings": 11, "embedding_dim": 3}, ((4,),), "tokens"),
    "EmbeddingBag sum": Sound(
        nn.EmbeddingBag,
        {"num_embeddings": 11, "embedding_dim": 3, "mode": "sum", "padding_idx": 1},
        ((4,),),
        "tokens",
    ),
    "EmbeddingBag max": Sound(
        nn.EmbeddingBag, {"num_embeddings": 11, "embedding_dim": 3, "mode": "max"}, ((4,),), "tokens"
    ),
    "PReLU": Sound(nn.PReLU, {"num_parameters": 3}, ((3, 4),)),
}
OTHERS = {
    "MultiheadAttention": Sound(
        nn.MultiheadAttention, {"embed_dim": 6, "num_heads": 2, "batch_first": True}, ((4, 6),)
    ),
    "MultiheadAttention dropout": Sound(
        nn.MultiheadAttention,
        {"embed_dim": 6, "num_heads": 2, "dropout": 0.2, "add_bias_kv": True},
        ((4, 6),),
    ),
    "LSTM": Sound(nn.LSTM, {"input_size": 4, "hidden_size": 3, "batch_first": True}, ((5, 4),)),
    "LSTM seq": Sound(nn.LSTM, {"input_size": 4, "hidden_size": 3, "bidirectional": True}, ((5, 4),)),
    "GRU": Sound(nn.GRU, {"input_size": 4, "hidden_size": 3, "num_layers": 2, "dropout": 0.5}, ((5, 4),)),
    "RNN": Sound(nn.RNN, {"input_size": 4, "hidden_size": 3, "nonlinearity": "relu"}, ((5, 4),)),
    "GRUCell": Sound(nn.GRUCell, {"input_size": 4, "hidden_size": 3}, ((4,),)),
    "Dropout": Sound(nn.Dropout, {"p": 0.5}),
    "ReLU in place": Sound(nn.ReLU, {"inplace": True}),
    "TransformerEncoderLayer": Sound(
        nn.TransformerEncoderLayer,
        {"d_model": 6, "nhead": 2, "dim_feedforward": 8, "batch_first": True},
        ((4, 6),),
    ),
    "TransformerDecoderLayer": Sound(
        nn.TransformerDecoderLayer,
        {"d_model": 6, "nhead": 2, "dim_feedforward": 8, "dropout": 0.0, "activation": "gelu"},
        ((4, 6),),
    ),
    "MaxPool2d": Sound(nn.MaxPool2d, {"kernel_size": 2}, ((2, 5, 5),)),
    "Softmax": Sound(nn.Softmax, {"dim": -1}),
    "weight_norm": Sound(weight_norm),
    "spectral_norm": Sound(spectral_norm),
    "orthogonal": Sound(orthogonal),
    "LoRA": Sound(LoRA),
    "ReLU network": Sound(rectified),
    "rounded weights": Sound(Rounded),
    "rounded inputs": Sound(Rescaled),
}
SOUND = LINEAR | OTHERS

# those of a family that others are of as well, by the same code of the laws
AGAIN = {
    *("Linear identity", "Conv1d dilated", "Conv2d replicate", "Conv2d 1x1", "Conv3d", "ConvTranspose1d"),
    *("ConvTranspose3d", "LayerNorm 2-D", "InstanceNorm1d", "BatchNorm2d", "MultiheadAttention", "LSTM"),
    *("GRUCell", "RNN"),
}

# what laws have found in torch 2.14 on a CPU: the second derivative of torch._weight_norm, which gradgradcheck refuses
# too; torch.matrix_exp of a small matrix in 16 bits, which is not finite; and the input's gradient of batch_norm of
# [n, d] with a weight that is strided
FOUND = {
    ("weight_norm", "second-order"),
    ("orthogonal", "layer-dtype"),
    ("BatchNorm1d", "layer-layout"),
    ("BatchNorm1d batch", "layer-layout"),
}

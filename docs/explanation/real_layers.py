"""Real layers: ``check --layer`` over torch.nn, its parametrizations, torchvision, peft, torchao, bitsandbytes and Liger.

``tox -e layers`` runs it. It writes real-layers.json after each layer, goes on from there, and makes the page
real-layers.md of it with the reasons in real_layers_reasons.py; ``--page`` makes the page alone.
"""

import argparse
import json
import time
import warnings
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from real_layers_reasons import REASONS
from torch import nn
from torch.nn.utils import parametrizations

HERE = Path(__file__).parent
JSON, PAGE = HERE / "real-layers.json", HERE / "real-layers.md"
PACKAGES = ("torch", "torchvision", "peft", "torchao", "bitsandbytes", "liger-kernel", "triton")


# torch.nn: arguments, then the shape of one example; several where it takes several inputs -------------------

IMAGE, SEQUENCE, ROW = (4, 6, 6), (4, 7), (6,)
PLAIN = {  # activations and others that want no argument, on a row
    ROW: [
        "Identity",
        "ReLU",
        "ReLU6",
        "ELU",
        "SELU",
        "CELU",
        "GELU",
        "SiLU",
        "Mish",
        "Softplus",
        "Softsign",
        "Softshrink",
        "Hardshrink",
        "Hardtanh",
        "Hardswish",
        "Hardsigmoid",
        "Sigmoid",
        "Tanh",
        "Tanhshrink",
        "LogSigmoid",
        "LeakyReLU",
        "RReLU",
        "PReLU",
        "Dropout",
        "AlphaDropout",
        "Flatten",
    ],
    IMAGE: ["Dropout2d", "Softmax2d", "FeatureAlphaDropout"],
    SEQUENCE: ["Dropout1d"],
}
ARGUMENTS = {
    "Linear": ((6, 5), (ROW,)),
    "Bilinear": ((3, 4, 5), ((3,), (4,))),
    "GLU": ((), (ROW,)),
    "Softmax": ((-1,), (ROW,)),
    "Softmin": ((-1,), (ROW,)),
    "LogSoftmax": ((-1,), (ROW,)),
    "Threshold": ((0.1, 0.2), (ROW,)),
    "Conv1d": ((4, 6, 3), (SEQUENCE,)),
    "Conv2d": ((4, 6, 3), (IMAGE,)),
    "Conv3d": ((2, 3, 2), ((2, 4, 4, 4),)),
    "ConvTranspose1d": ((4, 6, 3), (SEQUENCE,)),
    "ConvTranspose2d": ((4, 6, 3), (IMAGE,)),
    "ConvTranspose3d": ((2, 3, 2), ((2, 3, 3, 3),)),
    "LayerNorm": ((6,), (ROW,)),
    "RMSNorm": ((6,), (ROW,)),
    "GroupNorm": ((2, 4), (IMAGE,)),
    "BatchNorm1d": ((6,), (ROW,)),
    "BatchNorm2d": ((4,), (IMAGE,)),
    "BatchNorm3d": ((2,), ((2, 3, 3, 3),)),
    "InstanceNorm1d": ((4,), (SEQUENCE,)),
    "InstanceNorm2d": ((4,), (IMAGE,)),
    "LocalResponseNorm": ((2,), (IMAGE,)),
    "CrossMapLRN2d": ((2,), (IMAGE,)),
    "MaxPool1d": ((2,), (SEQUENCE,)),
    "MaxPool2d": ((2,), (IMAGE,)),
    "AvgPool2d": ((2,), (IMAGE,)),
    "LPPool2d": ((2, 2), (IMAGE,)),
    "FractionalMaxPool2d": ((2, 3), (IMAGE,)),
    "AdaptiveAvgPool2d": ((3,), (IMAGE,)),
    "AdaptiveMaxPool2d": ((3,), (IMAGE,)),
    "ZeroPad2d": ((1,), (IMAGE,)),
    "ReflectionPad2d": ((1,), (IMAGE,)),
    "ReplicationPad2d": ((1,), (IMAGE,)),
    "CircularPad2d": ((1,), (IMAGE,)),
    "PixelShuffle": ((2,), (IMAGE,)),
    "PixelUnshuffle": ((2,), (IMAGE,)),
    "ChannelShuffle": ((2,), (IMAGE,)),
    "Upsample": ((None, 2), (IMAGE,)),
    "UpsamplingBilinear2d": ((None, 2), (IMAGE,)),
    "Unfold": ((2,), (IMAGE,)),
    "Fold": (((4, 4), 2), ((8, 9),)),
    "CosineSimilarity": ((), (ROW, ROW)),
    "PairwiseDistance": ((), (ROW, ROW)),
    "MultiheadAttention": ((6, 2, 0.1, True, False, False, None, None, True), ((4, 6),)),
    "RNN": ((6, 4, 1, "tanh", True, True), ((4, 6),)),
    "GRU": ((6, 4, 1, True, True), ((4, 6),)),
    "LSTM": ((6, 4, 1, True, True), ((4, 6),)),
    "RNNCell": ((6, 4), (ROW,)),
    "GRUCell": ((6, 4), (ROW,)),
    "LSTMCell": ((6, 4), (ROW,)),
    "TransformerEncoderLayer": ((6, 2, 8), ((4, 6),)),
    "TransformerDecoderLayer": ((6, 2, 8), ((4, 6), (4, 6))),
}


def of_torch():
    for shape, names in PLAIN.items():
        yield from ((name, getattr(nn, name), (shape,), "float") for name in names)
    for name, (arguments, shapes) in ARGUMENTS.items():
        yield name, partial(getattr(nn, name), *arguments), shapes, "float"
    conv = partial(nn.Conv2d, 4, 6, 3)
    yield "Conv2d, strided and grouped", partial(conv, stride=2, padding=1, groups=2), (IMAGE,), "float"
    yield "Conv2d, circular", partial(conv, padding=1, padding_mode="circular"), (IMAGE,), "float"
    yield "Conv2d, dilated", partial(conv, dilation=2, padding=2), (IMAGE,), "float"
    yield "Embedding", partial(nn.Embedding, 11, 3), ((5,),), "tokens"
    yield "Embedding, padded", partial(nn.Embedding, 11, 3, padding_idx=2), ((5,),), "tokens"
    yield "Embedding, sparse", partial(nn.Embedding, 11, 3, sparse=True), ((5,),), "tokens"
    for mode in ("sum", "mean", "max"):
        yield f"EmbeddingBag, {mode}", partial(nn.EmbeddingBag, 11, 3, mode=mode), ((5,),), "tokens"


def of_parametrizations():
    for name in ("weight_norm", "spectral_norm", "orthogonal"):
        parametrized = getattr(parametrizations, name)
        yield f"{name}, Linear", lambda made=parametrized: made(nn.Linear(6, 5)), (ROW,), "float"
        yield f"{name}, Conv2d", lambda made=parametrized: made(nn.Conv2d(4, 6, 3)), (IMAGE,), "float"


# Other packages --------------------------------------------------------------------------------------------


def of_torchvision():
    from torchvision import ops
    from torchvision.models import convnext, mobilenetv2, resnet, swin_transformer, vision_transformer

    yield "Conv2dNormActivation", partial(ops.Conv2dNormActivation, 4, 6, inplace=False), (IMAGE,), "float"
    yield "SqueezeExcitation", partial(ops.SqueezeExcitation, 4, 2), (IMAGE,), "float"
    yield "DeformConv2d", partial(ops.DeformConv2d, 4, 6, 3, padding=1), (IMAGE, (18, 6, 6)), "float"
    yield "FrozenBatchNorm2d", partial(ops.FrozenBatchNorm2d, 4), (IMAGE,), "float"
    yield "StochasticDepth, row", partial(ops.StochasticDepth, 0.5, "row"), (IMAGE,), "float"
    yield "StochasticDepth, batch", partial(ops.StochasticDepth, 0.5, "batch"), (IMAGE,), "float"
    yield "DropBlock2d", partial(ops.DropBlock2d, 0.3, 3), (IMAGE,), "float"
    yield "MLP", partial(ops.MLP, 6, [8, 5], inplace=False, dropout=0.2), (ROW,), "float"
    yield "Permute", partial(ops.Permute, [0, 2, 1]), (SEQUENCE,), "float"
    yield "resnet.BasicBlock", partial(resnet.BasicBlock, 4, 4), (IMAGE,), "float"
    yield "resnet.Bottleneck", partial(resnet.Bottleneck, 8, 2), ((8, 5, 5),), "float"
    yield "InvertedResidual", partial(mobilenetv2.InvertedResidual, 4, 4, 1, 2), (IMAGE,), "float"
    yield "convnext.CNBlock", partial(convnext.CNBlock, 4, 0.1, 0.2), (IMAGE,), "float"
    yield "convnext.LayerNorm2d", partial(convnext.LayerNorm2d, 4), (IMAGE,), "float"
    yield "vit.EncoderBlock", partial(vision_transformer.EncoderBlock, 2, 6, 8, 0.1, 0.1), ((4, 6),), "float"
    swin = partial(swin_transformer.SwinTransformerBlock, 6, 2, [2, 2], [1, 1])
    yield "SwinTransformerBlock", swin, ((4, 4, 6),), "float"


class Net(nn.Module):
    """One linear layer, for adapters to be put into."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 6)

    def forward(self, x):
        return self.inner(x)


def adapted(config):
    from peft import get_peft_model

    return get_peft_model(Net(), config).base_model.model


def of_peft():
    import peft

    to = {"target_modules": ["inner"]}
    configs = {
        "LoRA": peft.LoraConfig(r=2, init_lora_weights=False, **to),
        "LoRA, dropout": peft.LoraConfig(r=2, lora_dropout=0.3, init_lora_weights=False, **to),
        "rsLoRA": peft.LoraConfig(r=2, use_rslora=True, init_lora_weights=False, **to),
        "DoRA": peft.LoraConfig(r=2, use_dora=True, init_lora_weights=False, **to),
        "IA3": peft.IA3Config(feedforward_modules=[], init_ia3_weights=False, **to),
        "VeRA": peft.VeraConfig(r=2, init_weights=False, **to),
        "LoHa": peft.LoHaConfig(r=2, init_weights=False, **to),
        "LoKr": peft.LoKrConfig(r=2, init_weights=False, **to),
        "OFT": peft.OFTConfig(r=0, oft_block_size=2, **to),
        "BOFT": peft.BOFTConfig(boft_block_size=2, init_weights=False, **to),
        "AdaLoRA": peft.AdaLoraConfig(init_r=2, target_r=1, total_step=10, **to),
        "HRA": peft.HRAConfig(r=2, init_weights=False, **to),
        "FourierFT": peft.FourierFTConfig(n_frequency=8, init_weights=False, **to),
    }
    for name, config in configs.items():
        yield name, partial(adapted, config), (ROW,), "float"


def of_torchao():
    from torchao import quantization

    def quantised(config, width=64):
        made = nn.Sequential(nn.Linear(width, width))
        quantization.quantize_(made, config())
        return made

    for name in ("Int8WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig"):
        if hasattr(quantization, name):
            yield f"Linear, {name}", partial(quantised, getattr(quantization, name)), ((64,),), "float"
    from torchao.quantization import qat

    def aware():
        weights = qat.IntxFakeQuantizeConfig(torch.int4, group_size=32)
        made = nn.Sequential(nn.Linear(64, 64))
        quantization.quantize_(made, qat.QATConfig(weight_config=weights, step="prepare"))
        return made

    yield "Linear, QATConfig int4", aware, ((64,),), "float"

    def aware_table():
        return qat.FakeQuantizedEmbedding(
            11, 32, weight_config=qat.IntxFakeQuantizeConfig(torch.int4, group_size=32)
        )

    yield "FakeQuantizedEmbedding, int4", aware_table, ((5,),), "tokens"


def of_bitsandbytes():
    import bitsandbytes as bnb

    yield "Linear8bitLt", partial(bnb.nn.Linear8bitLt, 64, 64, has_fp16_weights=False), ((64,),), "float"
    yield "Linear4bit", partial(bnb.nn.Linear4bit, 64, 64), ((64,),), "float"
    yield "StableEmbedding", partial(bnb.nn.StableEmbedding, 11, 4), ((5,),), "tokens"
    yield "Embedding", partial(bnb.nn.Embedding, 11, 4), ((5,),), "tokens"


def of_liger():
    from liger_kernel.transformers import LigerLayerNorm, LigerRMSNorm

    yield "LigerRMSNorm", partial(LigerRMSNorm, 6), (ROW,), "float"
    yield "LigerLayerNorm", partial(LigerLayerNorm, 6), (ROW,), "float"


GROUPS = {
    "torch.nn": of_torch,
    "torch.nn.utils.parametrizations": of_parametrizations,
    "torchvision": of_torchvision,
    "peft": of_peft,
    "torchao": of_torchao,
    "bitsandbytes": of_bitsandbytes,
    "liger-kernel": of_liger,
}


# Measuring and writing --------------------------------------------------------------------------------------


def measured(factory, shapes, kind):
    """Rows of check, or why there are none."""
    from identity_props.conformance.layered import check_layer
    from identity_props.layers import LayerBench

    began = time.process_time()
    try:
        rows = [*check_layer(LayerBench(factory, shapes, kind))]
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    fails = {
        row.name: {"kind": row.kind, "note": row.note, "measured": row.measured, "allowed": row.allowed}
        for row in rows
        if row.verdict == "fail"
    }
    passed = sum(row.verdict == "pass" for row in rows)
    return {"passed": passed, "fails": fails, "seconds": round(time.process_time() - began, 2)}


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def run(groups):
    done = json.loads(JSON.read_text()) if JSON.exists() else {"layers": {}}
    done["versions"] = {package: installed(package) for package in PACKAGES}
    for group in groups:
        made = GROUPS[group]()
        while True:
            try:
                name, factory, shapes, kind = next(made)
            except StopIteration:
                break
            except Exception as error:
                done["layers"][f"{group}: the rest"] = {"error": f"{type(error).__name__}: {error}"[:300]}
                break
            address = f"{group}: {name}"
            if address in done["layers"]:
                continue
            done["layers"][address] = {"error": "the process ended"}  # what remains where it does
            JSON.write_text(json.dumps(done, indent=1) + "\n")
            done["layers"][address] = measured(factory, shapes, kind)
            JSON.write_text(json.dumps(done, indent=1) + "\n")
            print(address, done["layers"][address], flush=True)


def told(address, one):
    """The cells of a layer."""
    name = address.partition(": ")[2]
    if "error" in one:
        return name, "-", "does not compute", one["error"]
    fails = ", ".join(f"{row} ({found['kind']})" for row, found in one["fails"].items()) or "-"
    why = REASONS.get(address, {})
    return name, str(one["passed"]), fails, " ".join(dict.fromkeys(why.get(row, "?") for row in one["fails"]))


def page_of(done):
    """The page, of what was measured."""
    layers = done["layers"]
    failing = [address for address, one in layers.items() if "error" in one or one["fails"]]
    versions = ", ".join(f"{name} {number}" for name, number in done["versions"].items())
    text = f"""# Real layers

What `identity-props check --layer` says of layers as they are installed: {len(layers)} layers, of which {len(failing)}
fail a row or do not compute. Made by `docs/explanation/real_layers.py` on a CPU, seed 0, with {versions}; all that was
measured is in [real-layers.json](real-layers.json). Triton's kernels, Liger's among them, want a GPU.

**pass** counts the rows that pass. **why** says of a failure whether it is a *fault* of the layer, a *limit* of what it is
made for, or its *design*: something that it does on purpose and that a law does not expect.
"""
    for group in GROUPS:
        rows = [told(address, one) for address, one in layers.items() if address.startswith(f"{group}: ")]
        text += f"\n## {group}\n\n| layer | pass | fails | why |\n|---|---|---|---|\n"
        text += "".join(
            f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows
        )
    return text


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--page", action="store_true")
    parser.add_argument("groups", nargs="*", default=[])
    asked = parser.parse_args()
    if not asked.page:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        run(asked.groups or GROUPS)
    PAGE.write_text(page_of(json.loads(JSON.read_text())))

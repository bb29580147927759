"""Why a layer fails a row, by the address of the layer: a fault, a limit or its design."""

SIGMOID = "*fault*, small: its pass back multiplies by 1/6 in float32, in float64 too; 3e-8 of the gradient (`layer_reproductions/torch_hardsigmoid.py`)."
STRIDED = "*fault*: on a CPU its pass back reads a weight that is strided as if it were contiguous; outputs are right (`layer_reproductions/torch_batch_norm.py`)."
CROSS = "*fault*: its gradient is not the derivative of its output, which gradcheck says too (`layer_reproductions/torch_cross_map_lrn.py`); LocalResponseNorm is right."
SECOND = "*fault*: its second derivative is wrong, which gradgradcheck says too (`layer_reproductions/torch_weight_norm.py`)."
EXP = "*fault*: matrix_exp of small matrices gives NaN or huge numbers in bfloat16 (`layer_reproductions/torch_orthogonal.py`)."
DORA = "*design*: the norm of the weight takes no gradient, as its paper has it (Liu et al. 2024, section 4.3), so that its gradient is no derivative."
INT8 = "*design*: training computes with the eight-bit weight at the input's precision, evaluating with eight-bit inputs too; outputs differ by half a percent."
PACKED = "*design*: its first pass in eval mode packs the 4-bit weight in place for the CPU, so that a pass changes what it keeps, and buffers that are put back no longer fit; passes of a layer that is left alone were the same, bit for bit."
TRITON = "*limit*: its kernels are Triton's, which want a GPU; there was none."

REASONS = {
    "torch.nn: Hardsigmoid": {"input-gradient": SIGMOID, "layer-shapes": SIGMOID},
    "torch.nn: BatchNorm1d": {"layer-layout": STRIDED},
    "torch.nn: CrossMapLRN2d": {"input-gradient": CROSS, "layer-shapes": CROSS},
    "torch.nn.utils.parametrizations: weight_norm, Linear": {"second-order": SECOND},
    "torch.nn.utils.parametrizations: weight_norm, Conv2d": {"second-order": SECOND},
    "torch.nn.utils.parametrizations: orthogonal, Conv2d": {"layer-dtype": EXP},
    "peft: DoRA": {"parameter-gradient": DORA, "second-order": DORA, "layer-shapes": DORA},
    "bitsandbytes: Linear8bitLt": {"layer-modes": INT8},
    "bitsandbytes: Linear4bit": {"deterministic": PACKED},
    "liger-kernel: LigerRMSNorm": {"computes": TRITON},
    "liger-kernel: LigerLayerNorm": {"computes": TRITON},
}

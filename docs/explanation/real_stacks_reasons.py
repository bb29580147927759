"""Why parts fail rows of check: a fault of theirs, a limit of what they are made for, or their design."""

MODEL = "*limit*: wants the model, or its named parameters, in place of parameters."
MAXIMIZES = "*fault*: with maximize its first difference of gradients, as Adan's, is twice a gradient."
VIEWS = "*fault*: views the entries of a matrix by rows, which raises where that is not contiguous."
YOGI = (
    "*fault*: its average of gradients starts at 1e-6 and not at 0, and moves weights that have no gradient."
)
LOADED = (
    "*fault*, small: a factor of its averages is float32 until a state is loaded, and of the parameter's dtype after, as in"
    " torch's `NAdam`."
)
WHY = {
    "torch.optim:ASGD": "*fault*, small: with `foreach` its rate is computed in float32, whatever the weights are;"
    " 1e-9 of a weight, which no loss curve shows.",
    "torch.optim:NAdam": "*fault*, small: `mu_product` is float32 until a state is loaded, and of the parameter's dtype"
    " after; in float64 that moves weights by 4e-12, which no loss curve shows.",
    "torch.optim:SparseAdam": "*limit*: takes sparse gradients alone.",
    "schedulefree:RAdamScheduleFree": "*fault*: takes a tensor as rate, and steps are NaN: it catches the"
    " ZeroDivisionError of numbers, and tensors give 0 / 0.",
    "optimi:StableAdamW": "*fault*: takes its Triton kernels on the CPU too, unless told not to: see the next row.",
    "dadaptation:DAdaptSGD": "*fault*: divides by the norm of the first gradient, which is 0 at the optimum.",
    "torch_optimizer:Yogi": YOGI,
    "a2grad": "*fault*: takes `lr` and keeps none, so a scheduler finds none.",
    "adan": MAXIMIZES,
    "apollodqn": "*design*: a warmup of 500 steps from the rate that it was built with, in which no scheduler's is read.",
    "bcos": "*fault*: its second moment is foreseen from the momentum that was just updated in place.",
    "dadaptadan": MAXIMIZES,
    "ranger": "*fault*: it climbs for its first five steps, while it is not rectified.",
    "adai": "*fault*: the mean of second moments is bounded by eps from below, so that it stands almost still near an"
    " optimum; FVU 1.1e-2 where the paper's ends at 1.3e-6.",
    "adalomo": MODEL,
    "adammini": MODEL,
    "lamb": "*fault*: corrects its first moment after the trust ratio, so that its first step is ten times as long.",
    "lomo": MODEL,
    "bsam": "*fault*: its perturbations are never taken back, so that it climbs at a rate of 0 too, and its mean is that of"
    " gradients times the decay.",
    "demo": "*limit*: wants einops and a process group.",
    "distributedmuon": "*limit*: wants a process group.",
    "kron": "*fault*: torch casts a state that is loaded to the parameter's dtype, and its products, which want float32,"
    " then raise.",
    "lorarite": "*limit*: trains pairs of LoRA factors alone.",
    "sara": "*limit*: trains only weights that start below 0.001.",
    "simplifiedademamix": "*fault*: averages where the paper sums, and divides by what corrects v: slow. With"
    " `foreach` its sums are float32, whatever the weights are; 2e-11 of a weight.",
    "splus": "*fault*: `eval()` before the first step raises.",
    "adamp": VIEWS,
    "laprop": "*fault*, small: with `foreach` its step sizes are float32, whatever the weights are; 1e-10 of a weight.",
    "sgdp": VIEWS,
    "swats": VIEWS,
    "yogi": YOGI,
    "nadam": LOADED,
    "qhadam": LOADED,
}

"""A Keras 3 model on the torch backend as a module of torch's own layers, which ``explain`` can look into."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from identity_props.errors import InputError

CLOSE = 1e-4  # of the largest output, between Keras's own and that of the module; float32 leaves 1e-6 a layer


def prepare() -> None:
    """Let Keras, once it is imported, take torch on the CPU, unless the environment says otherwise."""
    for name, value in {"KERAS_BACKEND": "torch", "KERAS_TORCH_DEVICE": "cpu"}.items():
        os.environ.setdefault(name, value)


def is_keras(model: object) -> bool:
    """Whether it is a model of Keras 3, on whatever backend; imports nothing."""
    return isinstance(model, getattr(sys.modules.get("keras"), "Model", ()))


class Followed(nn.Module):
    """A Keras graph [n, d] to [n, d] with a copy of its weights, each of its layers a module.

    A Dense, kernel [in, out], is a linear layer, W [out, in], and then its activation, so that each can be looked at.
    """

    def __init__(self, graph: Any) -> None:
        super().__init__()
        self.graph, self.shape = _Kept(graph), graph.inputs[0].shape[1:]
        operations = [one for one in graph.operations if type(one).__name__ != "InputLayer"]
        self.layers = nn.ModuleList(_module(one) for one in operations)
        self.places = {id(one): i for i, one in enumerate(operations)}

    def forward(self, x: Tensor) -> Tensor:
        if None not in self.shape:
            x = x.reshape(len(x), *self.shape)
        y: Tensor = self.graph.value._run_through_graph(x, self._of)
        return y

    def _of(self, operation: Any) -> Callable[..., Any]:
        module = self.layers[self.places[id(operation)]]
        return module if isinstance(module, Called) else lambda x, **named: module(x)  # a mask, of sequences


class Flat(nn.Module):
    """Examples [n, d] in and out, in whatever shape the network has them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network(x)
        return y.flatten(1)


class Called(nn.Module):
    """An operation of Keras that is called as it is, on weights [...] that are the module's own."""

    def __init__(self, operation: Any, weights: Sequence[Any] | None = None) -> None:
        super().__init__()
        self.kept = _Kept(operation)
        given = getattr(operation, "variables", []) if weights is None else weights
        for i, variable in enumerate(given):
            value = _copied(variable)
            if value.is_floating_point():
                self.register_parameter(f"weight_{i}", nn.Parameter(value, variable.trainable))
            else:  # the state of a generator, as of dropout
                self.register_buffer(f"weight_{i}", value)

    def forward(self, *given: Any, **named: Any) -> Any:
        import keras

        operation = self.kept.value
        if getattr(operation, "_call_has_training_arg", False):
            named["training"] = self.training
        variables = getattr(operation, "variables", [])
        own = [getattr(self, f"weight_{i}") for i in range(len(variables))]
        with keras.StatelessScope(state_mapping=zip(variables, own, strict=True)) as scope:
            y = operation(*given, **named)
        for variable, value in zip(variables, own, strict=True):
            if not variable.trainable:  # running averages, and the state of a generator
                value.data = scope.get_current_value(variable).detach().to(value.dtype)
        return y


class Function(nn.Module):
    """An activation, unit by unit."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x)
        return y


class Linear(nn.Linear):
    """That of torch, drawn as Keras draws it: Glorot's uniform and no bias."""

    def reset_parameters(self) -> None:
        nn.init.xavier_uniform_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class Normalised(nn.BatchNorm1d):
    """That of torch over the last axis, whatever the others are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(0, -2)).view_as(x)


class _Kept:
    """What copies of a module share: the structure of Keras, whose own weights nothing touches."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __deepcopy__(self, memo: Mapping[int, object]) -> _Kept:
        return self


def check_backend(name: str) -> None:
    """Raise InputError where Keras is not 3, or was imported on another backend than torch."""
    import keras

    if not keras.__version__.startswith("3."):
        raise InputError(f"--model {name}: expected Keras 3, got {keras.__version__}")
    if (backend := keras.config.backend()) != "torch":
        raise InputError(f"--model {name}: expected Keras on KERAS_BACKEND=torch, got it on {backend}")


def followed(model: Any, name: str) -> nn.Module:
    """The module of a Keras model on torch that is built, with a copy of its weights; the model stays as it is.

    Sequential, functional, or a subclass whose ``call`` Keras can follow. Raises InputError for a model that is not
    built, of several inputs, or not reproduced to 1e-4 of its largest output.
    """
    graph = _graph(model, name)
    made = Flat(Followed(graph)).train(False)
    _check_same(graph, made, name)
    return made.train()


def _graph(model: Any, name: str) -> Any:
    import keras

    advice = "a Sequential or functional model, or one that is built, begins with an Input"
    if not model.built:
        raise InputError(f"--model {name}: expected a Keras model that is built; {advice}")
    try:
        if getattr(model, "inputs", None):
            (entering,), (leaving,) = model.inputs, model.outputs
            return keras.Model(entering, leaving)
        entering = keras.Input(model.get_build_config()["input_shape"][1:])
        return keras.Model(entering, model.call(entering))
    except Exception as error:  # of a call of the user's that is no graph
        raise InputError(
            f"--model {name}: expected one input, one output and layers that Keras can follow, it raised {type(error).__name__}: {error}"
        ) from error


def _check_same(graph: Any, made: nn.Module, name: str) -> None:
    shape = [8, *(side or 4 for side in graph.inputs[0].shape[1:])]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, got = graph(x, training=False).flatten(1), made(x)
    if not torch.isfinite(wanted).all():
        return  # `explain` says so itself
    if (wanted - got).abs().max() > CLOSE * wanted.abs().max():
        raise InputError(f"--model {name}: expected layers that give what the model gives, they do not")


def _module(operation: Any) -> nn.Module:
    """The module of an operation: torch's own where it has one of the same meaning, else a call of it."""
    from keras import Model, layers

    if isinstance(operation, Model) and len(getattr(operation, "inputs", ())) == 1 == len(operation.outputs):
        return Followed(Model(operation.inputs[0], operation.outputs[0]))
    if type(operation) is layers.Dense:
        return _activated(_linear(operation), operation)
    if type(operation) in (layers.Conv1D, layers.Conv2D, layers.Conv2DTranspose, layers.DepthwiseConv2D):
        bare = type(operation).from_config(operation.get_config() | {"activation": None})
        bare.build_from_config(operation.get_build_config())
        return _activated(Called(bare, operation.variables), operation)
    if type(operation) is layers.Dropout and operation.noise_shape is None:
        return nn.Dropout(operation.rate)
    if type(operation) is layers.BatchNormalization and operation.axis in (
        -1,
        len(operation.input.shape) - 1,
    ):
        return _normalised(operation)
    return Called(operation)


def _activated(module: nn.Module, layer: Any) -> nn.Module:
    from keras import activations, layers

    if layer.activation in (None, activations.linear):
        return module
    kind = Called if isinstance(layer.activation, layers.Layer) else Function
    return nn.Sequential(module, kind(layer.activation))


def _linear(layer: Any) -> nn.Module:
    kernel = _copied(layer.kernel)
    made = Linear(*kernel.shape, bias=layer.use_bias, dtype=kernel.dtype)
    made.weight = nn.Parameter(kernel.T.contiguous(), layer.trainable)
    if layer.use_bias:
        made.bias = nn.Parameter(_copied(layer.bias), layer.trainable)
    return made


def _normalised(layer: Any) -> nn.Module:
    mean = _copied(layer.moving_mean)
    made = Normalised(len(mean), eps=layer.epsilon, momentum=1 - layer.momentum, dtype=mean.dtype)
    made.running_mean, made.running_var = mean, _copied(layer.moving_variance)
    for own, kept, there in ((made.weight, layer.gamma, layer.scale), (made.bias, layer.beta, layer.center)):
        own.requires_grad_(bool(there and layer.trainable))
        if there:
            own.data = _copied(kept)
    return made


def _copied(variable: Any) -> Tensor:
    from keras import ops

    value: Tensor = ops.convert_to_tensor(variable)
    return value.detach().clone()

"""What a layer is tried on: how it is built, its inputs, and what forward passes find it to be."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from identity_props.errors import InputError
from identity_props.layers.passes import (
    Passes,
    begun_by_data,
    cast,
    check_layer,
    displace,
    inputs_of,
    quietly,
    reason_of,
    states_of,
    tokens_of,
    trained,
)
from identity_props.layers.slopes import grainy, moved, slope, ways_of
from identity_props.layers.watching import apart, autocasts, casts, draws, heard, much_the_same, rounds
from identity_props.layers.widening import SIXTEEN
from identity_props.stack.guard import RAISED
from identity_props.stack.seeding import seeded
from identity_props.stack.stack import MODES, part_name

KINDS = ("float", "tokens")
# the first of these that it takes: some want an even number, or one of a clip's frames
EXAMPLES = 5, 4, 6, 8, 16
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@dataclass(frozen=True, eq=False)
class LayerBench:
    """A layer under test: ``factory(**arguments)`` makes it, ``shapes`` are those of one example of each input.

    Inputs are drawn from a standard normal. Parameters are displaced by a quarter of one, unless outputs then are not
    finite: what multiplies one that begins at 0, as LoRA's, shows there. Raises InputError for what is no such layer.
    """

    factory: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]
    kind: str = "float"
    arguments: Mapping[str, Any] = field(default_factory=dict)
    like: Callable[..., Any] | None = None
    seed: int = 0
    device: str = "cpu"
    mode: str = "eager"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"input kind: expected {' or '.join(KINDS)}, got {self.kind!r}")
        if self.mode not in MODES:
            raise InputError(f"mode: expected {' or '.join(MODES)}, got {self.mode!r}")
        if not self.shapes or any(n < 1 for shape in self.shapes for n in shape):
            raise InputError(f"input shape: expected sizes of 1 or more, got {self.shapes}")
        if not callable(self.factory):
            raise InputError(f"layer: expected a factory of modules, got {self.factory!r}")
        try:
            inspect.signature(self.factory).bind(**self.arguments)
        except TypeError as error:
            raise InputError(f"{self}: expected arguments that it takes: {error}") from error
        except ValueError:  # it has no signature to be read
            pass

    def __str__(self) -> str:
        given = "".join(f" {key}={value}" for key, value in self.arguments.items())
        return f"layer {part_name(self.factory)}{given}"

    def describe(self) -> dict[str, Any]:
        """What is judged, by name."""
        shapes = ";".join(",".join(map(str, shape)) for shape in self.shapes)
        return {
            "layer": str(self).removeprefix("layer "),
            "input": f"{self.kind} {shapes}",
            "like": part_name(self.like) if self.like else "none",
            "device": self.device,
            "mode": self.mode,
            "ranks": 1,
        }

    # Building ---------------------------------------------------------------------------------------

    def made(self, factory: Callable[..., Any] | None = None, **others: Any) -> nn.Module:
        """A new layer as it is drawn, of the same draws each time; a lazy one once it has seen its inputs."""
        with seeded(self.seed, self.device), quietly():
            made = self._built(factory, **others)
            if any(map(is_lazy, states_of(made))) or (factory is None and self._begun_by_data):
                made.train()(*(x.cpu() for x in self.inputs(dtype=torch.float32)))
        return made

    @cached_property
    def _begun_by_data(self) -> bool:
        """Whether its first pass in training, and no later one, sets parameters, as an ActNorm's does."""
        with seeded(self.seed, self.device), quietly():
            module = self._built()
            return begun_by_data(module, [x.cpu() for x in self.inputs(dtype=torch.float32)])

    def _built(self, factory: Callable[..., Any] | None = None, **others: Any) -> nn.Module:
        made = (factory or self.factory)(**{**self.arguments, **others})
        return check_layer(made, part_name(self.factory))

    def module(self, dtype: torch.dtype | None = None, **others: Any) -> nn.Module:
        """A new layer on its device and in its dtype, displaced."""
        module = self.made(**others).to(self.device)
        module = cast(module, dtype or self.dtype)
        if self.displaces:
            displace(module, self.seed)
        return module

    @cached_property
    def displaces(self) -> bool:
        """Whether its outputs stay finite where its parameters are displaced, or are not finite anyway."""
        module = self.made().to(self.device)
        dtype = next((p.dtype for p in trained(module).values()), torch.float32)
        before = self._finite(module, dtype)
        displace(module, self.seed)
        return self._finite(module, dtype) or not before

    def _finite(self, module: nn.Module, dtype: torch.dtype) -> bool:
        passes = Passes(module, False, self.seed, self.device)
        try:
            return bool(passes.flat(self.inputs(dtype=dtype)).isfinite().all())
        except RAISED:  # it says so where it is judged
            return False

    def passes(
        self, training: bool, dtype: torch.dtype | None = None, wide: bool | None = None, **others: Any
    ) -> Passes:
        """Passes of a new layer; of one that goes by 16 bits inside without those, unless a dtype is given."""
        wide = self.wide if wide is None and dtype is None else bool(wide)
        return Passes(self.module(dtype, **others), training, self.seed, self.device, wide=wide)

    @cached_property
    def names(self) -> list[str]:
        """Of the inputs that its forward pass wants."""
        return inputs_of(self._built())

    @cached_property
    def offers_bias(self) -> bool:
        """Whether its factory takes ``bias``, and it is not given."""
        try:
            return "bias" in inspect.signature(self.factory).parameters and "bias" not in self.arguments
        except ValueError:
            return False

    # Inputs -----------------------------------------------------------------------------------------

    def inputs(
        self,
        n: int | None = -1,
        dtype: torch.dtype | None = None,
        shapes: Sequence[tuple[int, ...]] | None = None,
        salt: int = 0,
    ) -> list[Tensor]:
        """Inputs [n, ...] drawn, as many as it is tried on by default, or [...] of one example for an n of None."""
        n = self.examples if n == -1 else n
        drawn = torch.Generator().manual_seed(self.seed + 7919 * (salt + 1))
        each = [*(shapes or self.shapes)] * (len(self.names) if len(self.shapes) == 1 else 1)
        lead = () if n is None else (n,)
        return [self._input((*lead, *shape), drawn, dtype or self.dtype) for shape in each]

    def _input(self, shape: tuple[int, ...], drawn: torch.Generator, dtype: torch.dtype) -> Tensor:
        if self.kind == "float":
            return torch.randn(shape, generator=drawn, dtype=torch.float64).to(self.device, dtype)
        ids = torch.randint(self.tokens, shape, generator=drawn)
        known = [0, self.tokens - 1, *self.padding, self.tokens // 2, self.tokens // 2]  # one of them twice
        ids.view(-1)[: len(known)] = torch.tensor(known[: ids.numel()])
        return ids.to(self.device)

    @cached_property
    def examples(self) -> int:
        """How many examples it is tried on: the first number of EXAMPLES that it does not refuse."""
        return next((n for n in EXAMPLES if self._takes_examples(n)), EXAMPLES[0])

    def _takes_examples(self, n: int) -> bool:
        try:
            with seeded(self.seed, self.device), torch.no_grad(), quietly():
                self._built().to(self.device).eval()(*self.inputs(n, torch.float32))
        except RAISED:
            return False
        return True

    @cached_property
    def padding(self) -> list[int]:
        """Token ids that its modules name as padding."""
        found = (getattr(one, "padding_idx", None) for one in self._built().modules())
        return [index for index in found if isinstance(index, int)]

    @cached_property
    def tokens(self) -> int:
        """How many token ids it takes."""
        return tokens_of(self._built(), self.shapes[0])

    # What it is found to be -------------------------------------------------------------------------

    @cached_property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Those in which it passes forward and back."""
        return tuple(dtype for dtype in DTYPES if self._passes_in(dtype) is None)

    def _passes_in(self, dtype: torch.dtype) -> BaseException | None:
        """What passes in a dtype raise."""
        try:
            passes = Passes(self.module(dtype), False, self.seed, self.device)
            passes.backward(self.inputs(dtype=dtype))
        except InputError:
            raise
        except RAISED as error:
            return error
        return None

    @cached_property
    def dtype(self) -> torch.dtype:
        """Float64, else the most precise that it takes; float32 where it computes in that whatever it is given.

        Raises what it raises in float32 where it takes none.
        """
        if self.dtypes[:2] == DTYPES[:2] and self._single:
            return torch.float32
        if self.dtypes:
            return self.dtypes[0]
        error = self._passes_in(torch.float32)
        raise error if error is not None else RuntimeError("it takes no dtype")

    @property
    def _single(self) -> bool:
        """Whether it goes by float32 inside, as norms that are made for bfloat16 do."""
        xs = self.inputs(dtype=torch.float64)
        passes = self.passes(False, torch.float64, wide=self.wide)
        return any(grainy(moved(passes, xs, [way])) for way in ways_of(passes.floating(xs), self.seed))

    @cached_property
    def wide(self) -> bool:
        """Whether its numbers are cast to 16 bits inside, and its passes go on without that, to much the same outputs."""
        dtype = next((one for one in self.dtypes if one not in SIXTEEN), None)
        if dtype is None:
            return False
        real, xs = self.passes(False, dtype, wide=False), self.inputs(dtype=dtype)
        return casts(real, xs) is not None and much_the_same(real, self.passes(False, dtype, wide=True), xs)

    @cached_property
    def inside(self) -> torch.dtype | None:
        """The 16 bits that it goes by in float32: as in float64 too, or by an autocast of its own; None elsewhere."""
        if torch.float32 not in self.dtypes:
            return None
        passes, xs = self.passes(False, torch.float32, wide=False), self.inputs(dtype=torch.float32)
        found = casts(passes, xs)
        return found if found and (self.wide or autocasts(passes, xs)) else None

    @property
    def eps(self) -> float:
        return torch.finfo(self.dtype).eps

    @cached_property
    def reasons(self) -> dict[bool, str]:
        """By mode, why its passes say nothing of a derivative; empty where they do."""
        return {training: reason_of(self.passes(training), self.inputs()) for training in (False, True)}

    @cached_property
    def modes(self) -> list[bool]:
        """Whether it trains or evaluates, where passes repeat."""
        return [training for training, reason in self.reasons.items() if not reason]

    def draws(self, training: bool) -> bool:
        """Whether what it gives in this mode depends on draws; in training whether it may, however seldom."""
        passes, xs = self.passes(training), self.inputs()
        return heard(passes, xs, 4) or (training and draws(passes, xs))

    @cached_property
    def stepped(self) -> bool:
        """Whether outputs may move in steps: a pass rounds."""
        return any(rounds(self.passes(training), self.inputs()) for training in (False, True))

    def smooth(self, training: bool) -> frozenset[str]:
        """Names of the tensors along which outputs move smoothly, somewhere at least."""
        return self._smooth[training]

    @cached_property
    def _smooth(self) -> dict[bool, frozenset[str]]:
        found = {}
        for training in self.modes:
            passes, xs = self.passes(training), self.inputs()
            slopes = {
                name: slope(moved(passes, xs, ways_of({name: one}, self.seed)), self.eps, self.stepped)
                for name, one in passes.floating(xs).items()
            }
            found[training] = frozenset(name for name, one in slopes.items() if one is not None)
        return found

    def rough(self, training: bool) -> str:
        """Why equal numbers in fewer digits may give others: it draws, or its outputs move in steps."""
        passes = self.passes(training)
        if self.reasons[training] or self.draws(training):
            return self.reasons[training] or f"{passes.when}, it draws"
        stepped = self.smooth(training) != {*passes.floating(self.inputs())}
        return f"{passes.when}, its outputs move in steps" if stepped else ""

    @cached_property
    def apart(self) -> bool:
        """Whether, evaluating four examples, what comes of one depends on that one alone."""
        try:
            return apart(self.passes(False), self.inputs(4), self.inputs(4, salt=1))
        except RAISED:  # it refuses four
            return False

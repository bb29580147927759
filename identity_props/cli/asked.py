"""What ``explain`` is asked: a network to train here, or one to load, and what it trains with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from identity_props.cli.heard import Heard
from identity_props.cli.terminal import bar
from identity_props.errors import InputError, MissingError

if TYPE_CHECKING:
    from torch.nn import Module

    from identity_props.engine.trial import Recipe, Trial
    from identity_props.explanation.explain import Explanation
    from identity_props.task.data import Pixels


@dataclass(frozen=True)
class Asked:
    """What was asked to be explained."""

    variant: str
    depth: int
    scaling: str
    model: str | None
    weights: Path | None
    optimizer: str | None
    arguments: tuple[str, ...]
    lr: float | None
    schedule: str
    steps: int | None
    try_: bool
    seed: int
    batch_size: int = 128
    train: str | None = None
    wanted: float = 1e-3
    curve: list[float] | None = None

    def __post_init__(self) -> None:
        if self.weights is not None and self.model is None:
            raise InputError("--weights: expected --model, which says whose they are, got none")
        known = self.train is not None or None not in (self.optimizer, self.lr, self.steps)
        if self.try_ and self.model is not None and not known:
            raise InputError("--try: of a --model expected --optimizer, --lr and --steps, or --train")
        if self.train is not None and not (self.try_ and self.model is not None):
            raise InputError("--train: expected --model and --try, which it trains for, got not both")
        if self.model is not None and (self.optimizer is None) != (self.lr is None):
            raise InputError("--model: expected --optimizer and --lr together, of its training, or neither")
        if self.arguments and self.optimizer is None:
            raise InputError("--optimizer-arg: expected an --optimizer that takes them, got none")

    def recipe(self, d: int) -> Recipe | None:
        """What the network trains, or trained, with; None for a model of which it is not known."""
        from identity_props.claims.registry import rate, rmsprop
        from identity_props.engine.trial import Recipe
        from identity_props.stack.building import build_once
        from identity_props.stack.stack import Stack, arguments_of, resolve

        if self.optimizer is not None:
            given = arguments_of(self.arguments)
            recipe = Recipe(
                self.optimizer, self.lr or rate(d), tuple(given.items()), self.schedule, self.batch_size
            )
            build_once(Stack(optimizer=resolve(self.optimizer), arguments=given, lr=recipe.lr))
            return recipe
        if self.model is not None:
            return None
        recipe = replace(rmsprop(d, self.schedule), batch_size=self.batch_size)
        return recipe if self.lr is None else replace(recipe, lr=self.lr)

    def trial(self, pixels: Pixels) -> Trial:
        """What is trained here."""
        from identity_props.claims.registry import budget
        from identity_props.engine.trial import Trial
        from identity_props.task.models import Variant

        recipe = self.recipe(pixels.d)
        assert recipe is not None, "there is no --model"
        variant = Variant(self.variant, self.depth, self.scaling)
        return Trial(variant, recipe, budget(pixels.d) if self.steps is None else self.steps)

    def explained(self, pixels: Pixels) -> Explanation:
        """The network, trained first where it has to be, its error in parts, and the advice."""
        from identity_props.claims.registry import budget
        from identity_props.explanation import advice, networks
        from identity_props.explanation.explain import explain
        from identity_props.explanation.settling import STEPS
        from identity_props.stack.stack import resolve

        with bar("steps") as (move, line):
            if self.model is None and pixels.targets is not None:
                raise InputError(
                    "--target: expected a --model that maps to it, and a --variant maps to its input"
                )
            if self.model is None:
                trial, name = self.trial(pixels), f"{self.variant}, depth {self.depth}"
                heard = Heard(move, trial.steps + STEPS)
                network, start = self._trained(trial, pixels, heard), None
            else:
                name, heard = self.model, Heard(move, STEPS)
                both = (networks.loaded(name, weights) for weights in (None, self.weights))
                start, network = (networks.on_rows(one, pixels) for one in both)
            recipe = self.recipe(pixels.d)
            scaled = pixels.scaled(self.scaling)
            found = explain(network, scaled, recipe, name, self.seed, heard, self.curve)
            if start is not None:
                trial = advice.described(found, recipe, self.scaling, self.steps or budget(pixels.d))
            if not self.try_:
                known = recipe is not None
                return replace(found, advice=advice.told(found, trial, pixels, known, start, self.wanted))
            fit = None if self.train is None else resolve(self.train)
            planned = advice.planned(found, trial, pixels, start, fit=fit)
            heard.planned += sum(one.steps for one in planned)
            made = []
            given = (pixels, self.seed, heard, start, fit, network, self.wanted)
            for one in advice.tried(found, trial, *given):
                made.append(one)
                line(f"{'by hand' if one.by_hand else 'tried'}: {one.name}")
            return replace(found, advice=tuple(made))

    def parts(self, stack: dict[str, Any]) -> dict[str, Any]:
        """What the document says of the stack: of a network without an activation none, of a model its own."""
        if self.model is not None:
            own = dict.fromkeys(("linear", "activation", "init"), "the model's own")
            return stack | own | {"optimizer": self.optimizer or "not known"}
        return stack | ({"activation": "none"} if self.variant in ("linear", "scaled-input") else {})

    def _trained(self, trial: Trial, pixels: Pixels, heard: Callable[[int], None]) -> Module:
        from identity_props.explanation.networks import trained

        try:
            return trained(trial, pixels, self.seed, heard)
        except (InputError, MissingError):
            raise
        except Exception as error:  # a user's optimizer may raise anything
            if self.optimizer is None:
                raise
            raised = f"{type(error).__name__}: {error}"
            raise InputError(f"--optimizer {self.optimizer}: training with it raised {raised}") from error

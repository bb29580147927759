"""Who learns the identity? Models, training and claims with a known right answer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from identity_props.claims.registry import CLAIMS as CLAIMS
    from identity_props.claims.registry import Claim as Claim
    from identity_props.claims.running import judge_all as judge_all
    from identity_props.claims.verdict import Outcome as Outcome
    from identity_props.claims.verdict import judge as judge
    from identity_props.conformance.assertions import assert_conforms as assert_conforms
    from identity_props.conformance.assertions import assert_layer as assert_layer
    from identity_props.conformance.assertions import assert_learns_identity as assert_learns_identity
    from identity_props.conformance.assertions import assert_trains as assert_trains
    from identity_props.conformance.checking import check as check
    from identity_props.conformance.recognised import Recognised as Recognised
    from identity_props.conformance.recognition import recognise as recognise
    from identity_props.conformance.rows import Reference as Reference
    from identity_props.conformance.rows import Row as Row
    from identity_props.engine.training import train as train
    from identity_props.engine.trial import Recipe as Recipe
    from identity_props.engine.trial import Run as Run
    from identity_props.engine.trial import Trial as Trial
    from identity_props.errors import InputError as InputError
    from identity_props.errors import MissingError as MissingError
    from identity_props.explanation.explain import Explanation as Explanation
    from identity_props.explanation.explain import explain as explain
    from identity_props.laws import LAWS as LAWS
    from identity_props.laws import Case as Case
    from identity_props.laws import Discrepancy as Discrepancy
    from identity_props.laws import Law as Law
    from identity_props.layers import LAYER_LAWS as LAYER_LAWS
    from identity_props.plugin.parametrized import parametrize_with_laws as parametrize_with_laws
    from identity_props.stack.stack import Stack as Stack
    from identity_props.task.data import Pixels as Pixels
    from identity_props.task.data import digits as digits
    from identity_props.task.data import mnist as mnist
    from identity_props.task.models import VARIANTS as VARIANTS
    from identity_props.task.models import Variant as Variant
    from identity_props.task.reading import read_data as read_data
    from identity_props.trainers import TRAINER_LAWS as TRAINER_LAWS
    from identity_props.trainers.protocol import Asked as Asked
    from identity_props.trainers.protocol import NotOffered as NotOffered
    from identity_props.trainers.protocol import Trained as Trained

# name: module, imported at first use, since pytest loads the plugin, hence this package, everywhere
_HOME = {
    "Asked": "trainers.protocol",
    "CLAIMS": "claims.registry",
    "Case": "laws",
    "Claim": "claims.registry",
    "Discrepancy": "laws",
    "Explanation": "explanation.explain",
    "InputError": "errors",
    "LAWS": "laws",
    "LAYER_LAWS": "layers",
    "Law": "laws",
    "MissingError": "errors",
    "NotOffered": "trainers.protocol",
    "Outcome": "claims.verdict",
    "Pixels": "task.data",
    "Recognised": "conformance.recognised",
    "Recipe": "engine.trial",
    "Reference": "conformance.rows",
    "Row": "conformance.rows",
    "Run": "engine.trial",
    "Stack": "stack.stack",
    "TRAINER_LAWS": "trainers",
    "Trained": "trainers.protocol",
    "Trial": "engine.trial",
    "VARIANTS": "task.models",
    "Variant": "task.models",
    "assert_conforms": "conformance.assertions",
    "assert_layer": "conformance.assertions",
    "assert_learns_identity": "conformance.assertions",
    "assert_trains": "conformance.assertions",
    "check": "conformance.checking",
    "digits": "task.data",
    "explain": "explanation.explain",
    "judge": "claims.verdict",
    "judge_all": "claims.running",
    "mnist": "task.data",
    "parametrize_with_laws": "plugin.parametrized",
    "read_data": "task.reading",
    "recognise": "conformance.recognition",
    "train": "engine.training",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

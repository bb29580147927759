"""Who learns the identity? Models, training and claims with a known right answer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from identity_props.claims import CLAIMS as CLAIMS
    from identity_props.claims import Claim as Claim
    from identity_props.conformance import Reference as Reference
    from identity_props.conformance import Row as Row
    from identity_props.conformance import assert_conforms as assert_conforms
    from identity_props.conformance import assert_learns_identity as assert_learns_identity
    from identity_props.conformance import check as check
    from identity_props.data import Pixels as Pixels
    from identity_props.data import digits as digits
    from identity_props.data import mnist as mnist
    from identity_props.errors import InputError as InputError
    from identity_props.errors import MissingError as MissingError
    from identity_props.explain import Explanation as Explanation
    from identity_props.laws import LAWS as LAWS
    from identity_props.laws import Case as Case
    from identity_props.laws import Discrepancy as Discrepancy
    from identity_props.laws import Law as Law
    from identity_props.models import VARIANTS as VARIANTS
    from identity_props.models import Variant as Variant
    from identity_props.running import judge_all as judge_all
    from identity_props.stack import Stack as Stack
    from identity_props.training import Recipe as Recipe
    from identity_props.training import Run as Run
    from identity_props.training import Trial as Trial
    from identity_props.training import train as train
    from identity_props.verdict import Outcome as Outcome
    from identity_props.verdict import judge as judge

# name: module, imported at first use, since pytest loads the plugin, hence this package, everywhere
_HOME = {
    "CLAIMS": "claims",
    "Case": "laws",
    "Claim": "claims",
    "Discrepancy": "laws",
    "Explanation": "explain",
    "InputError": "errors",
    "LAWS": "laws",
    "Law": "laws",
    "MissingError": "errors",
    "Outcome": "verdict",
    "Pixels": "data",
    "Recipe": "training",
    "Reference": "conformance",
    "Row": "conformance",
    "Run": "training",
    "Stack": "stack",
    "Trial": "training",
    "VARIANTS": "models",
    "Variant": "models",
    "assert_conforms": "conformance",
    "assert_learns_identity": "conformance",
    "check": "conformance",
    "digits": "data",
    "judge": "verdict",
    "judge_all": "running",
    "mnist": "data",
    "train": "training",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

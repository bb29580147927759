"""Who learns the identity? Models, training and claims with a known right answer."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from identity_props.claims import CLAIMS, Claim
    from identity_props.data import Pixels, digits, mnist
    from identity_props.errors import InputError, MissingError
    from identity_props.models import VARIANTS, Variant
    from identity_props.running import judge_all
    from identity_props.stack import Stack
    from identity_props.training import Recipe, Run, Trial, train
    from identity_props.verdict import Outcome, judge

# name -> module, imported at first use: pytest loads the plugin, hence this package, in every project
_HOME = {
    "CLAIMS": "claims",
    "Claim": "claims",
    "InputError": "errors",
    "MissingError": "errors",
    "Outcome": "verdict",
    "Pixels": "data",
    "Recipe": "training",
    "Run": "training",
    "Stack": "stack",
    "Trial": "training",
    "VARIANTS": "models",
    "Variant": "models",
    "digits": "data",
    "judge": "verdict",
    "judge_all": "running",
    "mnist": "data",
    "train": "training",
}
__all__ = [*_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

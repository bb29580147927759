"""Pictures of what one network learned, for the page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from markupsafe import Markup
from torch import Tensor

from identity_props.explanation.explain import Explanation
from identity_props.report import pictures
from identity_props.task.metrics import NEAR_IDENTITY


@dataclass(frozen=True)
class Figure:
    """A picture and what there is to see on it."""

    picture: Markup
    caption: str


def portrait(found: Explanation) -> list[Figure]:
    """What one network learned: examples, dead outputs, W - I, the spectrum."""
    figures, dead = [], int(found.dead.sum())
    shape = found.shape or (1, len(found.dead))
    shown = f"{len(found.examples[0])} test images above what the network makes of them."
    figures.append(Figure(pictures.pairs(found.examples, shape, shown), shown))
    caption = f"{dead} of {len(found.dead)} output pixels are dead, 0 on all data: crosses, on the mean of these images."
    figures.append(Figure(pictures.dead_map(found.dead, found.examples[0].mean(0), shape, caption), caption))
    picture, limit = pictures.matrix(
        found.deviation, f"Deviation of {found.name} from the identity, a matrix"
    )
    caption = f"W - I, the mean Jacobian less the identity: grey is 0, black -{limit:.2g}, white {limit:.2g}."
    figures.append(Figure(picture, caption))
    figures += _pictured(found)
    missing = int(found.unlearned.sum())
    caption = (
        f"Spectrum of the training pixels. {missing} directions are not yet learned, squared deviation above"
        f" {NEAR_IDENTITY:g}: crosses; the others: dots.{_waiting(found.steps_left)}"
    )
    figures.append(Figure(pictures.spectrum(found.eigenvalues, found.unlearned, caption), caption))
    return figures


def _pictured(found: Explanation) -> list[Figure]:
    """Of pictures, where the error is, and at which spatial frequency."""
    if found.shape is None or found.by_frequency is None:
        return []
    root = found.by_pixel.sqrt()
    most = float(root.max())
    caption = f"Where the error is: its root mean square, black 0, white {most:.3g} grey levels."
    grey = 255 * root.reshape(found.shape) / (most or 1.0)
    where = Figure(pictures.image(grey, caption, "map"), caption)
    power = found.by_frequency
    half = int((power[:, 0].cumsum(0) < power[:, 0].sum() / 2).sum())
    told = f"Half of the error is below {half + 1} cycles a picture, of {len(power) - 1}. Dashed, the target's power."
    return [where, Figure(pictures.frequencies(power, f"Power of the error by frequency. {told}"), told)]


def _waiting(left: Tensor) -> str:
    if torch.isnan(left).all():
        return ""
    longest = float(left.max())
    if longest == 0:
        return ""
    if math.isfinite(longest):
        return f" At this rate one linear layer would learn them all in {longest:.2g} steps more."
    return " At this rate, which is above the critical one, one linear layer would never learn them all."

"""JSON Schema of what documents are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def typed(kind: str | list[str], description: str, **more: Any) -> Schema:
    """A value of a JSON type."""
    return {"type": kind, "description": description, **more}


def closed(properties: Mapping[str, Schema], description: str = "", optional: tuple[str, ...] = ()) -> Schema:
    """An object that has these and no others, all of them but the optional ones."""
    shape = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    required = [name for name in properties if name not in optional]
    return shape | {"required": required} | ({"description": description} if description else {})


def listed(items: Schema, description: str) -> Schema:
    """A list of these."""
    return typed("array", description, items=items)


def one_of(description: str, *words: str) -> Schema:
    """One of these words."""
    return {"enum": [*words], "description": description}


def text(description: str) -> Schema:
    """Text."""
    return typed("string", description)


def count(description: str) -> Schema:
    """A whole number from 0."""
    return typed("integer", description, minimum=0)


def number(description: str) -> Schema:
    """A number."""
    return typed("number", description)


def figure(description: str) -> Schema:
    """A number, or null where it is not finite or not there."""
    return typed(["number", "null"], description)


def three(description: str) -> Schema:
    """Least, middle and largest replica."""
    names = {"min": "least", "median": "middle", "max": "largest"}
    return closed({name: figure(f"the {word} replica") for name, word in names.items()}, description)

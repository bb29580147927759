"""Parts of JSON Schemas, each of which says what it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = dict[str, Any]


def of(kind: str | list[str], description: str, **more: Any) -> Schema:
    """A value of a kind, or of several."""
    return {"type": kind, "description": description, **more}


def closed(properties: Mapping[str, Schema], description: str = "", optional: tuple[str, ...] = ()) -> Schema:
    """An object that has these and no others, all of them but the optional ones."""
    shape = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    required = [name for name in properties if name not in optional]
    return shape | {"required": required} | ({"description": description} if description else {})


def listed(items: Schema, description: str) -> Schema:
    """A list of such items."""
    return of("array", description, items=items)


def word(description: str, *words: str) -> Schema:
    """One of some words."""
    return {"enum": [*words], "description": description}


def text(description: str) -> Schema:
    """A text."""
    return of("string", description)


def count(description: str) -> Schema:
    """A whole number from 0 on."""
    return of("integer", description, minimum=0)


def number(description: str) -> Schema:
    """A number."""
    return of("number", description)


def figure(description: str) -> Schema:
    """A number, or null where it is not finite or not there."""
    return of(["number", "null"], description)


def three(description: str) -> Schema:
    """The least, middle and largest of the replicas."""
    names = {"min": "least", "median": "middle", "max": "largest"}
    return closed({name: figure(f"the {word} replica") for name, word in names.items()}, description)

"""Kinds of values in JSON Schema, each described."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DIALECT = "https://json-schema.org/draft/2020-12/schema"
Schema = dict[str, Any]


def of_type(kind: str | list[str], description: str, **more: Any) -> Schema:
    """A value of these JSON types."""
    return {"type": kind, "description": description, **more}


def an_object(
    properties: Mapping[str, Schema], description: str = "", optional: tuple[str, ...] = ()
) -> Schema:
    """An object that has these and no others, all of them but the optional ones."""
    shape = {"type": "object", "properties": dict(properties), "additionalProperties": False}
    required = [name for name in properties if name not in optional]
    return shape | {"required": required} | ({"description": description} if description else {})


def list_of(items: Schema, description: str) -> Schema:
    """A list of such items."""
    return of_type("array", description, items=items)


def one_of(description: str, *words: str) -> Schema:
    """One of these words."""
    return {"enum": [*words], "description": description}


def text(description: str) -> Schema:
    """A string."""
    return of_type("string", description)


def count(description: str) -> Schema:
    """An integer from 0 on."""
    return of_type("integer", description, minimum=0)


def number(description: str) -> Schema:
    """A finite number."""
    return of_type("number", description)


def figure(description: str) -> Schema:
    """A number, or null where it is not finite or not there."""
    return of_type(["number", "null"], description)


def three(description: str) -> Schema:
    """Least, middle and largest over replicas."""
    names = {"min": "least", "median": "middle", "max": "largest"}
    return an_object({name: figure(f"the {word} replica") for name, word in names.items()}, description)

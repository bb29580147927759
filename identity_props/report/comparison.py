"""The shape of what ``explain --compare`` writes."""

from __future__ import annotations

from identity_props.report.dialect import Schema, an_object, count, figure, list_of, of_type, text

SCHEMA = "identity-props/comparison/1"


def _both(description: str) -> Schema:
    told = {"a": figure("of a"), "b": figure("of b"), "difference": figure("b less a")}
    return an_object({"name": text("for people"), **told}, f"{description}; null was not measured")


def _side(which: str) -> Schema:
    told = {"file": text("that was read"), "name": text("of the network")}
    return an_object(told | {"seed": count("of its explanation")}, f"the {which}")


def shape(data: Schema) -> dict[str, Schema]:
    """Its fields beside the schema; ``data`` is that of the data it is on."""
    return {
        "version": of_type(["string", "null"], "of identity-props, that of both"),
        "data": data,
        "a": _side("first"),
        "b": _side("second"),
        "fvu": _both("FVU in the space that each works in"),
        "fvu_pixels": _both("FVU in grey levels"),
        "mse": _both("mean squared error in grey levels"),
        "parts": list_of(_both("a part"), "in the order taken; a part that one lacks is 0 there"),
    }

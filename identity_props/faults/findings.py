"""What saw each fault when the audit was last recorded: ``identity-props audit --json``, kept beside this file."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")


@cache
def findings() -> dict[str, dict[str, Any]]:
    """Of each fault, by name: the laws, claims and gate rows that saw it, and its verdict."""
    recorded = json.loads(FILE.read_text(encoding="utf-8"))["findings"]
    return {one["name"]: one for one in recorded if one["kind"] == "fault"}


def breaking(law: str) -> list[str]:
    """Names of the faults that the law saw."""
    return [name for name, one in findings().items() if law in one["laws"]]

"""The audit's tables: the kill matrix, false alarms, and which rate faults are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from identity_props.faults.audit import Alarms, Finding

SCHEMA = "identity-props/audit/1"


def matrix(findings: Sequence[Finding]) -> Table:
    """A row a fault or clean twin: its verdict, and which laws, claims and gate rows saw it."""
    grid = Table(
        title="What saw each fault", title_justify="left", caption=_caption(findings), caption_justify="left"
    )
    grid.box, grid.show_edge, grid.pad_edge, grid.padding = SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    for heading in ("fault", "verdict"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("laws", "claims", "gate"):
        grid.add_column(heading)
    for finding in sorted(findings, key=lambda one: (one.kind == "twin", one.name)):
        laws = finding.equivalent or _brief(finding.laws)
        words = [row.split()[1] for row in finding.gate]
        gate = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
        style = None if finding.right else "bold red"
        name = f"{finding.name} (clean)" if finding.kind == "twin" else finding.name
        grid.add_row(name, finding.verdict, laws, _brief(finding.claims), gate, style=style)
    return grid


def _brief(names: Sequence[str]) -> str:
    """The first that is no comparison with a reference, and how many more."""
    first = ([name for name in names if not name.startswith("like-")] or [*names])[:1]
    return "".join(first) + (f" +{len(names) - 1}" if len(names) > 1 else "")


def _caption(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def rates(findings: Sequence[Finding]) -> Table:
    """Of each rate fault: the laws and the gate rows that see it."""
    grid = Table(title="Steps too short, and what sees it", title_justify="left", box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge, grid.padding = False, False, (0, 1, 0, 0)
    for heading in ("factor", "optimizer", "laws", "gate"):
        grid.add_column(heading)
    for finding in findings:
        if finding.name.startswith("rate-"):
            _, factor, optimizer = finding.name.split("-")
            grid.add_row(factor, optimizer, _brief(finding.laws), ", ".join(finding.gate) or "nothing")
    return grid


def alarms_table(alarms: Sequence[Alarms]) -> Table:
    """A row a judgement of torch's own parts: how often it was wrong, and the 95% bound on that."""
    grid = Table(title="False alarms on torch's own parts", title_justify="left", box=SIMPLE_HEAD)
    grid.show_edge, grid.pad_edge = False, False
    for heading in ("judged", "alarms", "at most (95%)", "what"):
        grid.add_column(heading)
    for one in alarms:
        style = "bold red" if one.alarms else None
        count = f"{one.alarms} of {one.tried}"
        grid.add_row(one.name, count, f"{one.bound:.3g}", one.note, style=style)
    return grid


def document(findings: Sequence[Finding], alarms: Sequence[Alarms]) -> dict[str, Any]:
    """What ``audit --json`` prints."""
    return {
        "schema": SCHEMA,
        "passed": passed(findings, alarms),
        "findings": [asdict(finding) | {"verdict": finding.verdict} for finding in findings],
        "alarms": [asdict(one) | {"bound": one.bound} for one in alarms],
    }


def passed(findings: Sequence[Finding], alarms: Sequence[Alarms] = ()) -> bool:
    """Every fault is seen by a law, every clean twin is clean, and nothing raised a false alarm."""
    return all(finding.right for finding in findings) and not any(one.alarms for one in alarms)

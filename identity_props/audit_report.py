"""The audit's tables: the kill matrix, false alarms, and which rate faults are seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from identity_props.audit import Alarms, Finding

SCHEMA = "identity-props/audit/1"
SHOWN = 3  # names in a cell; the others are counted


def matrix(findings: Sequence[Finding]) -> Table:
    """A row a fault or clean twin: verdict, the laws, claims and gate rows that saw it, and where it is from."""
    grid = Table(
        title="Kill matrix", title_justify="left", caption=_caption(findings), caption_justify="left"
    )
    grid.box, grid.show_edge, grid.pad_edge, grid.padding = SIMPLE_HEAD, False, False, (0, 1, 0, 0)
    for heading in ("fault", "verdict"):
        grid.add_column(heading, no_wrap=True)
    for heading in ("laws", "claims", "gate", "what, and from where"):
        grid.add_column(heading)
    for finding in sorted(findings, key=lambda one: (one.kind == "twin", one.name)):
        seen = (_brief(names) for names in (finding.laws, finding.claims, finding.gate))
        about = Text(f"{finding.equivalent or finding.what} {finding.source}".strip())
        style = None if finding.right else "bold red"
        grid.add_row(finding.name, finding.verdict, *seen, about, style=style)
    return grid


def _brief(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" +{more}" if more > 0 else "")


def _caption(findings: Sequence[Finding]) -> str:
    verdicts = [finding.verdict for finding in findings]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))


def rates(findings: Sequence[Finding]) -> Table:
    """Of each rate fault: how many laws and gate rows see it."""
    grid = Table(title="Steps too short", title_justify="left", box=SIMPLE_HEAD, show_edge=False)
    for heading in ("factor", "optimizer", "laws", "gate"):
        grid.add_column(heading)
    for finding in findings:
        if finding.name.startswith("rate-"):
            _, factor, optimizer = finding.name.split("-")
            grid.add_row(
                factor, optimizer, str(len(finding.laws)), ", ".join(finding.gate) or "does not see it"
            )
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

"""The command ``identity-props audit``."""

from __future__ import annotations

import click

from identity_props.cli.terminal import ALL_HOLD, ONE_FAILS, options, say, show


@click.command()
@click.option("--faults", default="*", metavar="PATTERN", help="Only faults matching shell patterns.")
@click.option(
    "--seeds",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Also judge torch's own parts with that many seeds, and count false alarms; 200 take 20 minutes.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes.  [default: one a core]")
@options("scheduler")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the tables.")
def audit(faults: str, seeds: int, jobs: int | None, scheduler: str | None, as_json: bool) -> int:
    """Plant documented faults, one by one, and show which law, claim or gate row sees each.

    Fails where no law sees a fault, or where anything sees a clean twin, the same part written right.
    """
    from identity_props.claims.running import cores
    from identity_props.faults.audit import audit as plant
    from identity_props.faults.audit import false_alarms, matching
    from identity_props.report import audit as tables

    findings, alarms, jobs = [], [], jobs or cores()
    for finding in plant(matching(faults), jobs, scheduler, say):
        findings.append(finding)
        say(f"{len(findings)} {finding.verdict} {finding.name}")
    for one in false_alarms(seeds, jobs, scheduler, say) if seeds else ():
        alarms.append(one)
        say(f"{one.alarms} false alarms of {one.tried} {one.name}")
    if as_json:
        show(tables.document(findings, alarms))
    else:
        shown = [tables.matrix(findings), tables.rates(findings)]
        for table in [*shown, tables.alarms_table(alarms)][: 3 if alarms else 2]:
            show(table)
    return ALL_HOLD if tables.passed(findings, alarms) else ONE_FAILS

"""Laws as tests of a user's own: one test a law and stack, by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

import pytest

from identity_props.conformance.checking import MOVES, failed, planned, unbuilt
from identity_props.conformance.following import after, limited
from identity_props.conformance.rows import (
    FAIL,
    NOT_APPLICABLE,
    NOT_RUN,
    PASS,
    Reference,
    Row,
    figure,
    statement,
)
from identity_props.errors import InputError
from identity_props.faults import FAULTS
from identity_props.faults.findings import breaking, findings
from identity_props.stack.stack import Stack

FEW = 2  # of what commonly breaks a law


def parametrize_with_laws(
    stacks: Sequence[Stack] | Mapping[str, Stack],
    like: Reference | Mapping[str, Reference] | None = None,
    laws: Iterable[str] = ("*",),
    skip: Mapping[str, str] | None = None,
    expected_failures: Mapping[str, str] | None = None,
    tolerances: Mapping[str, float] | None = None,
    seed: int = 0,
    guard: float | None = None,
) -> pytest.MarkDecorator:
    """Run a test of ``(stack, law)`` that calls ``law(stack)`` once for each law and stack, by the id stack-law.

    The laws are the rows of ``check``: one that does not apply is skipped with its reason. Stacks have the ids
    that a mapping gives them, else the names of their parts; so have references, where there is one a stack.
    ``laws``, ``skip`` and ``expected_failures`` (strict, both with reasons) and ``tolerances``, which stand in
    test ids and are printed, name laws by shell patterns, of all stacks, or of one as stack-law. Raises
    InputError for a pattern that names none, or a stack or tolerance that is none.
    """
    asked = {
        f"{name}-{law}": LawOf(law, judge)
        for name, stack in _by_id(stacks).items()
        for judge in [_Judge(stack, _reference(like, name), seed, limited(guard, stack.mode))]
        for law in judge.plan
    }
    wanted = dict.fromkeys(laws, True)
    patterns = {"laws": tuple(wanted), "skip": skip, "expected failures": expected_failures}
    for what, given in (patterns | {"tolerances": tolerances}).items():
        _check_patterns(what, given or (), asked)
    selected = {name: one for name, one in asked.items() if _first(wanted, name, one.name)}
    return pytest.mark.parametrize(
        ("stack", "law"),
        [
            _parameter(name, one, skip or {}, expected_failures or {}, tolerances or {})
            for name, one in selected.items()
        ],
    )


def _parameter(
    name: str, one: LawOf, skip: Mapping[str, str], fails: Mapping[str, str], tolerances: Mapping[str, float]
) -> Any:
    marks = [pytest.mark.identity]
    if reason := _first(skip, name, one.name):
        marks.append(pytest.mark.skip(reason=reason))
    if reason := _first(fails, name, one.name):
        marks.append(pytest.mark.xfail(reason=reason, strict=True))
    allowed = _first(tolerances, name, one.name)
    if allowed is not None:
        name += f"-within-{allowed:g}"
    return pytest.param(one.judge.stack, replace(one, allowed=allowed), id=name, marks=marks)


def _first(patterns: Mapping[str, Any], name: str, law: str) -> Any:
    """What is said of a law by the first pattern that names it, in general or of its stack."""
    return next(
        (said for pattern, said in patterns.items() if _names(pattern, name) or _names(pattern, law)), None
    )


def _names(pattern: str, name: str) -> bool:
    return fnmatchcase(name, pattern)


def _check_patterns(what: str, patterns: Iterable[str], asked: Mapping[str, LawOf]) -> None:
    laws = dict.fromkeys(one.name for one in asked.values())
    for pattern in patterns:
        if not any(_names(pattern, name) for name in (*laws, *asked)):
            raise InputError(f"{what}: expected a pattern of {', '.join(laws)}, got {pattern!r}")
    if isinstance(patterns, Mapping):
        for pattern, said in patterns.items():
            if not said or (what == "tolerances" and not 0 < said < float("inf")):
                wanted = "a number above 0" if what == "tolerances" else "a reason"
                raise InputError(f"{what}: expected {wanted} for {pattern}, got {said!r}")


# Stacks by id -----------------------------------------------------------------------------------------


def _by_id(stacks: Sequence[Stack] | Mapping[str, Stack]) -> dict[str, Stack]:
    """Stacks by the ids that they are given, else by their parts, with a number where two are the same."""
    if isinstance(stacks, Mapping):
        named = dict(stacks)
    else:
        ids = [_id(stack) for stack in stacks]
        unique = [
            f"{one}-{ids[: k + 1].count(one)}" if ids.count(one) > 1 else one for k, one in enumerate(ids)
        ]
        named = dict(zip(unique, stacks, strict=True))
    if not named or not all(isinstance(stack, Stack) for stack in named.values()):
        raise InputError(f"stacks: expected a Stack or more, got {[*named.values()]}")
    return named


def _id(stack: object) -> str:
    if not isinstance(stack, Stack):
        return repr(stack)
    usual = Stack().describe()
    parts = [str(part) for name, part in stack.describe().items() if part != usual[name]]
    told = [part.rpartition(":")[2] for part in parts] + [f"{k}={v}" for k, v in stack.arguments.items()]
    return re.sub(r"[^\w.=+-]+", "_", "-".join(told)) or "torch"


def _reference(like: Reference | Mapping[str, Reference] | None, name: str) -> Reference:
    return like.get(name, Reference()) if isinstance(like, Mapping) else like or Reference()


# One law ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LawOf:
    """A law of a stack, which ``law(stack)`` judges; ``allowed`` stands for its own tolerance."""

    name: str
    judge: _Judge = field(repr=False)
    allowed: float | None = None

    def __call__(self, stack: Stack | None = None) -> None:
        """Pass, skip with a reason, or fail in five lines; another stack is judged like the law's own."""
        __tracebackhide__ = True
        judge = self.judge if stack in (None, self.judge.stack) else self.judge.of(stack)
        try:
            row = judge.row(self.name)
        except InputError as error:
            pytest.fail(str(error), pytrace=False)
        if row.verdict in (NOT_APPLICABLE, NOT_RUN):
            pytest.skip(f"{self.name}: {row.note}")
        if self.allowed is not None:
            row = _overridden(row, self.allowed)
        if row.verdict == FAIL:
            pytest.fail("\n".join(told(row, judge.stack)), pytrace=False)


def _overridden(row: Row, allowed: float) -> Row:
    """The row with another tolerance, where it has figures at all."""
    if row.measured is None or row.allowed is None:
        return row
    print(f"{row.name}: allowed {allowed:g}, which stands for {figure(row.allowed)}")
    if row.measured <= allowed:  # never NaN
        return replace(row, verdict=PASS, allowed=allowed)
    return replace(row, verdict=FAIL, allowed=allowed, kind=row.kind or "beyond what the test allows")


def told(row: Row, stack: Stack) -> list[str]:
    """Five lines: what fails and how, the law, what was measured and allowed, what commonly does this, where."""
    # what few other laws see is the likelier, and what many see stands in their lines, too
    names = sorted(breaking(row.name), key=lambda name: len(findings()[name]["laws"]))
    known = [FAULTS[name].what.rstrip(".") for name in names]
    more = f"; {len(known) - FEW} more are listed there" if len(known) > FEW else ""
    return [
        f"{row.name} fails, {row.kind}: {stack}",
        f"the law: {statement(row.name)}",
        ": ".join(filter(None, (row.figures, row.note))),
        f"commonly: {'; '.join(known[:FEW]) or 'nothing that the audit plants'}{more}",
        f"in full: {row.address}",
    ]


@dataclass(eq=False)
class _Judge:
    """The rows of one stack, each measured once; what its parts are found to be is found once, too."""

    stack: Stack
    like: Reference
    seed: int
    guard: float

    def __post_init__(self) -> None:
        self.plan: dict[str, Callable[[], Row]] = dict(planned(self.stack, self.like, self.seed))
        self.rows: dict[str, Row] = {}
        self.builds: bool | None = None

    def of(self, stack: Stack) -> _Judge:
        """The same of another stack."""
        return replace(self, stack=stack)

    def row(self, name: str) -> Row:
        """The row of that name; raises InputError for an optimizer that refuses what it is given."""
        if self.builds is None:
            self.builds = not unbuilt(self.stack, self.like, self.guard)
        if name != MOVES and not self.builds:
            return Row(name, NOT_RUN, note=f"its parts cannot be built or trained, which {MOVES} says")
        if name not in self.rows:
            self.rows[name] = after([*self.rows.values()], name, self.plan[name], self.guard)
        return failed(self.rows[name], self.stack) if self.rows[name].kind else self.rows[name]

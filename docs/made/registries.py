"""Pages of the registries: laws, claims, faults and algorithms."""

from made.markdown import anchor, page, plain, sentence, table

from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import FALSE_HOLD, share_found
from identity_props.conformance.facts import FACTS
from identity_props.conformance.rows import OTHERS
from identity_props.conformance.traits import TRAITS
from identity_props.faults import ALL_FAULTS, LayerFault, TrainerFault
from identity_props.faults.findings import findings
from identity_props.laws import LAWS
from identity_props.layers import LAYER_LAWS
from identity_props.task.algorithms import ALGORITHMS
from identity_props.task.algorithms.conventions import COUNTER_SLIPS, DECAY_SLIPS, IDLE_SLIPS, STEP_SLIPS
from identity_props.trainers import TRAINER_LAWS

REGISTRIES = {
    "law": LAWS | dict.fromkeys(TRAINER_LAWS) | dict.fromkeys(LAYER_LAWS) | dict.fromkeys(OTHERS),
    "claim": CLAIMS,
    "fault": ALL_FAULTS,
}  # with pages below reference/laws/, ...
ELSEWHERE = {
    "another device or mode or ranks",
    "cuda",
    "several ranks",
}  # needs of laws that are not met at home


def link(kind, name):
    """To a page of the registry, from a page below reference/; a row that has no page is itself."""
    return f"[{name}](../{kind}s/{name}.md)" if name in REGISTRIES[kind] else f"`{name}`"


def listed(kind, entries, line):
    """A table of a registry, one line each."""
    rows = [(link(kind, name), sentence(line(one))) for name, one in entries.items()]
    return f"{len(entries)} {kind}s.\n\n" + table(
        (kind, "what it says" if kind != "fault" else "what it does"), rows
    )


# What the audit found -----------------------------------------------------------------------------


def seen_by(kind, name):
    """The faults that a law or claim is known to see."""
    return [ALL_FAULTS[fault] for fault, one in findings().items() if name in one[f"{kind}s"]]


def broken_by(kind, name):
    """A section, or nothing where the audit knows of no fault."""
    known = seen_by(kind, name)
    lines = [f"- {link('fault', fault.name)}: {plain(fault.what)}\n" for fault in known]
    return "## Commonly broken by\n\n" + "".join(lines) + "\n" if known else ""


def seen(finding):
    """Which laws, claims and gate rows saw a fault."""
    if not finding or not any(finding[kind] for kind in ("laws", "claims", "gate")):
        return ""
    gate = [(name.partition("/")[0], name) for name in finding["gate"]]
    lines = [f"- {'law' if name in LAWS else 'row'} {link('law', name)}\n" for name in finding["laws"]]
    lines += [f"- claim {link('claim', name)}\n" for name in finding["claims"]]
    lines += [f"- gate, of claim {link('claim', claim)}: {plain(row)}\n" for claim, row in gate]
    return "## Seen by\n\n" + "".join(lines) + "\n"


def summary():
    """How many faults laws, claims and the gate see."""
    known = [one for one in findings().values() if not one["equivalent"]]
    if not known:
        return ""
    laws = [one for one in known if any(not name.startswith("like-") for name in one["laws"])]
    claims, gate = ([one for one in known if one[kind]] for kind in ("claims", "gate"))
    alone = [one for one in known if not one["claims"] and not one["gate"]]
    return (
        f"Laws see {len(laws)} of {len(known)} faults without the help of `--like`, a claim notices {len(claims)} of them and the"
        f" gate {len(gate)}; {len(alone)} are seen by laws alone. {len(findings()) - len(known)} more are equivalent.\n\n"
    )


# Laws, claims, faults, algorithms -------------------------------------------------------------------


def law_page(law):
    needs = [f"[{need}](index.md#{anchor(need)})" for need in sorted(law.needs)]
    facts = {
        "source": plain(law.source),
        "applies to": ", ".join(needs) or "every stack",
        "exercises": ", ".join(f"`{axis}`" for axis in sorted(law.axes)),
        "a row that fails says": f"[{plain(law.kind)}](../rows.md#how-a-row-fails)",
    }
    tolerance = f"## Tolerance\n\n{sentence(law.derivation)}\n\n"
    return page(law.name, law.statement, facts) + tolerance + broken_by("law", law.name)


def trainer_law_page(law):
    facts = {
        "of": "[trainers](index.md#laws-of-trainers)",
        "source": plain(law.source),
        "asks for": ", ".join(f"`{need}`" for need in law.needs) or "what every trainer has",
        "a row that fails says": f"[{plain(law.kind)}](../rows.md#how-a-row-fails)",
    }
    tolerance = f"## Tolerance\n\n{sentence(law.derivation)}\n\n"
    return page(law.name, law.statement, facts) + rules(law) + tolerance + broken_by("law", law.name)


def layer_law_page(law):
    facts = {
        "of": "[layers of any kind](index.md#laws-of-layers)",
        "source": plain(law.source),
        "where it does not hold": sentence(law.why),
        "applies to": plain(", ".join(law.needs)) or "every layer",
        "a row that fails says": f"[{plain(law.kind)}](../rows.md#how-a-row-fails)",
    }
    tolerance = f"## Tolerance\n\n{sentence(law.derivation)}\n\n"
    return page(law.name, law.statement, facts) + tolerance + broken_by("law", law.name)


def rules(law):
    """The rules that a law names, which --accept takes."""
    if not law.named:
        return ""
    rows = [
        (f"`{rule}`", sentence(says), "in use" if rule in law.rules else "a slip")
        for rule, says in law.named.items()
    ]
    return "## Rules\n\n" + table(("rule", "what it does", "is"), rows)


def laws_index():
    rows = [(link("law", name), sentence(law.statement)) for name, law in LAWS.items()]
    traits = {name: test.__doc__ for name, test in (TRAITS | FACTS).items()}
    found = "".join(f"### {name}\n\n{needed(name, says)}\n\n" for name, says in traits.items())
    elsewhere = sum(bool(law.needs & ELSEWHERE) for law in LAWS.values())
    count = f"{len(LAWS)} laws, {elsewhere} of them only on another device, in compiled code or on ranks.\n\n"
    trainers = [(link("law", name), sentence(law.statement)) for name, law in TRAINER_LAWS.items()]
    whole = f"## Laws of trainers\n\n{len(trainers)} laws.\n\n" + table(("law", "what it says"), trainers)
    layers = [(link("law", name), sentence(law.statement)) for name, law in LAYER_LAWS.items()]
    whole += f"## Laws of layers\n\n{len(layers)} laws.\n\n" + table(("law", "what it says"), layers)
    return count + table(("law", "what it says"), rows) + whole + TRAITS_HEAD + found


TRAITS_HEAD = """## What a part has to be

A law applies to the parts that are what it speaks of. That is found by trying them, never by their names.

"""


def needed(name, says):
    laws = ", ".join(link("law", law.name) for law in LAWS.values() if name in law.needs)
    return " ".join(filter(None, (says and sentence(says), laws and f"Asked for by {laws}.")))


def row_page(name, says):
    return page(name, says, {"no law": "a [row of check](../rows.md) of its own"}) + broken_by("law", name)


def claim_page(claim):
    judged = (
        f"holds if more than {claim.share:.0%} of all seeds do it: said wrongly with probability {FALSE_HOLD:g} at most,"
        f" missed with 1e-6 at most where {share_found(claim.share):.0%} do"
    )
    facts = {
        "expects": f"[{claim.expects}](../../tutorial.md#what-the-table-means)",
        "source": plain(claim.source),
        "measured": plain(claim.evidence),
        "judged": judged,
    }
    if claim.slow:
        facts["left out"] = "unless it is named, or with `--slow`"
    return page(claim.name, claim.statement, facts) + broken_by("claim", claim.name)


def fault_page(fault):
    if isinstance(fault, TrainerFault):
        facts = {"seen in": plain(fault.source), "planted in": "the package's own training loop"}
    elif isinstance(fault, LayerFault):
        facts = {
            "seen in": plain(fault.source),
            "planted in": plain(fault.twin.what),
            "breaks": f"`{fault.law}`",
        }
    else:
        facts = {
            "seen in": plain(fault.source),
            "planted in": ", ".join(f"`{part}`" for part in fault.parts),
            "clean twin": f"`{fault.twin.name}`"
            + (f", judged like `{fault.twin.optimizer}`" if fault.twin.optimizer else ""),
        }
    if fault.equivalent:
        facts["cannot be seen"] = f"{plain(fault.equivalent)}; nothing may see it"
    return page(fault.name, fault.what, facts) + seen(findings().get(fault.name))


def algorithms_page():
    """The zoo of published optimizers, then the slips that any of them can have."""
    text = "".join(map(algorithm_entry, ALGORITHMS.values()))
    slips = [*STEP_SLIPS, *COUNTER_SLIPS, *IDLE_SLIPS, *DECAY_SLIPS]
    return f"{text}## Slips that any can have\n\n" + "".join(f"- {sentence(slip)}\n" for slip in slips)


def algorithm_entry(one):
    """Its name, paper, equation and defaults, its variants and slips."""
    defaults = ", ".join(f"{name}={value}" for name, value in one.defaults.items())
    lines = [f"## {one.name}\n\n{plain(one)}.\n\n```text\n{one.equation}\n```\n\nDefaults: `{defaults}`.\n\n"]
    for kind, ways in (("Variants", one.variants), ("Slips", one.slips)):
        if ways:
            lines.append(f"{kind}:\n\n" + "".join(f"- {plain(way)}\n" for way in ways) + "\n")
    return "".join(lines)

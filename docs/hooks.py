"""Pages that mkdocs makes of the registries: one a law, claim and fault, the commands, options and documents.

A hand-written page of the same address is the head of a made one: what is generated follows its text.
"""

import configparser
import inspect
import json
import re
from pathlib import Path

import click
from mkdocs.structure.files import File

import identity_props
from identity_props.claims.registry import CLAIMS
from identity_props.claims.verdict import FALSE_HOLD, share_found
from identity_props.cli import commands
from identity_props.conformance.facts import FACTS
from identity_props.conformance.rows import OTHERS
from identity_props.conformance.traits import TRAITS
from identity_props.faults import ALL_FAULTS, LayerFault, TrainerFault
from identity_props.faults.findings import findings
from identity_props.laws import LAWS
from identity_props.layers import LAYER_LAWS
from identity_props.plugin import OPTIONS
from identity_props.report.schemas import schemas
from identity_props.task.algorithms import ALGORITHMS
from identity_props.task.algorithms.conventions import COUNTER_SLIPS, DECAY_SLIPS, IDLE_SLIPS, STEP_SLIPS
from identity_props.trainers import TRAINER_LAWS

ROOT = Path(__file__).parent.parent
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
CONTEXT = ("versions", "machine", "data", "stack")  # of a document


def on_files(files, config):
    """Add the made pages, a hand-written one of the same address before its text."""
    for address, text in {**generated(), **of_benchmarks()}.items():
        head = files.get_file_from_path(address)
        if head is not None:
            files.remove(head)
            text = f"{Path(head.abs_src_path).read_text()}\n{text}"
        files.append(File.generated(config, address, content=text))
    (reference,) = (section["Reference"] for section in config.nav if "Reference" in section)
    for kind, registry in REGISTRIES.items():
        reference.append({f"{kind.title()}s": below(kind, registry)})
    return files


def below(kind, registry):
    """The index of a registry in the navigation, and its pages."""
    folder = f"reference/{kind}s"
    return [f"{folder}/index.md", *({name: f"{folder}/{name}.md"} for name in registry)]


def on_page_markdown(markdown, **_):
    """Commands are coloured as a shell's: they have no prompt, and a console's would be output."""
    return markdown.replace("```console", "```sh")


def on_page_content(html, page, **_):
    """A picture whose parts are links is put into its page: in an image of it they lead nowhere."""
    if page.file.src_uri != "explanation/real-trainers.md":
        return html
    picture = (ROOT / "docs/explanation/real-trainers.svg").read_text()
    placed = picture.replace('href="real-trainers-ledgers.md', 'href="../real-trainers-ledgers/')
    return re.sub(r'<img[^>]*src="[^"]*real-trainers\.svg"[^>]*>', lambda _: placed, html)


def generated():
    """Text by address, of every page that is made of a registry."""
    pages = {f"reference/laws/{name}.md": law_page(law) for name, law in LAWS.items()}
    pages |= {f"reference/laws/{name}.md": trainer_law_page(law) for name, law in TRAINER_LAWS.items()}
    pages |= {f"reference/laws/{name}.md": layer_law_page(law) for name, law in LAYER_LAWS.items()}
    pages |= {f"reference/laws/{name}.md": row_page(name, says) for name, says in OTHERS.items()}
    pages |= {f"reference/claims/{name}.md": claim_page(claim) for name, claim in CLAIMS.items()}
    pages |= {f"reference/faults/{name}.md": fault_page(fault) for name, fault in ALL_FAULTS.items()}
    pages |= {f"reference/schemas/{name}.json": json.dumps(one, indent=1) for name, one in schemas().items()}
    return pages | {
        "reference/laws/index.md": laws_index(),
        "reference/claims/index.md": listed("claim", CLAIMS, lambda claim: claim.statement),
        "reference/faults/index.md": summary() + listed("fault", ALL_FAULTS, lambda fault: fault.what),
        "reference/commands.md": commands_page(),
        "reference/options.md": options_page() + environments_page(),
        "reference/documents.md": documents_page(),
        "reference/python.md": python_page(),
        "reference/algorithms.md": algorithms_page(),
    }


def of_benchmarks():
    """What the benchmarks wrote, beside the page that speaks of it."""
    return {
        "explanation/benchmarks/results.md": (ROOT / "benchmarks/results.md").read_text(),
        "explanation/benchmarks/NOTES.md": (ROOT / "benchmarks/NOTES.md").read_text(),
        "explanation/benchmarks/growth.svg": (ROOT / "benchmarks/growth.svg").read_text(),
    }


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


# Markdown -----------------------------------------------------------------------------------------


def plain(text):
    """Text as it is: nothing in it is Markdown but what stands between double backticks, which is code."""
    parts = re.split(r"``(.+?)``", " ".join(str(text).split()))
    escaped = [re.sub(r"([\\`*_{}\[\]#|])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    codes = [f"`{part}`" for part in parts[1::2]] + [""]
    return "".join(a + b for a, b in zip(escaped, codes, strict=True))


def sentence(text):
    """Text with a capital and a full stop."""
    text = plain(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")


def table(heads, rows):
    """A table of cells that are Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines) + "\n"


def fenced(text):
    return f"```text\n{text}\n```\n\n"


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


# Laws, claims, faults -----------------------------------------------------------------------------


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


def anchor(words):
    return re.sub(r"[^a-z0-9]+", "-", words.lower().replace("'", "")).strip("-")


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


def page(name, says, facts):
    """The head of a page: what it is, and its facts in a list."""
    return f"# {name}\n\n{sentence(says)}\n\n" + "".join(f"- **{k}**: {v}\n" for k, v in facts.items()) + "\n"


def seen(finding):
    """Which laws, claims and gate rows saw a fault."""
    if not finding or not any(finding[kind] for kind in ("laws", "claims", "gate")):
        return ""
    gate = [(name.partition("/")[0], name) for name in finding["gate"]]
    lines = [f"- {'law' if name in LAWS else 'row'} {link('law', name)}\n" for name in finding["laws"]]
    lines += [f"- claim {link('claim', name)}\n" for name in finding["claims"]]
    lines += [f"- gate, of claim {link('claim', claim)}: {plain(row)}\n" for claim, row in gate]
    return "## Seen by\n\n" + "".join(lines) + "\n"


# Commands, options, documents ----------------------------------------------------------------------


def commands_page():
    parts = []
    for name, command in commands.commands.items():
        context = click.Context(command, info_name=f"identity-props {name}", **commands.context_settings)
        parts.append(f"## {name}\n\n{fenced(command.get_help(context))}")
    rows = [
        (f"[`identity-props {name}`](#{name})", plain(one.get_short_help_str(200)))
        for name, one in commands.commands.items()
    ]
    return table(("command", "does"), rows) + "".join(parts)


def options_page():
    rows = []
    for name, how in OPTIONS.items():
        values = " or ".join(f"`{value}`" for value in how.get("choices", ())) or f"{how.get('metavar', '')}"
        rows.append((f"`--identity-{name}`", values, plain(how["help"])))
    return "## Options\n\n" + table(("option", "value", "does"), rows)


def environments_page():
    ini = configparser.ConfigParser(interpolation=None)
    ini.read(ROOT / "tox.ini")
    rows = [
        (f"`{name.partition(':')[2]}`", plain(ini[name]["description"]))
        for name in ini.sections()
        if name.startswith("testenv:")
    ]
    default = ini["tox"]["env_list"].split(", ")
    return (
        "## tox environments\n\n"
        + table(("environment", "runs"), rows)
        + f"A plain `tox` runs {', '.join(f'`{name}`' for name in default[:-1])} and `{default[-1]}`. The environments are built"
        " by uv, which links them all to one copy of torch in its cache.\n"
    )


def python_page():
    """Every public name: how it is called, and what it says of itself."""
    parts = ["# Python\n\nAll that `from identity_props import ...` gives, from the package itself.\n\n"]
    for name in identity_props.__all__:
        one = getattr(identity_props, name)
        parts.append(f"## {name}\n\n")
        if isinstance(one, dict):
            parts.append(
                f"A registry, by name: {len(one)} of `{type(next(iter(one.values()))).__name__}`.\n\n"
            )
            continue
        if isinstance(one, type) and issubclass(one, Exception):
            parts.append(f"{plain(inspect.getdoc(one))}\n\n")
            continue
        parts += [f"```python\n{signature(name, one)}\n```\n\n", paragraphs(inspect.getdoc(one))]
    return "".join(parts)


def signature(name, one):
    """One argument a line, without the package's own paths."""
    called = inspect.signature(one)
    arguments = [re.sub(r"identity_props\.[a-z_.]+\.", "", str(p)) for p in called.parameters.values()]
    back = re.sub(r"identity_props\.[a-z_.]+\.", "", str(called.return_annotation).strip("'"))
    made = "" if isinstance(one, type) else f" -> {back}"
    return (
        f"{name}(\n"
        + "".join(f"    {re.sub(' at 0x[0-9a-f]+', '', one)},\n" for one in arguments)
        + f"){made}"
    )


def paragraphs(text):
    return "".join(f"{plain(part)}\n\n" for part in text.split("\n\n"))


def documents_page():
    """Each document's fields, and once what several of them hold."""
    parts, heads = [], ("field", "type", "is")
    for name, schema in schemas().items():
        parts.append(f"## {name}\n\n{sentence(schema['title'])} [JSON Schema](schemas/{name}.json).\n\n")
        parts.append(table(heads, fields(schema)))
    common = {name: schemas()["results"]["properties"][name] for name in CONTEXT}
    parts.append("## Context\n\nWhat several of them hold.\n\n")
    return "".join(parts) + table(heads, fields({"properties": common}, everything=True))


def fields(schema, above="", everything=False):
    """A row for each field: its path, its type, and what it is."""
    for name, one in schema.get("properties", {}).items():
        path = f"{above}{name}"
        if path in CONTEXT and not everything:
            yield f"`{path}`", kind(one), "see [Context](#context)"
            continue
        yield f"`{path}`", kind(one), plain(one.get("description", ""))
        yield from fields(one, f"{path}.")
        yield from fields(one.get("items", {}), f"{path}[].")
        if isinstance(one.get("additionalProperties"), dict):
            yield from fields(one["additionalProperties"], f"{path}.NAME.")


def kind(schema):
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(map(str, schema["enum"]))
    kinds = schema.get("type", "object")
    return kinds if isinstance(kinds, str) else " or ".join(kinds)

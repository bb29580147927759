"""Pages of what is called: commands, options, environments, Python, and the documents that they write."""

import configparser
import inspect
import re
from pathlib import Path

import click
from made.markdown import fenced, plain, sentence, table

import identity_props
from identity_props.cli import commands
from identity_props.plugin import OPTIONS
from identity_props.report.schemas import schemas

ROOT = Path(__file__).parents[2]
CONTEXT = ("versions", "machine", "data", "stack")  # of a document


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

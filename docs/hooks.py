"""Pages that mkdocs makes of the registries: one a law, claim and fault, the commands, options and documents.

A hand-written page of the same address is the head of a made one: what is generated follows its text.
"""

import json
import re
from pathlib import Path

from made.commands import commands_page, documents_page, environments_page, options_page, python_page
from made.registries import (
    REGISTRIES,
    algorithms_page,
    claim_page,
    fault_page,
    law_page,
    laws_index,
    layer_law_page,
    listed,
    row_page,
    summary,
    trainer_law_page,
)
from mkdocs.structure.files import File

from identity_props.claims.registry import CLAIMS
from identity_props.conformance.rows import OTHERS
from identity_props.faults import ALL_FAULTS
from identity_props.laws import LAWS
from identity_props.layers import LAYER_LAWS
from identity_props.report.schemas import schemas
from identity_props.trainers import TRAINER_LAWS

ROOT = Path(__file__).parent.parent


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

"""Markdown that pages are made of."""

import re


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


def anchor(words):
    return re.sub(r"[^a-z0-9]+", "-", words.lower().replace("'", "")).strip("-")


def page(name, says, facts):
    """The head of a page: what it is, and its facts in a list."""
    return f"# {name}\n\n{sentence(says)}\n\n" + "".join(f"- **{k}**: {v}\n" for k, v in facts.items()) + "\n"

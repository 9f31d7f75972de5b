"""Pages of reference, made from definitions: what a study's file may say, and what tables' columns mean, where families
are measured."""

import json
import re

from lossmap.study.columns import COLUMNS, SUFFIXES
from lossmap.study.definition import Study
from lossmap.study.exhibit import kinds, load
from lossmap.vlm.family_table import family_table

PREAMBLE = """# Settings of a study

Every key of a study's file, with its type, its default and what it means. A key without default may be left out, but
for those marked *required*. Made by `python -m lossmap write_reference`; the definition is
`workflow/lossmap/study/definition.py`.

Editors complete and check keys with [study.schema.json](study.schema.json): begin the file with
`# yaml-language-server: $schema=<path or address of it>`.
"""


COLUMNS_PREAMBLE = """# Columns of the tables

Every column of every table, `results/STUDY/tables/*.csv`, by its name there; the headings of the pages, `*.html`, say
what stands under *heading*, after a comma with what sets columns of one kind apart ("overlap, k = 100"), and tell the
meaning to whoever rests on them. Numbers in a name stand for any: `recall_at_5` is `recall_at_r`. Every share is one of
1, not of 100. Made by `python -m lossmap write_reference`; the definitions are in `workflow/lossmap/study/columns.py`.
"""


FAMILIES_PREAMBLE = """# Table of model families

Where each [family](families.md) is measured and what it gives, made of the registry,
`workflow/lossmap/vlm/families.py`, by `python -m lossmap write_reference`. *Tap*: the module whose input is pre; of
several, inputs side by side. R x C: the grid of patches of a view; D and E: features of a patch and of a token; how
many patches a token stands for, and how many tokens have no place, is what transformers takes where a configuration is
silent. *Square view* and *own view*: what the vision tower is given of an image with `view: square` and with
`view: processor`. *Text*: captions, answers and choices.
"""


def json_schema() -> str:
    """The definition as JSON Schema (draft 2020-12)."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Study.model_json_schema()}
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def settings_page() -> str:
    """The definition as a page in Markdown: a table of keys for each section."""
    schema = Study.model_json_schema()
    sections, names = {"Study": schema}, ["Study"]
    for name in names:  # which grows: each section is followed by those that it holds
        inside = re.findall(r"#/\$defs/(\w+)", json.dumps(sections[name]["properties"]))
        new = [one for one in dict.fromkeys(inside) if one not in sections]
        sections |= {one: schema["$defs"][one] for one in new}
        after = names.index(name) + 1
        names[after:after] = new
    return "\n".join([PREAMBLE, *(_section(name, sections[name]) for name in names)])


def columns_page() -> str:
    """What each column of the tables means, and which tables have it, as a page in Markdown."""
    modules = {kind: load(kind) for kind in kinds()}  # which may define columns of their own
    entries = sorted(COLUMNS.items(), key=lambda entry: entry[0].lower())
    columns = (
        f"| `{name}` | {about.title} | {about.unit} | {about.higher} | {about.help} |" for name, about in entries
    )
    suffixes = (f"| `{suffix}` | {meaning} |" for suffix, meaning in SUFFIXES.items())
    tables = (
        f"| `{kind}` | {module.TITLE} | {module.PAPER or ''} | {', '.join(f'`{name}`' for name in module.COLUMNS)} |"
        for kind, module in modules.items()
    )
    return "\n".join(
        [
            *(
                COLUMNS_PREAMBLE,
                "| column | heading | unit | higher | meaning |",
                "|---|---|---|---|---|",
                *columns,
                "",
            ),
            *("## What may follow a name", "", "| suffix | what it is of the column |", "|---|---|", *suffixes, ""),
            *("## Which table has which", "", "Suffixes are left out.", ""),
            *("| table | what it shows | in the paper | columns |", "|---|---|---|---|", *tables, ""),
        ]
    )


def families_page() -> str:
    """The registry of families as a page in Markdown."""
    return f"{FAMILIES_PREAMBLE}\n{family_table()}"


def _section(name: str, content: dict) -> str:
    lines = [
        f"## {name}",
        "",
        content["description"],
        "",
        "| key | type | default | meaning |",
        "|---|---|---|---|",
    ]
    required = content.get("required", [])
    for key, about in content["properties"].items():
        default = "*required*" if key in required else _default(about)
        lines.append(f"| `{key}` | {_kind(about)} | {default} | {about.get('description', '')} |")
    return "\n".join([*lines, ""])


def _default(about: dict) -> str:
    if "default" not in about or (about["default"] is None and "$ref" in json.dumps(about)):
        return ""
    return "" if about["default"] is None else f"`{json.dumps(about['default'], ensure_ascii=False)}`"


def _kind(about: dict) -> str:
    """The type of a value in words, with its range."""
    if "$ref" in about:
        name = about["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in about or "oneOf" in about:
        return " or ".join(_kind(one) for one in about.get("anyOf") or about["oneOf"])
    if "enum" in about or "const" in about:
        return " or ".join(f"`{value}`" for value in about.get("enum", [about.get("const")]))
    match about["type"]:
        case "array":
            return f"list of {_kind(about['items'])}"
        case "object":
            [inside] = about["patternProperties"].values()
            return f"name: {_kind(inside)}"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case "null":
            return "null"
    words = {"integer": "whole number", "number": "number"}[about["type"]]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {about[bound]}" for bound, sign in bounds.items() if bound in about]
    return ", ".join([words, *limits])

"""What MkDocs does for these pages beyond reading Markdown: the notebook as a page, and docstrings in paragraphs."""

import json
import re

import griffe
from mkdocs.structure.files import File

NOTEBOOK, PAGE = "tour.ipynb", "tour.md"
SECTIONS = r"\n[ ]*(Parameters|Returns|Raises and source|Raises|Attributes|Source)( and source)?: "


def on_files(files, config):
    """Show the notebook, with what its cells print and draw, as a page of its own."""
    notebook = files.get_file_from_path(NOTEBOOK)
    with open(notebook.abs_src_path, encoding="utf-8") as file:
        cells = json.load(file)["cells"]
    text = "\n\n".join(part for cell in cells for part in _parts(cell))
    files.append(File.generated(config, PAGE, content=f"{text}\n\n[This page as a notebook]({NOTEBOOK})\n"))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links to the notebook lead to its page, but for the page's own."""
    return markdown if page.file.src_uri == PAGE else markdown.replace(f"({NOTEBOOK})", f"({PAGE})")


def _parts(cell):
    """A cell as Markdown: text, or code and its outputs."""
    source = "".join(cell["source"])
    if cell["cell_type"] != "code":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            yield f"![Figure drawn by the lines above](data:image/png;base64,{''.join(data['image/png']).strip()})"
        elif text := "".join(output.get("text", data.get("text/plain", ""))):
            yield f"```text\n{text.rstrip()}\n```"


class Docstrings(griffe.Extension):
    """Each part of a docstring (Parameters, Returns, ...) is a paragraph; its signs mean nothing to Markdown."""

    def on_instance(self, *, obj, **kwargs):
        if obj.docstring:
            parts = obj.docstring.value.split("`")  # every second one is code
            parts[::2] = [re.sub(r"[*_\[]", r"\\\g<0>", part.replace("<", "&lt;")) for part in parts[::2]]
            obj.docstring.value = re.sub(SECTIONS, r"\n\n**\1\2:** ", "`".join(parts))

"""Which code a cheap step runs, as one hash: what Snakemake needs to rerun exactly the steps that an edit touches.

Costly steps are rerun by the version of what they make instead (see `lossmap.study.products`).
"""

import ast
import hashlib
import json
import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
KEPT = Path(".snakemake/lossmap-code.json")  # where Snakemake runs: what files were found to hold, see `keep`
# What these compute is known otherwise: from the embeddings that a step reads, whose key holds the family and its
# version; and from the settings that it is given, which its rule holds.
GUARDED = ("lossmap.vlm.families", "lossmap.vlm.recompute", "lossmap.study.specs")


def code_hash(step: str) -> str:
    """Hash of a step's module and of every module and data file of this package that it imports, directly or not, up to
    those that versions and golden values guard (`GUARDED`).

    Parameters: step, the name of a module in `lossmap.study.steps`.
    Returns: 16 hex digits. It depends on the content of files alone, not on times or places, and only on what is
    computed: not on comments, blank lines, docstrings or annotations of types, so that a better explanation reruns
    nothing.
    """
    return _hash_of(f"lossmap.study.steps.{step}")


def exhibit_hash(kind: str) -> str:
    """The same of an exhibit's module, and of the step that makes all of them."""
    return _hash_of("lossmap.study.steps.make_exhibit", f"lossmap.study.exhibits.{kind}")


def _hash_of(*modules: str) -> str:
    seen: dict[str, bytes] = {}
    for module in modules:
        _collect(module, seen)
    lines = b"\n".join(name.encode() + b" " + digest for name, digest in sorted(seen.items()))
    return hashlib.sha256(lines).hexdigest()[:16]


def keep() -> None:
    """Write to `KEPT` what each file of code was found to hold, by its content: parsing all of them takes a second, of
    each start of Snakemake and of each job on another node."""
    known = _kept()
    if _found.keys() <= known.keys():
        return
    part = KEPT.with_name(f".{KEPT.name}.{os.getpid()}")
    with suppress(OSError):  # a full disk, or one that is read-only: then the next start parses them again
        part.write_text(json.dumps({"by": _by(), "files": known | _found}))
        part.replace(KEPT)


@cache
def _kept() -> dict[str, list]:
    """What an earlier start kept, if the same code found it with the same Python."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(KEPT.read_text())
        if kept["by"] == _by():
            return kept["files"]
    return {}


@cache
def _by() -> str:
    return f"{hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {sys.version}"


def _collect(module: str, seen: dict[str, bytes]) -> None:
    if module in seen or module in GUARDED or (path := _path(module)) is None:
        return
    seen[module], imports = _read(path)
    for name in imports:
        _collect(name, seen)


@cache
def _read(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Hash of a module, and the modules of this package that it imports (at any depth of its functions)."""
    source = path.read_bytes()
    content = hashlib.sha256(source).hexdigest()
    if content not in _found:
        _found[content] = _kept().get(content) or _parsed(path, source)
    code, names = _found[content]
    digest = hashlib.sha256(code.encode())
    # A package's tables, and the files beside a module that share its name: what it reads.
    for data in sorted(path.parent.glob("*.csv" if path.name == "__init__.py" else f"{path.stem}.*")):
        if data.suffix != ".py":
            digest.update(data.read_bytes())
    return digest.hexdigest().encode(), tuple(name for name in names if _path(name))


_found: dict[str, list] = {}  # SHA-256 of a file -> hash of its code, and what it imports of this package


def _parsed(path: Path, source: bytes) -> list:
    """Hash of a module's code, and the names that it imports of this package."""
    tree = _Computed().visit(ast.parse(source))
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; write `from lossmap...` instead.")
            module = str(node.module)
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()
    return [code, [name for name in names if name.split(".")[0] == "lossmap"]]


class _Computed(ast.NodeTransformer):
    """A module's code without what explains it: docstrings, the types of arguments, results and variables, and what is
    imported for types alone. Fields of a dataclass stay, with their names, order and defaults; and the types of `run`,
    which the command line reads."""

    def visit_If(self, node):
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else self.generic_visit(node)

    def visit_Expr(self, node):
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_FunctionDef(self, node):
        node.returns = None
        if node.name != "run":
            arguments = node.args
            for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
                argument.annotation = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node):
        node.annotation = ast.Constant(None)
        return self.generic_visit(node)


def _path(module: str) -> Path | None:
    """File of a module of this package; None for a name inside one."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

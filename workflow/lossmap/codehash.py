"""Which code a step runs, as one hash: what Snakemake needs to rerun exactly the steps that an edit touches."""

import ast
import hashlib
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


def code_hash(step: str) -> str:
    """Hash of a step's module and of every module and data file of this package that it imports, directly or not.

    Parameters: step, the name of a module in `lossmap.steps`.
    Returns: 16 hex digits. It depends on the content of files alone, not on times or places, and not on comments or
    blank lines, so that a better comment reruns nothing.
    """
    seen: dict[str, bytes] = {}
    _collect(f"lossmap.steps.{step}", seen)
    lines = b"\n".join(name.encode() + b" " + digest for name, digest in sorted(seen.items()))
    return hashlib.sha256(lines).hexdigest()[:16]


def _collect(module: str, seen: dict[str, bytes]) -> None:
    path = _path(module)
    if module in seen or path is None:
        return
    seen[module], imports = _read(path)
    for name in imports:
        _collect(name, seen)


@cache
def _read(path: Path) -> tuple[bytes, tuple[str, ...]]:
    """Hash of a module's code, and the modules of this package that it imports (at any depth of its functions)."""
    tree = ast.parse(path.read_text())
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{path}:{node.lineno}: relative import; write `from lossmap...` instead.")
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    digest = hashlib.sha256(ast.dump(tree).encode())
    # A package's tables, and the files beside a module that share its name: what it reads.
    for data in sorted(path.parent.glob("*.csv" if path.name == "__init__.py" else f"{path.stem}.*")):
        if data.suffix != ".py":
            digest.update(data.read_bytes())
    return digest.hexdigest().encode(), tuple(name for name in names if name.split(".")[0] == "lossmap")


def _path(module: str) -> Path | None:
    """File of a module of this package; None for a name inside one."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)

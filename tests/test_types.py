"""Every public name has types, and a type checker agrees with them."""

import inspect
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import pytest

import lossmap
from lossmap.measures.procrustes import Procrustes
from lossmap.measures.result import Measured
from lossmap.reconstruct.ladder import Ladder
from lossmap.reconstruct.trained import Trained
from lossmap.reconstruct.verdict import Verdict
from lossmap.vlm.loading import VisionSide

ROOT = Path(__file__).parents[1]
RESULTS = (Ladder, Measured, Procrustes, Trained, Verdict, VisionSide)
METHODS = [
    method
    for result in RESULTS
    for name, method in vars(result).items()
    if inspect.isfunction(method) and (not name.startswith("_") or (name == "__init__" and not is_dataclass(result)))
]


def untyped(function) -> list[str]:
    signature = inspect.signature(function)
    types = {one.name: one.annotation for one in signature.parameters.values() if one.name != "self"}
    if function.__name__ != "__init__":
        types["return"] = signature.return_annotation
    return [name for name, given in types.items() if given is inspect.Signature.empty]


@pytest.mark.parametrize("name", [name for name in lossmap.__all__ if name != "LossmapError"])
def test_a_public_function_is_annotated_throughout(name):
    assert untyped(getattr(lossmap, name)) == []


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__qualname__)
def test_what_a_public_function_gives_is_annotated_throughout(method):
    assert untyped(method) == []


def test_a_users_module_uses_every_public_name():
    text = (ROOT / "tests/typed_use.py").read_text()
    assert [name for name in lossmap.__all__ if f"lossmap.{name}" not in text] == []


def mypy(*arguments) -> str:
    done = subprocess.run([sys.executable, "-m", "mypy", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.slow
def test_the_package_passes():
    assert mypy().startswith("Success"), mypy()


@pytest.mark.slow
def test_a_users_module_passes_strictly_and_a_wrong_use_does_not(tmp_path):
    """pyproject.toml spells out for this module what --strict is."""
    strictly = ("--strict", "--follow-imports=silent", "--cache-dir", str(tmp_path))
    found = mypy(*strictly, "tests/typed_use.py")
    assert found.startswith("Success"), found
    (tmp_path / "wrong.py").write_text(
        "import lossmap\n\nlossmap.cka([[1.0]], resamples='many').valu\nlossmap.embedd\n"
    )
    found = mypy(*strictly, str(tmp_path / "wrong.py"))
    assert '"resamples" to "cka" has incompatible type "str"' in found
    assert '"Measured" has no attribute "valu"' in found
    assert 'Module has no attribute "embedd"' in found

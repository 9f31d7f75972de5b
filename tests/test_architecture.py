"""The rules that keep the code base easy to explain."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from lossmap.__main__ import COMMANDS, main, step_names
from lossmap.data.sources import FORMATS
from lossmap.study import codehash
from lossmap.study.codehash import code_hash, exhibit_hash
from lossmap.study.exhibit import kinds
from lossmap.vlm.families import FAMILIES

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "workflow/lossmap"
STANDARD = set(sys.stdlib_module_names)
LIBRARY = ("data", "figures", "measures", "readers", "reconstruct", "store", "vlm")
LAYERS = {  # imports go down only: nothing of the library knows a study or the miniature world
    # Of the store, figures take where patches lie (`Layout`) and which of them are seen.
    "figures": {
        *("numpy", "pandas", "matplotlib", "seaborn", "PIL"),
        *("lossmap.figures", "lossmap.data", "lossmap.store"),
    },
    "measures": {"numpy", "scipy", "torch", "lossmap.measures"},
    "vlm": {
        *("numpy", "torch", "transformers", "tokenizers", "huggingface_hub", "safetensors", "PIL", "tqdm", "xarray"),
        "peft",
        *("lossmap.vlm", "lossmap.data", "lossmap.store"),
    },
    "reconstruct": {
        *("numpy", "pandas", "torch", "safetensors", "accelerate", "tqdm"),
        *("lossmap.reconstruct", "lossmap.measures", "lossmap.store"),
    },
    # Readers learn in the loop of the reconstructors.
    "readers": {
        *("numpy", "pandas", "torch", "accelerate"),
        *("lossmap.readers", "lossmap.reconstruct", "lossmap.measures", "lossmap.store"),
    },
    "store": {"numpy", "xarray", "zarr", "xxhash", "tqdm", "lossmap.store"},
    "data": {"numpy", "pandas", "pyarrow", "PIL", "simplejpeg", "sklearn", "tqdm", "lossmap.data"},
    "miniature": {
        *("numpy", "torch", "transformers", "tokenizers", "safetensors", "PIL", "tqdm", "sklearn"),
        *("lossmap.miniature", *(f"lossmap.{part}" for part in LIBRARY)),
    },
    "study/exhibits": {
        *("numpy", "pandas", "matplotlib", "seaborn", "lossmap.study", "lossmap.figures", "lossmap.measures"),
        *("lossmap.data", "lossmap.store", "lossmap.readers", "lossmap.reconstruct", "lossmap.vlm"),
    },
    "study/paper": {"pandas"},
    "study/codehash.py": set(),
    "study/columns.py": set(),
    "study/console.py": set(),
    "study/products.py": {"lossmap.vlm"},
    "study/provenance.py": {"lossmap.study"},
    "study/sources.py": {"lossmap.data", "lossmap.miniature"},
    "study/cost/dry_run.py": {"torch"},
}
# Conda's names of packages that PyPI calls otherwise.
CONDA_NAMES = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "seaborn-base": "seaborn",
    "python-xxhash": "xxhash",
}


def imports(path):
    """What a module imports; of what it imports for types alone, only modules of this package."""
    tree = ast.parse(path.read_text())
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    typing_only = {node for guard in guards for node in guard.body}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if node not in typing_only or name.startswith("lossmap"))


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down_only(layer):
    allowed = LAYERS[layer] | {"lossmap.errors"}
    files = [PACKAGE / layer] if layer.endswith(".py") else sorted((PACKAGE / layer).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            top = ".".join(name.split(".")[:2]) if name.startswith("lossmap") else name.split(".")[0]
            assert top in allowed or top in STANDARD, f"{path}: {layer} must not import {name}"


def test_the_snakefile_needs_nothing_heavy():
    """What is imported while the DAG is built must not load torch, transformers, pandas or zarr."""
    code = (
        "import sys, lossmap.study.settings, lossmap.study.checks, lossmap.study.codehash, lossmap.study.console, "
        "lossmap.study.products, lossmap.study.specs; "
        "print([m for m in ('torch', 'transformers', 'pandas', 'zarr', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


COSTLY = {  # step -> product: what is made anew for its version's sake, not for its code's
    "extract": "embeddings",
    "index_embeddings": "embeddings",
    "measure_statistics": "statistics",
    "fit_linear": "linear",
    "train_reconstructor": "networks",
    "measure_patch_loss": "patch_losses",
    "measure_ladder": "ladder",
    "caption_images": "captions",
    "answer_questions": "answers",
    "choose_options": "choices",
    "probe_patches": "probe",
    "train_readers": "readers",
    "read_answers": "readings",
}
OF_A_FAMILY = ("extract", "caption_images", "answer_questions", "choose_options", "probe_patches")


def rules():
    """Name and text of every rule."""
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.split(r"(?m)^ *(?=rule |checkpoint )", path.read_text())[1:]:
            yield re.match(r"\w+ (\w+):", block).group(1), block


def test_one_step_is_one_rule_one_module_one_command():
    for name, text in rules():
        if "python -m " in text:
            assert re.search(rf"python -m (\{{params.launcher\}})?lossmap {name} ", text)
            if name in COSTLY:
                assert f'product_version("{COSTLY[name]}")' in text, (
                    f"{name} would not rerun when its version is raised"
                )
                assert (f'family_of("{COSTLY[name]}")' in text) == (name in OF_A_FAMILY)
                assert "code_hash" not in text, f"{name} would rerun whenever its code is edited"
            else:
                assert f'code_hash("{name}")' in text, f"{name} would not rerun when its code changes"
                assert "product_version" not in text
            assert name in step_names()
    in_rules = {name for name, _ in rules()}
    assert set(step_names()) - in_rules == {*COMMANDS, "make_exhibit"}  # run by hand, and by a rule for each exhibit


def test_every_exhibit_is_made_by_one_rule_of_its_name():
    [text] = [path.read_text() for path in (ROOT / "rules").glob("*.smk") if "make_exhibit" in path.read_text()]
    assert text.count("rule:") == 1
    for part in (
        "exhibit.name",
        "**outputs_of(exhibit)",
        "exhibit_hash(exhibit.kind)",
        "python -m lossmap make_exhibit ",
    ):
        assert part in text


def test_every_path_in_a_command_is_quoted():
    for name, text in rules():
        command = text.partition("shell:")[2]
        assert not re.search(r"\{(input|output|log)[^{}:]*\}", command), f"{name}: write {{...:q}} for a path"


@pytest.mark.parametrize("step", step_names())
def test_every_step_explains_itself(step, capsys):
    with pytest.raises(SystemExit) as caught:
        main([step, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: lossmap {step} [-h]")
    assert len(text.splitlines()) > 4


@pytest.mark.parametrize(("page", "names"), [("family-table", FAMILIES), ("formats", FORMATS)])
def test_the_documentation_names_every_family_and_format(page, names):
    text = (ROOT / f"docs/{page}.md").read_text()
    assert not [name for name in names if f"`{name}`" not in text]


def locked() -> dict[str, str]:
    """Package -> version, of requirements.lock."""
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.strip().split("==") for line in lines if "==" in line)
    return {canonicalize_name(name): version for name, version in pins.items()}


def required() -> list[Requirement]:
    """What pyproject.toml asks for, but for Java's comparison, which is not in the lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [Requirement(entry) for entry in [*project["dependencies"], *extras["slurm"], *extras["dev"]]]


def test_environments_hold_the_versions_of_the_lock():
    lock = locked()
    for path in sorted((ROOT / "envs").glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text())["dependencies"]:
            name, version = entry.split("=")
            if name != "python":
                assert lock[canonicalize_name(CONDA_NAMES.get(name, name))] == version, f"{path.name}: {entry}"


def test_the_lock_holds_versions_that_are_asked_for():
    """pyproject.toml has ranges, for environments that hold other packages, too; the lock what `make` installs."""
    lock = locked()
    for one in required():
        assert one.specifier.contains(lock[canonicalize_name(one.name)]), f"pyproject.toml: {one}"


def test_dependencies_are_ranges_that_end_before_what_nobody_has_tried():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for one in map(Requirement, project["dependencies"]):
        assert {part.operator for part in one.specifier} <= {">=", "<"}, f"{one}: an exact pin belongs in the lock"
        assert ">=" in {part.operator for part in one.specifier}, f"{one}: which version has what is used of it?"


def test_every_package_that_is_imported_is_a_dependency():
    names = {"PIL": "pillow", "sklearn": "scikit-learn", "yaml": "PyYAML"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = {canonicalize_name(Requirement(entry).name) for entry in project["dependencies"]}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in {name.split(".")[0] for name in imports(path)} - STANDARD - {"lossmap"}:
            assert canonicalize_name(names.get(name, name)) in listed, f"{path}: {name}"


def test_environments_hold_what_their_rules_import():
    """Each rule's step, followed through the package: every package outside it is in the rule's environment file."""
    names = {"PIL": "pillow", "sklearn": "scikit-learn", **{pypi: conda for conda, pypi in CONDA_NAMES.items()}}
    for rule, text in rules():
        if f"lossmap {rule} " not in text:
            continue
        env = yaml.safe_load((ROOT / "rules" / re.search(r'"(\.\./envs/.*)"', text).group(1)).read_text())
        listed = {entry.split("=")[0] for entry in env["dependencies"]}
        for package in outside_packages(f"lossmap.study.steps.{rule}"):
            assert names.get(package, package) in listed, f"{rule}: its environment lacks {package}"
    [env] = re.findall(r'"(\.\./envs/.*)"', (ROOT / "rules/exhibits.smk").read_text())
    listed = {entry.split("=")[0] for entry in yaml.safe_load((ROOT / "rules" / env).read_text())["dependencies"]}
    modules = [f"lossmap.study.exhibits.{kind}" for kind in kinds()]
    for module in ["lossmap.study.steps.make_exhibit", "lossmap.study.captions", *modules]:
        for package in outside_packages(module, inside_functions=True):
            assert names.get(package, package) in listed, f"{module}: its environment lacks {package}"


@cache
def tree_of(path):
    """Many steps import it: it is parsed once."""
    return ast.parse(path.read_text())


def outside_packages(module, seen=None, inside_functions=False):
    """inside_functions: of the module itself, also what its functions import, as those of exhibits do."""
    seen = set() if seen is None else seen
    base = PACKAGE.joinpath(*module.split(".")[1:])
    path = next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)
    if path is None or module in seen:
        return set()
    seen.add(module)
    found = set()
    tree = tree_of(path)
    # Imports inside functions are for callers that need more, such as a GPU search.
    for node in ast.walk(tree) if inside_functions else tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top == "lossmap":
                found |= outside_packages(name, seen)
            elif top not in STANDARD:
                found.add(top)
    return found


def copy_of_package(tmp_path, monkeypatch):
    shutil.copytree(PACKAGE, tmp_path / "lossmap", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(codehash, "PACKAGE", tmp_path / "lossmap")
    codehash._read.cache_clear()
    return tmp_path / "lossmap"


def test_a_code_hash_follows_the_code_that_a_step_runs_and_no_other(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    steps = [step for step in step_names() if step != "train_zoo"]
    before = {step: code_hash(step) for step in steps}
    exhibits = {kind: exhibit_hash(kind) for kind in kinds()}
    path = package / "measures/overlap.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    codehash._read.cache_clear()
    changed = {step for step in steps if code_hash(step) != before[step]}
    assert changed == {
        *("measure_overlap", "measure_retrieval"),
        *("measure_geometry", "compare_indexes", "compare_models", "simulate_coverage"),
    }
    assert {kind for kind in kinds() if exhibit_hash(kind) != exhibits[kind]} == {"figure2", "galleries"}


def test_a_new_family_changes_no_code_hash(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    steps = [name for name, text in rules() if "code_hash" in text]
    assert len(steps) > 15
    before = [*map(code_hash, steps), *map(exhibit_hash, kinds())]
    path = package / "vlm/families.py"
    path.write_text(path.read_text() + "\nFAMILIES['another'] = FAMILIES['llava']\n")
    codehash._read.cache_clear()
    assert [*map(code_hash, steps), *map(exhibit_hash, kinds())] == before


def test_what_exhibits_show_depends_on_their_own_file_and_no_others(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    before = {kind: exhibit_hash(kind) for kind in kinds()}
    for changed, file in (({"figure3"}, "study/exhibits/figure3.py"), (set(before), "study/tables.py")):
        path = package / file
        path.write_text(path.read_text() + "\nADDED = 1\n")
        codehash._read.cache_clear()
        assert {kind for kind in before if exhibit_hash(kind) != before[kind]} == changed
    path = package / "study/specs.py"  # what they receive stands in the parameters of their rules
    after = {kind: exhibit_hash(kind) for kind in kinds()}
    path.write_text(path.read_text() + "\nADDED = 1\n")
    codehash._read.cache_clear()
    assert {kind: exhibit_hash(kind) for kind in kinds()} == after


def test_who_reads_a_store_does_not_depend_on_how_it_is_written(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    steps = [name for name, text in rules() if "code_hash" in text]
    before = {step: code_hash(step) for step in steps}
    path = package / "store/writer.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    codehash._read.cache_clear()
    assert {step: code_hash(step) for step in steps} == before


MODULE = """'''What it does.'''
class Pair(NamedTuple):
    '''Two numbers.'''
    first: int
    second: int = 1

def total(a, b=2):
    '''Their sum.'''
    found: int = a + b
    return found

def run(*, table: Path):
    pass
"""


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("'''What it does.'''", "'''What it does, and why.'''", True),
        ("'''Two numbers.'''", "", True),
        ("'''Their sum.'''", "# their sum", True),
        ("def total(a, b=2):", "def total(a: int, b: int = 2) -> int:\n\n", True),
        ("found: int = a + b", "found: float = a + b", True),
        ("first: int\n", "first: float\n", True),
        ("class Pair", "if TYPE_CHECKING:\n    import xarray\n\nclass Pair", True),
        ("second: int = 1", "second: int = 2", False),
        ("table: Path", "table: int", False),  # the command line would read another thing
        ("    first: int\n", "", False),
        ("b=2", "b=3", False),
        ("a + b", "a - b", False),
        ("return found", "return 'found'", False),
    ],
)
def test_a_code_hash_follows_what_is_computed_and_not_how_it_is_explained(tmp_path, monkeypatch, old, new, same):
    package = copy_of_package(tmp_path, monkeypatch)
    path = package / "measures/overlap.py"
    code = path.read_text()
    path.write_text(code + MODULE)
    codehash._read.cache_clear()
    before = code_hash("measure_overlap")
    assert old in MODULE
    path.write_text("# a remark\n" + code + MODULE.replace(old, new))
    codehash._read.cache_clear()
    assert (code_hash("measure_overlap") == before) == same


def test_a_page_that_a_module_fills_in_counts_as_code(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    before = {"make_browser": code_hash("make_browser"), "figure3": exhibit_hash("figure3")}
    for ending in ("html", "css", "js"):
        path = package / f"figures/browser.{ending}"
        path.write_text(path.read_text() + "\n")
        codehash._read.cache_clear()
        assert code_hash("make_browser") != before["make_browser"]
        before["make_browser"] = code_hash("make_browser")
    assert exhibit_hash("figure3") == before["figure3"]


def test_a_reported_number_counts_as_code(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    before = exhibit_hash("figure3")
    path = package / "study/paper/figure3.csv"
    path.write_text(path.read_text().replace("0.534", "0.535"))
    codehash._read.cache_clear()
    assert exhibit_hash("figure3") != before


def test_code_hashes_are_the_same_with_what_an_earlier_start_kept_and_without(tmp_path, monkeypatch):
    package = copy_of_package(tmp_path, monkeypatch)
    monkeypatch.chdir(tmp_path)

    def hashes():
        """As another process finds them."""
        monkeypatch.setattr(codehash, "_found", {})
        codehash._read.cache_clear()
        codehash._kept.cache_clear()
        return [*map(exhibit_hash, kinds())]

    parsed, parse = [], codehash._parsed
    monkeypatch.setattr(codehash, "_parsed", lambda path, source: parsed.append(path) or parse(path, source))
    codehash.keep()  # where Snakemake has no folder yet, nothing is kept
    before = hashes()
    codehash.KEPT.parent.mkdir()
    codehash.keep()
    assert (parsed != [], list(codehash.KEPT.parent.iterdir())) == (True, [codehash.KEPT])
    parsed.clear()
    assert (hashes(), parsed) == (before, [])
    path = package / "figures/style.py"
    path.write_text(path.read_text() + "\nADDED = 1\n")
    after = hashes()
    assert parsed == [path]
    assert after != before
    codehash.keep()
    whole = json.loads(codehash.KEPT.read_text())
    for spoilt in ("{", "[]", json.dumps({**whole, "by": "another Python"})):
        codehash.KEPT.write_text(spoilt)
        parsed.clear()
        assert hashes() == after
        assert len(parsed) > 10
    codehash._kept.cache_clear()

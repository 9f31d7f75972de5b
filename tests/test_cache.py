"""Snakemake's cache between workflows: studies share extraction and training, and nothing that differs is shared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from small_study import MODELS, ROOT, clone, small_study, snakemake

from lossmap.study.definition import Extraction, Training

TRAINED = f"reconstructors/{MODELS[0]}/own/mlp-100.safetensors"


def changed(value):
    """Another legal value; of what is found or fitted where it is left out (null), a number."""
    if value is None:
        return 1
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 1
    if isinstance(value, float):
        return value / 2
    return {"float16": "float32", "float32": "bfloat16"}[value]


def settings_that_matter() -> dict[str, tuple[str, dict]]:
    """Name -> (what must change with it, the study). Every key of `extraction` and `training` is among them."""
    base = with_defaults()
    cases = {}

    def case(name, kind, edit):
        config = json.loads(json.dumps(base))
        edit(config)
        cases[name] = kind, config

    for key, value in base["extraction"].items():
        new = {key: changed(value)}
        case(f"extraction {key}", "extract", lambda c, new=new: c["extraction"].update(new))
    for key, value in base["reconstruction"]["training"].items():
        new = {key: changed(value)}
        case(f"training {key}", "train", lambda c, new=new: c["reconstruction"]["training"].update(new))
    case("checkpoint", "extract", lambda c: c["models"][MODELS[0]].update(checkpoint="workflow/zoo/idefics2"))
    case("image size", "extract", lambda c: c["models"][MODELS[1]].update(image_size=96))
    case("network", "train", lambda c: c["reconstruction"]["networks"]["mlp"].update(widths=[17]))
    case("dropout", "train", lambda c: c["reconstruction"]["networks"]["mlp"].update(dropout=0.5))
    case("share", "train", lambda c: c["reconstruction"].update(shares=[60, 99]))
    case("held out", "train", lambda c: c["reconstruction"].update(held_out=0.25))
    case("seed", "train", lambda c: c["reconstruction"].update(seed=1))
    case("control", "train", lambda c: c["reconstruction"]["controls"].update(pca={"kind": "pca", "rank": 3}))
    return cases


def with_defaults() -> dict:
    """The small study with every key of the two sections."""
    config = small_study()
    config["extraction"] = Extraction().model_dump() | config["extraction"]
    config["reconstruction"]["training"] = Training().model_dump() | config["reconstruction"]["training"]
    return config


def keys_of(folder: Path, studies: dict[str, dict]) -> dict[str, dict[str, str]]:
    """Study -> output -> key under which the cache would keep it."""
    paths = {}
    for number, (name, config) in enumerate(studies.items()):
        paths[f"case-{number}.yaml"] = name
        (folder / f"case-{number}.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, str(ROOT / "tests/cache_keys.py"), *paths]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path in paths:
        (folder / path).unlink()
    return {paths[path]: keys for path, keys in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.fixture(scope="module")
def base_keys(study):
    return keys_of(study, {"base": with_defaults()})["base"]


def test_no_two_results_share_a_key(base_keys):
    assert sum("/embeddings/" in output for output in base_keys) > 10
    assert sum("/reconstructors/" in output for output in base_keys) > 8
    assert len(set(base_keys.values())) == len(base_keys)


def test_every_setting_that_changes_a_result_changes_its_key(study, base_keys):
    cases = settings_that_matter()
    found = keys_of(study, {name: config for name, (_, config) in cases.items()})
    for name, (kind, _) in cases.items():
        before, after = base_keys, found[name]
        if name == "checkpoint":  # this model alone
            before, after = ({o: k for o, k in keys.items() if MODELS[0] in o} for keys in (before, after))
        if name == "image size":
            before, after = ({o: k for o, k in keys.items() if MODELS[1] in o} for keys in (before, after))
        if name in ("network", "dropout"):
            before, after = ({o: k for o, k in keys.items() if "/mlp-" in o} for keys in (before, after))
        assert len(after) > 3, name
        networks = {key for output, key in after.items() if "/reconstructors/" in output}
        parts = {key for output, key in after.items() if "/embeddings/" in output}
        # What is extracted anew also trains anew; what is only trained anew is not extracted again.
        assert not networks & set(before.values()), name
        if kind == "extract" and name != "extraction part_size":
            assert parts
            assert not parts & set(before.values()), name
        elif kind == "train":
            assert parts <= set(before.values()), name


def test_another_image_changes_the_key_of_its_part(study, base_keys):
    """Even one that was overwritten in place, as soon as the manifest has been made anew."""
    digests = study / "results/small/data/seedbench/images.sha256"
    content, state = digests.read_text(), digests.stat()
    digests.write_text("x" + content[1:])
    after = keys_of(study, {"base": with_defaults()})["base"]
    digests.write_text(content)
    os.utime(digests, ns=(state.st_atime_ns, state.st_mtime_ns))
    differ = {output for output in base_keys if base_keys[output] != after[output]}
    parts = {output for output in base_keys if "/embeddings/seedbench/" in output}
    assert differ == {output for output in parts if "part-000000" in output} < parts


def measuring_something_else(config: dict) -> dict:
    config["overlap"]["k"] = [2, 4]
    config["reconstruction"]["evaluate"] = ["coco-karpathy", "vizwiz"]
    config["reconstruction"]["tables"] = {"table3": ["coco-karpathy"]}
    config["choices"] = {"datasets": []}
    return config


def test_two_studies_share_extraction_and_training(study, tmp_path):
    """Whatever they are called, and whatever they measure of the embeddings."""
    cache = tmp_path / "cache"
    cache.mkdir()
    environment = {"SNAKEMAKE_OUTPUT_CACHE": str(cache)}
    kept = []
    for name in ("one", "two"):
        folder = clone(tmp_path / name)
        config = small_study() if name == "one" else measuring_something_else(small_study())
        config["study"] = name
        index = f"results/{name}/embeddings/seedbench/{MODELS[0]}.json"
        wanted = [f"results/{name}/{TRAINED}", index]
        done = snakemake(folder, *wanted, "--cache", config=config, environment=environment)
        assert done.returncode == 0, done.stdout + done.stderr
        first = study / f"results/small/{TRAINED}"
        assert (folder / f"results/{name}/{TRAINED}").read_bytes() == first.read_bytes()
        assert (folder / index).read_bytes() == (study / index.replace(f"/{name}/", "/small/")).read_bytes()
        kept.append({path.name: path.stat().st_mtime_ns for path in cache.iterdir()})
        log = folder / f"results/{name}/logs/train_reconstructor/{MODELS[0]}/own/mlp-100.log"
        assert bool(log.read_text()) == (name == "one"), "the second study trains nothing"
    assert kept[0] == kept[1]
    assert len(kept[0]) == 2 + 2 + 2  # two parts of coco-train, two of seedbench, weights and history

"""A small study in a checkout of its own, run with the real Snakefile."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
PARTS_OF_CHECKOUT = ["Snakefile", "rules", "workflow", "envs", "profiles", "config.yaml"]
MODELS = ["llava-mini", "qwen2.5-vl-mini"]
K = [3, 5]


def small_study() -> dict:
    """The default study, smaller: the same code on fewer images, in more than one part each."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["study"] = "small"
    config["miniature"]["images"] = dict.fromkeys(config["miniature"]["images"], 12) | {
        "coco-train": 40,
        "seedbench": 24,
        "cub": 40,
    }
    config["models"] = {name: config["models"][name] for name in MODELS}
    config["extraction"] |= {"part_size": 20, "batch_size": 5}
    config["overlap"] |= {"datasets": ["seedbench"], "k": K, "permutations": 50}
    config["retrieval"] |= {"overlap_k": 5}
    config["figure2"] |= {"k": 4}
    config["reconstruction"] |= {
        "evaluate": ["coco-karpathy", "vizwiz", "seedbench"],
        "shares": [50, 100],
        "networks": {
            "mlp": {"kind": "mlp", "widths": [16]},
            "transformer": {"kind": "transformer", "width": 8, "layers": 1, "heads": 2, "models": [MODELS[1]]},
        },
        "controls": {
            "rotation": {"kind": "rotation"},
            "invertible-mlp": {"kind": "invertible_mlp", "networks": ["mlp"]},
            "other-image": {"kind": "other_image"},
        },
        "training": {"epochs": 2, "batch": 8},
        "tables": {"table3": ["coco-karpathy"], "table6": ["vizwiz"], "table9": ["vizwiz", "seedbench"]},
    }
    config["captions"] |= {"datasets": ["coco-karpathy"]}
    config["answers"] |= {"datasets": ["vizwiz"]}
    config["choices"] |= {"datasets": ["seedbench"]}
    config["relations"] |= {"permutations": 99}
    config["figure7"] |= {"model": MODELS[1]}
    config["geometry"] |= {"k": K, "queries": 10}
    config["probe"] |= {"images": 3, "directions": 1}
    config["compare"] = [MODELS]
    config["galleries"] |= {"k": 4, "shown": 3}
    config["statistics"] |= {"resamples": 200}
    del config["readers"]  # they have a study of their own: see test_readers_study.py
    return config


def clone(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in PARTS_OF_CHECKOUT:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def snakemake(
    folder: Path, *arguments: str, config: dict | None = None, environment: dict | None = None
) -> subprocess.CompletedProcess:
    (folder / "small.yaml").write_text(yaml.safe_dump(config or small_study()))
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--configfile", "small.yaml"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | (environment or {})
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, check=False)


def planned(folder: Path, *arguments: str, config: dict | None = None) -> set[str]:
    """Rules that a dry run would run."""
    done = snakemake(folder, *arguments, "-n", "--quiet", "rules", config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^(?:local)?(?:rule|checkpoint) ([\w.-]+):", done.stdout + done.stderr, re.M)) | set(
        re.findall(r"^([\w.-]+) +\d+$", done.stdout + done.stderr, re.M)
    ) - {"total"}

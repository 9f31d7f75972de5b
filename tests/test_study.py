"""A configuration is right, or one error lists all that is wrong with it."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError

from lossmap.errors import LossmapError
from lossmap.reconstruct.specs import canonical
from lossmap.study.derived import examples_of, most_neighbours, networks_of
from lossmap.study.reading import lines_of, read_study
from lossmap.study.settings import check_study
from lossmap.study.steps import write_reference

ROOT = Path(__file__).parents[1]
DEFAULT = yaml.safe_load((ROOT / "config.yaml").read_text())
MINIMAL = {
    "study": "mine",
    "models": {"llava": {"checkpoint": "workflow/zoo/llava"}},
    "datasets": {"photos": {"format": "image_folder", "images": "results/miniature/cub/images"}},
}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
    monkeypatch.chdir(ROOT)


def changed(path, value, config=DEFAULT):
    config = copy.deepcopy(config)
    *parents, last = path
    target = config
    for key in parents:
        target = target[key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return config


def test_the_default_study_says_what_the_defaults_are():
    """Every key of the default file is known, and a key left out takes the value that the default file shows; but for
    k = 100, which 60 images don't have."""
    assert check_study(DEFAULT) == DEFAULT
    filled = check_study(MINIMAL)
    for section in ("miniature", "extraction", "statistics"):
        assert filled[section] == DEFAULT[section]
    for section in ("generation", "relations", "browser", "probe"):
        assert filled[section] == DEFAULT[section]
    small = {"overlap": {"k": [10, 50]}, "geometry": {"k": [10, 50]}, "retrieval": {"overlap_k": 50}}
    for section in ("overlap", "retrieval", "captions", "answers", "choices", "geometry", "galleries"):
        expected = DEFAULT[section] | small.get(section, {})
        assert {**filled[section], "datasets": DEFAULT[section]["datasets"]} == expected


def test_two_keys_are_enough_for_a_ladder_with_controls():
    two = {key: DEFAULT["reconstruction"][key] for key in ("train", "evaluate")}
    config = check_study(changed(["reconstruction"], two))
    filled = config["reconstruction"]
    assert filled["ladder"] == "coco-karpathy"
    for connector in ("own", "invertible-mlp"):
        assert networks_of(filled, "llava-mini", connector) == ["mlp-small", "mlp-large"]
    assert networks_of(filled, "llava-mini", "pca") == []
    assert [filled["training"][name] for name in ("batch", "learning_rate", "epochs")] == [None] * 3


@pytest.mark.parametrize("text", ["a: {b: 1}\nc:\n  x: 1\n  y: 2\n  x: 3\n", "a: {x: 1, x: 1}\n"])
def test_a_key_that_is_given_twice_is_refused(tmp_path, text):
    (tmp_path / "study.yaml").write_text(text)
    with pytest.raises(LossmapError, match=r"study.yaml: 'x' is given twice, in lines \d and \d. Remove one"):
        read_study(tmp_path / "study.yaml")


def test_equal_keys_of_other_mappings_and_of_an_anchor_are_read(tmp_path):
    (tmp_path / "study.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n")
    assert read_study(tmp_path / "study.yaml") == {"a": {"x": 1, "y": 2}, "b": {"x": 3, "y": 2}, "c": {"x": 1, "y": 2}}


def test_the_given_configuration_is_left_as_it_was():
    before = copy.deepcopy(MINIMAL)
    check_study(MINIMAL)
    assert before == MINIMAL


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["studdy"], "x", "unknown key 'studdy', did you mean 'study'"),
        (["study"], KeyError, "top level: 'study' is missing"),
        (["reconstruction", "train"], "coco", "reconstruction: train: 'coco' is not among datasets"),
        (["reconstruction", "train"], "vizwiz", "'vizwiz' is also measured; images that trained a reconstructor"),
        (["reconstruction", "shares"], [], "reconstruction: shares: is \\[\\], wanted at least 1"),
        (["reconstruction", "shares"], [25, 101], "reconstruction: shares: 1: is 101, wanted at most 100"),
        (["reconstruction", "networks", "ridge"], {"kind": "mlp", "widths": [8]}, "reconstruction: networks"),
        (["reconstruction", "networks", "wide"], {"kind": "mlp", "width": 8}, "reconstruction: networks: wide"),
        (["reconstruction", "networks", "mlp-small", "models"], ["lava"], "'lava' is not among models"),
        (
            ["reconstruction", "networks", "transformer", "heads"],
            5,
            "networks: transformer: width 32 isn't a multiple of heads, 5",
        ),
        (["reconstruction", "controls", "identity", "rank"], 3, "controls: identity: unknown key 'rank'"),
        (["reconstruction", "controls", "pca", "slope"], 0.5, "controls: pca: unknown key 'slope' .*rank"),
        (["answers", "score"], "f1", "answers: score: is 'f1', wanted vqa_accuracy or vqa_match"),
        (["reconstruction", "controls", "own"], {"kind": "identity"}, "reconstruction: controls"),
        (
            ["reconstruction", "controls", "pca", "networks"],
            ["mlp"],
            "controls: pca: networks: 'mlp' is not among networks",
        ),
        (["reconstruction", "tables", "table3"], ["vqav2"], "table3: 'vqav2' is not among reconstruction: evaluate"),
        (["captions", "datasets"], ["vizwiz"], "vizwiz has format vizwiz_grounding, which holds no captions"),
        (["answers", "datasets"], ["seedbench"], "seedbench has format seedbench, which holds no answers"),
        (["choices", "datasets"], ["vqa"], "choices: datasets: 'vqa' is not among datasets"),
        (
            ["reconstruction", "evaluate"],
            ["coco-karpathy", "vizwiz"],
            "captions: datasets: 'flickr30k' must be among",
        ),
        (["figure1", "model"], "llava", "figure1: model: 'llava' is not among models, did you mean 'llava-mini'?"),
        (
            ["figure7", "dataset"],
            "vqav2",
            "figure7: dataset: 'vqav2' must be among answers: datasets and reconstruction",
        ),
        (["browser", "examples"], 79, "79 are too few: at least 4 .* of which there are 20; wanted 80"),
        (["geometry", "quantiles"], [0.5, 1], "geometry: quantiles: 1"),
        (["study"], "a/b", "study: 'a/b' is no name of a file: a name here may hold A to Z"),
        (["models"], {}, "models: is {}, wanted at least 1"),
        (["extraction", "batchsize"], 3, "extraction: unknown key 'batchsize', did you mean 'batch_size'"),
        (["extraction", "batch_size"], 0, "extraction: batch_size: is 0, wanted at least 1"),
        (["extraction", "batch_size"], "many", "extraction: batch_size: is 'many', wanted a whole number"),
        (["extraction", "dtype"], "float8", "extraction: dtype: is 'float8', wanted float16 or float32"),
        (["overlap", "k"], [], "overlap: k: is \\[\\], wanted at least 1"),
        (["overlap", "k"], [10, 10], "overlap: k: is \\[10, 10\\], wanted entries that differ"),
        (["overlap", "k"], [0], "overlap: k: 0: is 0, wanted at least 1"),
        (["overlap", "k"], [3.0], "overlap: k: 0: is 3.0, wanted a whole number"),
        (["overlap", "k"], [True], "overlap: k: 0: is True, wanted a whole number"),
        (["statistics", "confidence"], float("nan"), "statistics: confidence: is nan, wanted a finite number"),
        (["study"], "miniature", "study: 'miniature' is taken"),
        (["overlap", "metrics"], ["l2"], "overlap: metrics: 'l2' is now 'euclidean'"),
        (["retrieval", "metrics"], ["cosine", "ip"], "retrieval: metrics: 'ip' is now 'cosine'"),
        (["overlap", "metrics"], ["cityblock"], "metrics: 0: is 'cityblock', wanted euclidean or cosine"),
        (["overlap", "metrics"], [["cosine"]], "metrics: 0: is \\['cosine'\\], wanted euclidean or cosine"),
        (["overlap", "metrics"], ["l3"], "overlap: metrics: 0: is 'l3', wanted euclidean or cosine"),
        (
            ["overlap", "datasets"],
            ["vizwitz"],
            "overlap: datasets: 'vizwitz' is not among datasets, did you mean 'vizwiz'",
        ),
        (["retrieval", "datasets"], ["birds"], "retrieval: datasets: 'birds' is not among datasets"),
        (["figure2", "model"], "llava", "figure2: model: 'llava' is not among models, did you mean 'llava-mini'"),
        (["figure2", "dataset"], "cub", "figure2: dataset: 'cub' is not among overlap: datasets"),
        (["datasets", "cub", "format"], "cubb", "datasets: cub: format: is 'cubb', wanted one of .*image_folder"),
        (["datasets", "cub", "annotations"], KeyError, "datasets: cub: annotations: is missing"),
        (["datasets", "cub", "masks"], "x", "datasets: cub: masks: means nothing to format cub"),
        (["datasets", "cub", "limit"], 0, "datasets: cub: limit: is 0, wanted at least 1"),
        (["datasets", "cub", "split"], "dev", "datasets: cub: split: is 'dev', wanted one of train, test"),
        (["datasets", "cub", "images"], "nowhere/images", "datasets: cub: nowhere/images does not exist"),
        (
            ["datasets", "cub", "images"],
            "results/mine",
            "datasets: cub: results/mine does not exist",
        ),
        (
            ["models", "llava-mini", "checkpoint"],
            "workflow/zoo/lava",
            "models: llava-mini: checkpoint folder .*lava does not",
        ),
        (["models", "llava-mini", "checkpoint"], "llava-hf/llava-1.5-7b-hf", "models: llava-mini: .* needs revision"),
        (["models", "llava-mini", "revision"], "main", "'main' is not a commit hash"),
        (["models", "llava-mini", "revision"], "a" * 40, "revision means nothing to a folder"),
    ],
)
def test_a_fault_is_named_with_its_place(path, value, message):
    with pytest.raises(LossmapError, match=message):
        check_study(changed(path, value))


def test_all_faults_stand_in_one_error():
    config = changed(["datasets", "cub", "images"], "nowhere/a")
    config = changed(["datasets", "flickr30k", "annotations"], "nowhere/b.json", config)
    with pytest.raises(LossmapError, match="2 faults") as caught:
        check_study(config)
    assert "nowhere/a" in str(caught.value)
    assert "nowhere/b.json" in str(caught.value)
    assert "config.yaml" in str(caught.value)


def test_a_checkpoint_of_unknown_family_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "blip-9"}')
    with pytest.raises(LossmapError, match="model_type is 'blip-9', which Lossmap doesn't know.*Known families: llava"):
        check_study(changed(["models", "llava-mini", "checkpoint"], str(tmp_path)))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(LossmapError, match=r"config\.json: can't be read"):
        check_study(changed(["models", "llava-mini", "checkpoint"], str(tmp_path)))


@pytest.mark.parametrize("lost", ["model.safetensors", "processor_config.json"])
def test_a_checkpoint_that_lacks_a_file_is_named(tmp_path, lost):
    shutil.copytree(ROOT / "workflow/zoo/llava", tmp_path / "llava")
    (tmp_path / "llava" / lost).unlink()
    with pytest.raises(LossmapError, match=f"models: llava-mini: .*llava: has no .*{lost}"):
        check_study(changed(["models", "llava-mini", "checkpoint"], str(tmp_path / "llava")))


FILE = """study: mine
models:
  llava: {checkpoint: workflow/zoo/llava}
datasets:
  photos: {format: image_folder, images: results/miniature/cub/images}
overlap:
  datasets: [photo]
  k:
    - 3
    - many
extraction: {batchsize: 3,
             dtype: float8}
"""


def test_a_fault_is_named_with_its_line(tmp_path, monkeypatch):
    (tmp_path / "mine.yaml").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LossmapError) as caught:
        check_study(read_study("mine.yaml"), places=lines_of("mine.yaml"))
    for line in (
        "mine.yaml:10: overlap: k: 1: is 'many', wanted a whole number",
        "mine.yaml:11: extraction: unknown key 'batchsize', did you mean 'batch_size'?",
        "mine.yaml:12: extraction: dtype: is 'float8', wanted float16 or float32",
    ):
        assert f"  - {line}\n" in str(caught.value)
    (tmp_path / "mine.yaml").write_text("\n".join(FILE.splitlines()[:7]))
    with pytest.raises(
        LossmapError, match="  - mine.yaml:7: overlap: datasets: 'photo' is not among datasets, did you"
    ):
        check_study(read_study("mine.yaml"), places=lines_of("mine.yaml"), paths=False)


def test_the_reference_says_what_the_definition_says(tmp_path):
    write_reference.run(folder=tmp_path)
    for name in ("study.schema.json", "settings.md", "columns.md", "family-table.md"):
        made = (tmp_path / name).read_text()
        assert made == (ROOT / "docs" / name).read_text(), "run: python -m lossmap write_reference"
    schema = json.loads((tmp_path / "study.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    papers = yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text())
    for study in (DEFAULT, MINIMAL, papers):
        Draft202012Validator(schema).validate(study)
    with pytest.raises(ValidationError, match="batchsize"):
        Draft202012Validator(schema).validate(changed(["extraction", "batchsize"], 3))


def test_keys_that_are_no_text_are_named():
    with pytest.raises(LossmapError, match="(?s)(?=.*unknown key 1)(?=.*unknown key 'foo')"):
        check_study(DEFAULT | {1: 2, "foo": 3})


def test_the_papers_study_is_valid_but_for_its_paths():
    config = yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text())
    with pytest.raises(LossmapError) as caught:
        check_study(config)
    faults = [line for line in str(caught.value).splitlines() if line.startswith("  - ")]
    assert len(faults) >= 16
    assert all("/path/to/" in fault and "does not exist" in fault for fault in faults)


def test_neighbours_are_searched_as_far_as_anything_needs_them():
    assert most_neighbours(DEFAULT, "vizwiz") == 100
    few = changed(["geometry", "k"], [4], changed(["overlap", "k"], [3]))
    assert most_neighbours(few, "seedbench") == 10  # galleries: k
    few["galleries"] |= {"k": 2}
    assert most_neighbours(few, "seedbench") == 6  # figure2: k
    few["geometry"] |= {"k": [8]}
    assert most_neighbours(few, "seedbench") == 8
    few["geometry"] |= {"k": [1]}
    few["figure2"] |= {"dataset": "vizwiz"}
    few["galleries"] |= {"datasets": ["cub"]}
    few["overlap"] |= {"datasets": ["vizwiz"]}
    assert most_neighbours(few, "seedbench") == 2  # the intrinsic dimension's
    few["retrieval"] |= {"overlap_k": 2}
    assert most_neighbours(few, "cub") == 5  # galleries: shown


def test_the_browser_shows_images_alone_where_nothing_was_asked_about_them():
    alone = changed(["answers", "datasets"], [], changed(["figure1"], KeyError, changed(["figure7"], KeyError)))
    assert ("images", "vizwiz") in examples_of(alone)
    assert ("answers", "vizwiz") in examples_of(DEFAULT)
    assert "images" not in dict(examples_of(DEFAULT))
    assert examples_of(check_study(MINIMAL)) == []


def test_equal_settings_have_one_spelling():
    assert canonical({"b": 1, "a": [1, 2]}) == canonical({"a": [1, 2], "b": 1}) == '{"a": [1, 2], "b": 1}'


@pytest.mark.parametrize(("section", "key"), [("reconstruction", "trian"), ("figure1", "modle"), ("readers", "trian")])
def test_a_misspelt_key_of_a_section_that_may_be_left_out_is_named(section, key):
    config = copy.deepcopy(DEFAULT)
    config[section][key] = "x"
    with pytest.raises(LossmapError, match=f"{section}: unknown key '{key}', did you mean"):
        check_study(config)

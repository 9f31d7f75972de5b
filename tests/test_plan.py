"""A plan: the paper's figures, what is unknown, what does not fit, and the jobs that Snakemake really plans."""

import json
import re
import shutil
from types import SimpleNamespace

import huggingface_hub
import pytest
import yaml
from huggingface_hub.errors import LocalEntryNotFoundError
from small_study import ROOT, clone, small_study, snakemake

from lossmap.__main__ import main
from lossmap.data.counts import Count, count_dataset
from lossmap.errors import LossmapError
from lossmap.study.cost.extraction import plan_extraction
from lossmap.study.cost.models import LanguageCost, VisionCost
from lossmap.study.cost.neighbours import plan_neighbours
from lossmap.study.cost.networks import connector_cost, network_cost
from lossmap.study.cost.rates import Rates
from lossmap.study.cost.reconstruction import plan_reconstruction
from lossmap.study.cost.speech import plan_speech
from lossmap.study.cost.text import in_bytes
from lossmap.study.derived import networks_of
from lossmap.study.settings import check_study
from lossmap.study.steps import plan

PAPER = ROOT / "workflow/studies/paper.yaml"
PHOTOS = {"format": "image_folder", "images": "/nowhere/photos"}
MODEL = VisionCost("llava", "64 x 64", 64, (8, 8), (8, 8), (64, 96), (64, 48), 1000, 2000, 10**9, 5_000)


def free(monkeypatch, gigabytes):
    usage = SimpleNamespace(free=int(gigabytes * 1e9))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)


def no_hub(*arguments, **more):
    raise LocalEntryNotFoundError("no network")


def write(folder, config, name="study.yaml"):
    path = folder / name
    path.write_text(yaml.safe_dump(config))
    return path


def printed(capsys, path, *more):
    """Exit status, what was printed, its notes as one line, and the error."""
    status = main(["plan", "--configfile", str(path), *more])
    out, err = capsys.readouterr()
    return status, out, " ".join(out[out.find("NOTE:") :].split()), err


def small(**changes):
    """A study of one miniature model on photographs that nobody has."""
    return {
        "study": "mine",
        "models": {"mini": {"checkpoint": str(ROOT / "workflow/zoo/llava")}},
        "datasets": {"photos": PHOTOS | {"limit": 1000}},
        "overlap": {"datasets": ["photos"], "k": [3]},
    } | changes


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """What the plan of the paper's study says, on a machine without a network and with much disk."""
    folder = tmp_path_factory.mktemp("paper")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        free(patch, 5000)
        patch.setattr(huggingface_hub, "snapshot_download", no_hub)
        lines = []
        patch.setattr("builtins.print", lambda text, **more: lines.append(text))
        plan.run(configfile=PAPER)
    return "\n".join(lines)


def cells(text, *names):
    """Rows of the table whose first words are these, as lists of cells."""
    return [
        re.split(r"\s{2,}", line.strip()) for line in text.splitlines() if line.split()[: len(names)] == list(names)
    ]


def test_the_papers_megabytes_per_image(paper):
    [header] = cells(paper, "dataset")
    [llava] = cells(paper, "coco-train")
    [idefics2] = [row for row in cells(paper, "idefics2") if row[1] == "21"]  # dataset and images stand above
    [qwen] = [row for row in cells(paper, "qwen2.5-vl") if row[1] == "21"]
    place = header.index("MB/image")
    assert (llava[place], idefics2[place - 2], qwen[place - 2]) == ("5.90", "1.85", "2.51")


def test_the_papers_sums(paper):
    # 111,588 images; LLaVA's COCO train alone is 82,783 x 5.898 MB.
    [coco] = cells(paper, "coco-train")
    assert coco[1:] == ["82,783 *", "llava", "21", "1.18", "4.72", "5.90", "97.7", "390.6", "488.3", "0.07"]
    embeddings, work = cells(paper, "total")
    images = 82_783 + 5_000 + 1_000 + 5_624 + 1_131 + 10_000 + 5_794 + 256
    assert float(embeddings[-2].replace(",", "")) == pytest.approx(
        images * (5.89824 + 1.851392 + 2.506752) / 1e3, abs=0.1
    )
    assert embeddings[1] == "99"  # parts
    # 99 extractions; each model: statistics, linear decoders, ladder, 5 losses, 5 times speech, 4 searches, 1 index, 1
    # probe; networks: 3 of LLaVA's and 2 of the others', on two connectors and two shares.
    searched = 4
    assert work[1] == str(99 + 3 * (2 + 6 + 5 + searched + 2) + 2 * 2 * (3 + 2 + 2))
    assert all(len(line) <= 120 for line in paper.splitlines())
    text = " ".join(paper.split())
    assert "sustains 125 TFLOP/s in bfloat16 and float16 (--rate; the default is 40% of an A100's 312)" in text
    assert "DISK: 1,252.8 GB; free in" in text
    assert "5,000.0 GB. It fits." in text


def test_the_papers_hours_by_hand(paper):
    # Extraction of Qwen2.5-VL: 111,588 images of 752 GFLOP at 125 TFLOP/s are 0.19 hours.
    [row] = [row for row in cells(paper, "qwen2.5-vl") if row[1] == "33"]  # the kind of work stands above
    assert row[2:4] == ["84.0", "0.19"]
    # Idefics2's ridge of all patches at once: normal equations of 4,096 and 663,552 columns, twice, and weights twice.
    [row] = [row for row in cells(paper, "idefics2") if row[1] == "2" and len(row) == 7]
    assert row[4] == f"{(2 * 8 * 4096 * (4096 + 576 * 1152) + 2 * 4 * 4096 * 576 * 1152) / 1e9:,.1f}"


def test_it_does_not_fit(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, small())
    needed = 1000 * 64 * (96 + 96) * 2
    free(monkeypatch, (needed - 1e6) / 1e9)
    status, out, _, err = printed(capsys, path)
    assert status == 1
    assert "IT DOES NOT FIT: 1.0 MB are lacking." in out
    assert "has 23.6 MB free, and this study needs 24.6 MB more. Free space, make results/ a link" in err
    free(monkeypatch, needed / 1e9)
    status, out, _, err = printed(capsys, path)
    assert (status, err) == (0, "")
    assert f"free in {tmp_path}: 24.6 MB. It fits." in out


def test_a_small_study_on_a_large_disk_is_told_in_units_that_suit_each(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, small(datasets={"photos": PHOTOS | {"limit": 60}}))
    free(monkeypatch, 78.765994)
    status, out, _, _ = printed(capsys, path)
    assert status == 0
    assert f"DISK: {60 * 64 * 192 * 2 / 1e6:.1f} MB; free in {tmp_path}: 78.8 GB. It fits." in out
    sizes = (0, 999, 1000, 999_949, 1e6, 78_765_994_000, 5e12)
    assert [in_bytes(size) for size in sizes] == [
        *("0 B", "999 B", "1.0 kB", "999.9 kB", "1.0 MB", "78.8 GB", "5,000.0 GB")
    ]


def test_what_is_already_there_needs_no_room(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, small(extraction={"part_size": 400}))
    (tmp_path / "results/mine/embeddings/photos/mini/part-000000-000400.zarr").mkdir(parents=True)
    free(monkeypatch, 600 * 64 * 192 * 2 / 1e9)
    status, out, _, _ = printed(capsys, path)
    assert status == 0
    assert "DISK: 24.6 MB, 9.8 MB of it already there; free in" in out
    assert str(tmp_path / "results/mine") in out


def test_numbers_of_images_that_nobody_knows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = small(datasets={"photos": PHOTOS | {"limit": 1000}, "others": PHOTOS})
    config["overlap"]["datasets"] = ["photos", "others"]
    status, out, notes, _ = printed(capsys, write(tmp_path, config))
    assert status == 0
    assert cells(out, "others") == [["others", "?", "each", *["?"] * 8]]
    assert cells(out, "photos")[0][1:4] == ["1,000 +", "mini", "1"]
    assert "? the annotations are not there, and the size of this dataset is not known: in no sum below" in out
    assert "Nobody knows how many images others will have" in notes
    assert "What could be planned fits, but see the notes." in notes


def test_a_model_whose_configuration_cant_be_had(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_hub)
    config = small()
    config["models"] |= {
        "far": {"checkpoint": "owner/model", "revision": "0" * 40},
        "lost": {"checkpoint": "/nowhere/m"},
    }
    status, out, notes, _ = printed(capsys, write(tmp_path, config))
    assert status == 0
    assert ["far", *["?"] * 8] in cells(out, "far")
    assert "NOTE: far: not planned. config.json of owner/model can't be had: owner/model at 0000" in notes
    assert "Unset HF_HUB_OFFLINE" in notes
    assert "NOTE: lost: not planned. config.json of /nowhere/m can't be had: /nowhere/m: is neither a folder" in notes
    assert cells(out, "photos")[0][2:5] == ["mini", "1", "12.29"]


def test_of_a_hub_model_only_small_files_are_downloaded(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = []

    def download(checkpoint, *, revision, allow_patterns, ignore_patterns):
        asked.append((checkpoint, revision, allow_patterns))
        return str(ROOT / "workflow/zoo/idefics2")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    config = small(models={"far": {"checkpoint": "owner/model", "revision": "0" * 40}})
    status, out, _, _ = printed(capsys, write(tmp_path, config))
    assert status == 0
    names = ["config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json"]
    assert asked == [("owner/model", "0" * 40, names)]
    assert cells(out, "far")[0][2:4] == ["64 x 96", "16 x 96"]


@pytest.mark.parametrize("hub", [False, True])
def test_a_model_that_the_study_lacks_a_size_for_is_an_error_after_the_plan(tmp_path, monkeypatch, capsys, hub):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "workflow/zoo/qwen2_5_vl", "model", ignore=shutil.ignore_patterns("*.safetensors"))
    path = tmp_path / "model/processor_config.json"
    content = json.loads(path.read_text())
    content["image_processor"]["size"] = {"shortest_edge": 3136, "longest_edge": 12845056}
    path.write_text(json.dumps(content))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *given, **how: "model")
    model = {"checkpoint": "owner/model", "revision": "0" * 40} if hub else {"checkpoint": "model"}
    model |= {"view": "square"}
    status, out, notes, error = printed(capsys, write(tmp_path, small(models={"far": model})))
    assert status == 1
    assert cells(out, "photos")[0][2:4] == ["far", "?"]
    assert "NOTE: far: not planned" in notes
    assert re.search(
        r"models: far: (owner/)?model \(qwen2_5_vl\): takes images of any size. Set the model's image_size", error
    )
    assert printed(capsys, write(tmp_path, small(models={"far": model | {"image_size": 64}})))[0] == 0
    status, out, *_ = printed(capsys, write(tmp_path, small(models={"far": model | {"view": "processor"}})))
    assert status == 0
    assert "far: 1,200 tokens of an image of 640 x 480 in 1 view; in one square view 441." in out


def test_a_folder_without_weights_and_a_control_that_is_impossible(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "model"
    shutil.copytree(ROOT / "workflow/zoo/idefics2", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    config = small(models={"mini": {"checkpoint": "model", "image_size": 40}})
    config["datasets"]["more"] = PHOTOS | {"limit": 100}
    how = {
        "train": "photos",
        "evaluate": ["more"],
        "ladder": "more",
        "networks": {"mlp": {"kind": "mlp", "widths": [4]}},
    }
    config["reconstruction"] = how | {"controls": {"rotation": {"kind": "rotation"}}}
    status, out, notes, _ = printed(capsys, write(tmp_path, config))
    assert status == 0
    assert "NOTE: mini: reconstruction is not planned. Control identity: 5 x 5 patches can't be cut into 16" in notes
    assert cells(out, "mini")[0][1:3] == ["40 x 40", "25 x 96"]


def test_without_post_half_of_the_disk_is_enough(tmp_path, monkeypatch):
    config = check_study(small(), paths=False)
    counts, rates = {"photos": Count(1000, 0, "manifest")}, Rates(1e12, 1e12)
    [work] = plan_extraction(config, counts, "mini", MODEL, rates)
    assert (work.pre, work.post) == (64 * 96 * 2, 64 * 48 * 2)
    assert work.outputs == {"results/mine/embeddings/photos/mini/part-000000-001000.zarr": 1000 * 64 * 144 * 2}
    assert (work.flops, work.seconds) == (1e12, 16)  # compute_dtype is float32
    assert work.memory == 2000 + 32 * 5000
    config["extraction"] |= {"store_post": False, "dtype": "float32", "compute_dtype": "bfloat16", "part_size": 600}
    [work] = plan_extraction(config, counts, "mini", MODEL, rates)
    assert (work.pre, work.post, work.seconds) == (64 * 96 * 4, 0, 1)
    assert list(work.outputs.values()) == [600 * 64 * 96 * 4, 400 * 64 * 96 * 4]


def test_speech_by_hand():
    config = check_study(
        small(datasets={"photos": {"format": "coco", "images": "/a", "annotations": "/b"}}), paths=False
    )
    config["captions"]["datasets"] = ["photos"]
    config["generation"] |= {"compute_dtype": "bfloat16", "batch_size": 10}
    config["captions"]["max_new_tokens"] = 11
    language = LanguageCost(5, weights=10, prompt_flops=100, token_flops=2, activations=7, cache=3, token_cache=1)
    counts = {"photos": Count(95, 0, "manifest")}
    [work] = plan_speech(config, counts, "mini", "llava", language, Rates(flops=100, bandwidth=8))
    assert work.jobs == {"caption_images": 1}
    assert work.flops == 95 * (100 + 10 * 2)
    # 10 batches say 10 tokens after the first; for each, 10 + 10 x 3 bytes come from memory at 8 a second.
    assert work.seconds == 95 + 10 * 10 * 5
    assert work.memory == 10 + 10 * (7 + 11)
    # Where operations take longer, they count.
    [work] = plan_speech(config, counts, "mini", "llava", language, Rates(1, 8))
    assert work.seconds == 9500 + 10 * 10 * 20


def test_neighbours_by_hand():
    config = check_study(small(), paths=False)
    [work] = plan_neighbours(config, {"photos": Count(100, 0, "manifest")}, "mini", MODEL, Rates(1e9, 1))
    assert work.flops == 2 * 2 * 100**2 * (96 + 48)
    assert work.jobs == {"find_neighbours": 1, "compare_indexes": 0, "probe_patches": 0}
    assert plan_neighbours(config, {"photos": Count(None, None, "unknown")}, "mini", MODEL, Rates(1e9, 1)) == []


@pytest.mark.parametrize("memory", [0, 10**9])
def test_reconstruction_by_hand(memory):
    config = check_study(small(), paths=False)
    mlp = {"kind": "mlp", "widths": [10]}
    training = {"epochs": 3, "batch": 10, "accumulate": 2, "processes": 1, "memory": memory}
    config["reconstruction"] = {
        **{"train": "a", "ladder": "b", "evaluate": ["b", "c"], "held_out": 0.25, "shares": [50, 100]},
        **{"networks": {"mlp": mlp}, "controls": {"bent": {"kind": "invertible_mlp", "networks": ["mlp"]}}},
        "training": training,
    }
    counts = {name: Count(images, 0, "manifest") for name, images in (("a", 100), ("b", 7), ("c", 11))}
    linear, networks, losses = plan_reconstruction(config, counts, "mini", MODEL, Rates(1e9, 1))
    shapes = (MODEL.pre_grid, MODEL.pre_shape, MODEL.post_shape, MODEL.post_grid)
    own, bent = connector_cost({"kind": "own"}, *shapes), connector_cost({"kind": "invertible_mlp"}, *shapes)
    nets = [network_cost(mlp, MODEL.pre_shape, one, images=5) for one in (own, bent)]
    pre, post = 2 * 64 * 96, 2 * 64 * 48

    assert linear.flops == 100 * (own.linear_flops + bent.linear_flops + bent.statistics_flops)
    assert linear.seconds == 16 * linear.flops / 1e9
    assert linear.reads == 100 * (pre + post + pre)
    assert sum(linear.outputs.values()) == 2 * (own.linear_disk + bent.linear_disk)

    # An epoch is 7 batches of 75 images; the 25 that are held out are looked at before the 21 steps and after them.
    trained = 2 * sum(3 * 70 * one.training_flops + 2 * 25 * one.forward_flops for one in nets)
    passed = 2 * (100 if memory else 3 * 70 + 2 * 25)
    assert networks.flops == trained + passed * bent.flops
    assert networks.seconds == pytest.approx((trained + 16 * passed * bent.flops) / 1e9)
    assert networks.reads == passed * (pre + post + pre)
    assert networks.jobs == {"train_reconstructor": 4}
    assert networks.outputs["results/mine/reconstructors/mini/bent/mlp-50.safetensors"] == nets[1].disk
    assert networks.memory == max(one.memory for one in nets)

    decoders = [one.ridge_flops + net.forward_flops for one, net in zip((own, bent), nets, strict=True)]
    assert losses.flops == 7 * (2 * sum(decoders) + bent.flops) + (7 + 11) * decoders[0]
    assert losses.outputs == {
        f"results/mine/patch_loss/{name}/mini.zarr": 4 * images * 64 * (3 * 4 + 1)
        for name, images in (("b", 7), ("c", 11))
    }
    assert losses.reads == 7 * (pre + post + pre) + (7 + 11) * (pre + post)
    counts["c"] = Count(None, None, "unknown")
    assert plan_reconstruction(config, counts, "mini", MODEL, Rates(1e9, 1)) == []


def test_networks_of_a_model_and_a_control():
    reconstruction = yaml.safe_load(PAPER.read_text())["reconstruction"]
    assert networks_of(reconstruction, "llava", "own") == ["mlp-3", "mlp-5", "transformer"]
    assert networks_of(reconstruction, "idefics2", "invertible-mlp") == ["transformer-4", "transformer-16"]
    assert networks_of(reconstruction, "idefics2", "rotation") == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"format": "karpathy", "annotations": "/a/dataset_coco.json", "split": "test"}, Count(5000, 0, "published")),
        (
            {"format": "karpathy", "annotations": "/a/dataset_flickr30k.json", "split": "test"},
            Count(1000, 0, "published"),
        ),
        ({"format": "karpathy", "annotations": "/a/other.json", "split": "test"}, Count(None, None, "unknown")),
        ({"format": "coco", "annotations": "/a/captions_train2017.json"}, Count(118_287, 0, "published")),
        ({"format": "seedbench", "annotations": "/a/SEED-Bench.json"}, Count(5624, 14_233, "published")),
        (
            {"format": "vizwiz_grounding", "annotations": "/a/val_grounding.json", "masks": "/m"},
            Count(1131, 1131, "published"),
        ),
        ({"format": "cub", "annotations": "/a", "split": "train"}, Count(5994, 0, "published")),
        ({"format": "cub", "annotations": "/a", "split": "test", "limit": 6000}, Count(5794, 0, "published")),
        ({"format": "image_folder"}, Count(None, None, "unknown")),
        ({"format": "image_folder", "sample": 7}, Count(7, None, "as configured")),
    ],
)
def test_sizes_of_published_datasets(entry, expected):
    assert count_dataset({"images": "/nowhere", **entry}) == expected


def test_a_sample_has_its_share_of_the_questions():
    entry = {"format": "vqav2", "images": "/i", "questions": "/q", "annotations": "/v2_mscoco_val2014_annotations.json"}
    assert count_dataset(entry) == Count(40_504, 214_354, "published")
    assert count_dataset(entry | {"sample": 10_000}) == Count(10_000, 52_922, "as configured")


def test_annotations_are_counted_where_they_are_there(tmp_path):
    path = tmp_path / "val_grounding.json"
    path.write_text(json.dumps({f"{i}.jpg": {"question": "What?", "answers": ["x"] * 10} for i in range(4)}))
    entry = {"format": "vizwiz_grounding", "images": "/nowhere", "masks": "/nowhere", "annotations": str(path)}
    assert count_dataset(entry) == Count(4, 4, "annotations")
    assert count_dataset(entry | {"limit": 3}) == Count(3, 3, "annotations")
    assert count_dataset(entry | {"limit": 30}) == Count(4, 4, "annotations")
    path.write_text("not JSON")
    with pytest.raises(LossmapError, match="is not JSON"):
        count_dataset(entry)
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "notes.txt"):
        (folder / name).touch()
    assert count_dataset({"format": "image_folder", "images": str(folder)}) == Count(2, 0, "annotations")


def test_what_was_read_counts_before_what_was_published(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "results/mine/data/photos/manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"images": 77, "questions": 0}))
    path = write(tmp_path, small())
    assert cells(printed(capsys, path)[1], "photos")[0][1] == "77"
    manifest.write_text("{}")
    _, out, notes, _ = printed(capsys, path)
    assert cells(out, "photos")[0][1] == "1,000 +"
    assert re.search(r"NOTE: photos: results/mine/data/photos/manifest.json can't be read \(.*images", notes)
    broken = tmp_path / "captions.json"
    broken.write_text("[")
    entry = {"format": "coco", "images": "/nowhere", "annotations": str(broken)}
    _, out, notes, _ = printed(capsys, write(tmp_path, small(study="other", datasets={"photos": entry})))
    assert "NOTE: photos: not planned." in notes
    assert cells(out, "photos")[0][1] == "?"


def test_a_study_is_checked_but_for_its_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = small()
    with pytest.raises(LossmapError, match="/nowhere/photos does not exist"):
        check_study(config)
    assert check_study(config, paths=False)["extraction"]["part_size"] == 4096
    status, _, _, err = printed(capsys, write(tmp_path, config | {"overlap": {"datasets": ["fotos"]}}))
    assert status == 1
    assert "'fotos' is not among datasets, did you mean 'photos'?" in err
    config["models"]["mini"] = {"checkpoint": "owner/model"}
    with pytest.raises(LossmapError, match="it needs revision"):
        check_study(config, paths=False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--configfile", "absent.yaml"], "absent.yaml: can't be read as a study"),
        (["--configfile", "broken.yaml"], "broken.yaml: can't be read as a study"),
        (["--configfile", "study.yaml", "--rate", "nan"], "rate is nan and bandwidth 0.8"),
        (["--configfile", "study.yaml", "--rate", "0"], "rate is 0 and bandwidth 0.8; wanted numbers above 0"),
    ],
)
def test_what_the_user_can_mend(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.yaml").write_text("{")
    write(tmp_path, small())
    assert main(["plan", *arguments]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_jobs_are_those_that_snakemake_plans(tmp_path, monkeypatch):
    folder, config = clone(tmp_path / "checkout"), small_study()
    config["answers"]["datasets"].append("vqav2")
    config["readers"] = {"train": "vqav2-train", "datasets": ["vqav2"]}
    # Snakemake knows of the parts when datasets have been read, and the training sets' when they have been compared.
    compared = [f"results/small/{trained}/images.json" for trained in ("reconstructors", "readers")]
    done = snakemake(folder, "manifests", *compared, config=config)
    assert done.returncode == 0, done.stderr
    dry = snakemake(folder, "-n", "--quiet", "rules", config=config)
    assert dry.returncode == 0, dry.stderr
    planned = {rule: int(jobs) for rule, jobs in re.findall(r"^(\w+) +(\d+)$", dry.stdout + dry.stderr, re.M)}
    works = []
    monkeypatch.chdir(folder)
    monkeypatch.setattr(plan, "describe_work", lambda given: works.extend(given) or [])
    plan.run(configfile=folder / "small.yaml")
    jobs = {}
    for work in works:
        for rule, count in work.jobs.items():
            jobs[rule] = jobs.get(rule, 0) + count
    assert {rule: planned.get(rule) for rule in jobs} == jobs
    assert jobs["extract"] > planned["index_embeddings"]  # some stores have several parts
    # Every rule that asks for a GPU is among them.
    texts = "".join(path.read_text() for path in (folder / "rules").glob("*.smk"))
    asking = {
        re.match(r"\w+", text)[0] for text in re.split(r"(?m)^ *(?:rule|checkpoint) ", texts)[1:] if "gpu=" in text
    }
    assert asking == set(jobs)

"""The study on a real SLURM cluster of one node, and the profile that sends it there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from small_study import ROOT, clone, small_study, snakemake

PROFILE = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
PROGRAMS = ["munged", "munge", "slurmctld", "slurmd", "scontrol", "sinfo", "sbatch"]
INSTALL = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge"
# The test cluster has no accounting, its jobs are short, and it has no file system but its own.
WITHOUT_ACCOUNTING = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "8"]
WITHOUT_ACCOUNTING += ["--latency-wait", "5"]
LONGEST = 2400  # seconds until a run that hangs is given up


def text_of_rules():
    """Rule -> its text."""
    for path in sorted((ROOT / "rules").glob("*.smk")):
        for block in re.split(r"(?m)^ *(?=rule |checkpoint )", path.read_text())[1:]:
            yield re.match(r"\w+ (\w+):", block).group(1), block


GPU_RULES = {name for name, text in text_of_rules() if re.search(r"resources:\s+gpu=", text)}


# The profile, without a cluster


def test_exactly_the_rules_that_use_a_gpu_go_to_the_gpu_partition():
    assert {"extract", "train_reconstructor", "caption_images"} <= GPU_RULES
    partitions = {rule: how["slurm_partition"] for rule, how in PROFILE["set-resources"].items()}
    assert partitions == dict.fromkeys(GPU_RULES, "gpu")
    assert PROFILE["default-resources"]["slurm_partition"] == "cpu"


def test_every_rule_that_the_profile_names_exists():
    assert set(PROFILE["set-resources"]) <= {name for name, _ in text_of_rules()}


def test_every_retry_gets_more_memory_and_time():
    assert PROFILE["retries"] >= 2
    for resources in (PROFILE["default-resources"], *PROFILE["set-resources"].values()):
        for name in ("mem_mb", "runtime"):
            tries = [eval(resources[name], {"attempt": attempt}) for attempt in (1, 2, 3)]
            assert 0 < tries[0] < tries[1] < tries[2]


def test_results_become_stale_as_in_the_default_profile():
    default = yaml.safe_load((ROOT / "profiles/default/config.yaml").read_text())
    assert {"rerun-triggers", "max-checksum-file-size", "rerun-incomplete"} <= set(default)
    assert {key: PROFILE[key] for key in default} == default


# On a cluster


@pytest.fixture(scope="session")
def cluster():
    """The folder of a cluster that runs while the tests do."""
    if os.getuid() != 0:
        pytest.skip("needs root, for a SLURM node is started on this machine: sudo -E make test")
    missing = [name for name in PROGRAMS if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")]
    if missing:
        pytest.skip(f"needs SLURM ({', '.join(missing)} not found): {INSTALL}")
    folder = Path(os.environ.get("LOSSMAP_CLUSTER", "/tmp/lossmap-cluster"))
    subprocess.run([ROOT / "tests/cluster/start.sh"], check=True, timeout=120)
    yield folder
    subprocess.run([ROOT / "tests/cluster/stop.sh"], check=True, timeout=120)


class Job(NamedTuple):
    """A job as SLURM tells of it."""

    id: str
    run: str  # name of the job: which run of Snakemake it belongs to
    rule: str
    partition: str
    memory: str
    limit: str
    state: str


def jobs(run=None) -> list[Job]:
    """All jobs of the cluster, or of one run of Snakemake, in the order in which they were submitted."""
    lines = slurm("squeue", "--states=all", "--noheader", "--format=%i|%j|%k|%P|%m|%l|%T").splitlines()
    found = [Job(*line.split("|")) for line in lines]
    found = [job._replace(rule=re.sub(r"^rule_|_wildcards_.*", "", job.rule)) for job in found]
    return sorted((job for job in found if run in (None, job.run)), key=lambda job: int(job.id))


def slurm(*command) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "snakemake", *arguments, "--profile", "profiles/slurm", *WITHOUT_ACCOUNTING]


def environment() -> dict:
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}


def on_cluster(folder, *arguments) -> subprocess.CompletedProcess:
    """Run Snakemake on the cluster until its end."""
    how = {"cwd": folder, "env": environment(), "capture_output": True, "text": True, "timeout": LONGEST}
    return subprocess.run(command(*arguments), check=False, **how)


class Started:
    """A run of Snakemake that goes on while the test looks at it, with a terminal of its own, as it were."""

    def __init__(self, folder, *arguments):
        self.log = folder / "snakemake.out"
        with self.log.open("w") as out:
            how = {"cwd": folder, "env": environment(), "stdout": out, "stderr": out, "start_new_session": True}
            self.process = subprocess.Popen(command(*arguments), **how)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def run(self):
        found = re.search(r"SLURM run ID: (\S+)", self.log.read_text())
        return found and found.group(1)

    def jobs(self) -> list[Job]:
        return jobs(self.run) if self.run else []

    def states(self) -> Counter:
        """How many of its jobs are in each state."""
        return Counter(job.state for job in self.jobs())

    def until(self, what, seconds=300):
        """Wait for what() to be true, while Snakemake runs."""
        end = time.monotonic() + seconds
        while not (found := what()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.1)
        return found

    def end(self, how: signal.Signals | None = None) -> int:
        """Its exit status; how: the signal that ends it, as Ctrl-C sends it, to all processes of the terminal."""
        if how is not None:
            os.killpg(self.process.pid, how)
        return self.process.wait(timeout=LONGEST)


def active(run) -> list[Job]:
    return [job for job in jobs(run) if job.state in ("PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED")]


def wait_for_no_job(run, seconds=60):
    end = time.monotonic() + seconds
    while left := active(run):
        assert time.monotonic() < end, left
        time.sleep(0.2)


GREEDY = """
rule all:
    input: "large", "long"

rule large:
    output: "large"
    shell: "python -c 'import time; held = b\\"x\\" * (700 << 20); time.sleep(6)'; touch {output}"

rule long: # goes on where it was stopped, as a training does
    output: "long"
    shell: "while [ $(wc -l < done) -lt 100 ]; do sleep 1; echo >> done; done; touch {output}"
"""


@pytest.fixture(scope="module")
def greedy(cluster, tmp_path_factory):
    """A run whose jobs need more than they are given at first, under way: for two minutes it mostly waits."""
    folder = tmp_path_factory.mktemp("greedy")
    shutil.copytree(ROOT / "profiles/slurm", folder / "profiles/slurm")
    (folder / "Snakefile").write_text(GREEDY)
    (folder / "done").touch()
    ask = ["slurm_partition=cpu", "mem_mb=600 * attempt", "runtime=1 * attempt"]
    with Started(folder, "--default-resources", *ask) as started:
        yield started


COMPARED = {".csv", ".html", ".rst", ".parquet", ".json", ".pdf", ".png", ".jpg", ".safetensors"}


def compared(folder) -> list[Path]:
    """Results of a checkout that must be the same bytes everywhere, but for stores: their index holds their digests."""
    names = sorted(path.relative_to(folder) for path in (folder / "results/small").rglob("*"))
    return [name for name in names if name.suffix in COMPARED and ".zarr" not in str(name)]


@pytest.fixture(scope="module")
def finished(greedy, tmp_path_factory) -> tuple[Path, str]:
    """A checkout in which the cluster has computed the small study from nothing, and the name of that run. Another run
    is under way beside it."""
    folder = clone(tmp_path_factory.mktemp("cluster") / "checkout")
    (folder / "small.yaml").write_text(yaml.safe_dump(small_study()))
    done = on_cluster(folder, "--configfile", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, re.search(r"SLURM run ID: (\S+)", done.stdout + done.stderr).group(1)


@pytest.mark.slurm
def test_the_cluster_computes_the_same_bytes(study, finished):
    folder, _ = finished
    results = compared(folder)
    assert len(results) > 50
    assert results == compared(study)
    for name in results:
        assert (folder / name).read_bytes() == (study / name).read_bytes(), name
    assert zipfile.is_zipfile(folder / "results/small/report.zip")


@pytest.mark.slurm
def test_jobs_that_use_a_gpu_get_one_and_others_none(cluster, finished):
    _, run = finished
    given = {}
    for line in (cluster / "tasks").read_text().splitlines():
        job, _, partition, devices = line.split()
        given.setdefault(job, set()).add((partition, devices))
    used = {job.rule for job in jobs(run) if job.rule in GPU_RULES}
    assert len(used) > 5
    for job in jobs(run):
        if job.rule in GPU_RULES:
            assert given[job.id] in ({("gpu", "0")}, {("gpu", "1")})
        else:
            assert given[job.id] == {("cpu", "none")}


@pytest.mark.slurm
def test_a_job_that_needs_more_gets_more(greedy):
    assert greedy.end() == 0, greedy.log.read_text()
    large = [(job.memory, job.state) for job in greedy.jobs() if job.rule == "large"]
    assert large in [[("600M", state), ("1200M", "COMPLETED")] for state in ("FAILED", "OUT_OF_MEMORY")]
    long = [(job.limit, job.state) for job in greedy.jobs() if job.rule == "long"]
    assert long == [("1:00", "TIMEOUT"), ("2:00", "COMPLETED")]


MEASURED = ("coco-train", "coco-karpathy", "vizwiz", "seedbench", "cub")
STORES = [f"results/small/embeddings/{name}/llava-mini.json" for name in MEASURED]
PARTS = 7  # of them


def parts(folder) -> list[Path]:
    return sorted((folder / "results/small/embeddings").glob("*/*/part-*.zarr"))


@pytest.fixture
def unembedded(study, cluster, tmp_path) -> Path:
    """A checkout in which all manifests are there, but no embeddings, nor Snakemake's notes of any."""
    folder = tmp_path / "checkout"
    shutil.copytree(study, folder, symlinks=True)
    made = [str(path.relative_to(folder)) for path in parts(folder)]
    done = snakemake(folder, "--cleanup-metadata", *made)
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(folder / "results/small/embeddings")
    return folder


def planned_parts(folder, config=None) -> int:
    """How many parts a dry run would make."""
    (folder / "other.yaml").write_text(yaml.safe_dump(config or small_study()))
    done = on_cluster(folder, *STORES, "-n", "--configfile", "other.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return len(re.findall(r"^extract  results", done.stdout + done.stderr, re.M))


@pytest.mark.slurm
def test_an_interrupt_cancels_all_jobs(unembedded):
    node = ["scontrol", "update", "NodeName=localhost"]
    slurm(*node, "State=DRAIN", "Reason=test")  # so that no job ends before all are submitted
    with Started(unembedded, *STORES, "--configfile", "small.yaml") as snakemake:
        # All of them submitted, for Snakemake knows nothing of a job that is on its way to SLURM, and nothing left to
        # print, for its log handler drops a KeyboardInterrupt.
        try:
            snakemake.until(lambda: len(snakemake.jobs()) == PARTS)
        finally:
            slurm(*node, "State=RESUME")
        snakemake.until(lambda: snakemake.states()["RUNNING"])
        assert snakemake.end(signal.SIGINT) != 0
        wait_for_no_job(snakemake.run)
        assert snakemake.states()["CANCELLED"] >= 2
    made = len(parts(unembedded))
    assert planned_parts(unembedded) == PARTS - made  # and the folder is not locked


@pytest.mark.slurm
def test_a_run_that_was_killed_loses_no_finished_part(study, unembedded):
    with Started(unembedded, *STORES, "--configfile", "small.yaml") as snakemake:
        snakemake.until(lambda: snakemake.states()["COMPLETED"] >= 2 and snakemake.states()["RUNNING"])
        snakemake.end(signal.SIGKILL)
    slurm("scancel", "--name", snakemake.run)
    wait_for_no_job(snakemake.run)
    finished = parts(unembedded)
    assert 2 <= len(finished) < PARTS
    files = {path: path.stat() for part in finished for path in part.rglob("*") if path.is_file()}
    assert on_cluster(unembedded, "--unlock", "--configfile", "small.yaml").returncode == 0
    other = small_study()
    other["extraction"]["dtype"] = "float32"
    assert planned_parts(unembedded, other) == PARTS, (
        "parts that Snakemake did not see finished would be used as they are"
    )
    done = on_cluster(unembedded, *STORES, "--configfile", "small.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    run = re.search(r"SLURM run ID: (\S+)", done.stdout + done.stderr).group(1)
    assert Counter(job.rule for job in jobs(run))["extract"] == PARTS - len(finished)
    for path, stat in files.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (stat.st_ino, stat.st_mtime_ns)
    for store in STORES:
        assert (unembedded / store).read_bytes() == (study / store).read_bytes()


@pytest.mark.slurm
def test_a_training_on_two_gpus_that_is_preempted_ends_in_the_same_weights(study, cluster, tmp_path):
    config = small_study()
    config["reconstruction"]["training"] |= {
        "processes": 2,
        "epochs": 300,
        "patience": 300,
        "learning_rate": 0.01,
        "checkpoint_minutes": 0.002,
    }
    network = "results/small/reconstructors/llava-mini/invertible-mlp/mlp-100.safetensors"
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        shutil.copytree(study, folder, symlinks=True)
        (folder / network).unlink()
    done = snakemake(here, network, config=config)
    assert done.returncode == 0, done.stdout + done.stderr
    (there / "small.yaml").write_text(yaml.safe_dump(config))
    with Started(there, network, "--configfile", "small.yaml") as started:
        started.until((there / f"{network}.partial/run.safetensors").is_file)
        (job,) = started.jobs()
        assert (job.rule, job.partition, job.state) == ("train_reconstructor", "gpu", "RUNNING")
        slurm("scontrol", "requeue", job.id)
        assert started.end() == 0, started.log.read_text()
    assert "Restarts=1" in slurm("scontrol", "show", "job", job.id)
    assert f"{job.id} 0 gpu 0,1" in (cluster / "tasks").read_text().splitlines()
    log = (there / "results/small/logs/train_reconstructor/llava-mini/invertible-mlp/mlp-100.log").read_text()
    assert int(re.search(r"\| (\d+)/", log).group(1)) > 0, "the first step that the second start reports"
    assert (there / network).read_bytes() == (here / network).read_bytes()

"""A run of Snakemake that is watched and killed: which jobs it started, which it finished, what is left of it."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import yaml

BEGINS = re.compile(r"^(?:local)?(?:rule|checkpoint) (\w+):$")
FIELD = re.compile(r"^    (output|jobid): (.*)$")
ENDS = re.compile(r"^Finished jobid: (\d+) ")


class Watched:
    """One run of a study's Snakefile in a session of its own, so that it can be killed with all of its jobs.

    folder: the checkout; config: the study; log: file for all that Snakemake prints with -p.
    """

    def __init__(self, folder: Path, config: dict, log: Path, cores: int = 2):
        (folder / "small.yaml").write_text(yaml.safe_dump(config))
        command = [sys.executable, "-m", "snakemake", "-p", "--cores", str(cores), "--configfile", "small.yaml"]
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self.folder, self.log = folder, log
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=folder, stdout=log.open("w"), stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )

    def jobs(self) -> tuple[set[str], set[str]]:
        """Jobs started and jobs finished so far, each as its rule and its outputs."""
        started, finished, by_id, rule, output = set(), set(), {}, "", ""
        for line in self.log.read_text(errors="replace").splitlines():
            if begins := BEGINS.match(line):
                rule, output = begins[1], ""
            elif (field := FIELD.match(line)) and field[1] == "output":
                output = field[2]
            elif field and output:
                by_id[field[2]] = f"{rule}: {output}"
                started.add(by_id[field[2]])
            elif (ends := ENDS.match(line)) and ends[1] in by_id:
                finished.add(by_id[ends[1]])
        return started, finished

    def running(self) -> list[psutil.Process]:
        """Processes that compute a step at the moment."""
        found = []
        for process in self.members():
            try:
                words = process.cmdline()
            except psutil.Error:
                continue
            if {"lossmap", "--report"} & set(words) and Path(words[0]).name.startswith("python"):
                found.append(process)
        return found

    def members(self) -> list[psutil.Process]:
        """All living processes of the run, orphans too."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (OSError, psutil.Error):
                continue
        return found

    def alive(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> int:
        """Wait for the end of Snakemake. Returns its exit status."""
        return self.process.wait()

    def kill_all(self) -> str:
        """SIGKILL to Snakemake and all its jobs. Returns what ran."""
        steps = [step_of(process) for process in self.running()]
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.end()
        return ", ".join(steps) or "no job"

    def kill_job(self, choose) -> str | None:
        """SIGKILL to one running job; Snakemake then ends by itself. choose: picks one of a list. None if none runs."""
        running = self.running()
        if not running:
            return None
        process = choose(sorted(running, key=lambda one: one.pid))
        step = step_of(process)
        process.kill()
        return step

    def kill_scheduler(self) -> str:
        """SIGKILL to Snakemake alone: its jobs go on without it."""
        self.process.kill()
        self.process.wait()
        return f"{', '.join(step_of(process) for process in self.running()) or 'no job'} left running"

    def end(self) -> None:
        """Leave nothing running: kill what is left of the run, and wait until it is gone."""
        while members := self.members():
            for process in members:
                process.kill()
            time.sleep(0.02)


def step_of(process: psutil.Process) -> str:
    try:
        words = process.cmdline()
        return "make_report" if "--report" in words else words[words.index("lossmap") + 1]
    except (psutil.Error, ValueError, IndexError):
        return "a job that had just ended"


def locked(folder: Path) -> bool:
    """Whether a run that was killed left its lock."""
    locks = folder / ".snakemake/locks"
    return locks.is_dir() and any(locks.iterdir())

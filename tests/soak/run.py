"""`make soak`: a study that is killed again and again, or whose disk is full, ends in the bytes of an undisturbed one.

One seed, the same moments; which job runs at a moment depends on the machine. Exit status 1 where anything differs.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from bisect import bisect_right
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import yaml
from compare import differences
from full_disk import fill_again_and_again
from small_disk import may_mount
from small_study import ROOT, clone, small_study, snakemake
from watched import Watched, locked

KINDS = ("all", "job", "snakemake")  # what is killed, in turn


def say(*words) -> None:
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def undisturbed(folder: Path, config: dict, cores: int) -> list[float]:
    """Run the study to its end. Returns when each job ended, in seconds from the start."""
    run, ends, told = Watched(folder, config, folder / "run.log", cores), [], 0
    alive = True
    while alive:
        alive = run.alive()  # before the look at its log, whose last lines count
        ends += [time.monotonic() - run.began] * (len(run.jobs()[1]) - len(ends))
        if len(ends) >= told + 20:
            told = len(ends)
            say(f"  {told} jobs")
        time.sleep(0.25)
    if run.wait():
        raise SystemExit(f"The undisturbed run failed: see {run.log}")
    return ends


def moments(ends: list[float], kills: int, draw: random.Random) -> list[tuple[float, int, float]]:
    """Random moments, one in each of equal parts of the undisturbed run: (its seconds, jobs finished by then, seconds
    since the last)."""
    found = []
    for second in ((i + draw.random()) * ends[-1] / kills for i in range(kills)):
        finished = bisect_right(ends, second)
        found.append((second, finished, second - (ends[finished - 1] if finished else 0)))
    return found


class Killing:
    """The chain of runs that are killed. done: jobs that a run has reported as finished."""

    def __init__(self, folder: Path, config: dict, cores: int, draw: random.Random):
        self.folder, self.config, self.cores, self.draw = folder, config, cores, draw
        self.done: set[str] = set()
        self.again: list[str] = []  # jobs that ran again though they had finished
        self.failed: list[str] = []  # runs that failed by themselves
        self.rows: list[tuple] = []
        self.runs = 0
        self.orphans: list[Watched] = []

    def start(self) -> Watched:
        if locked(self.folder):
            done = snakemake(self.folder, "--unlock", config=self.config)
            if done.returncode:
                self.failed.append(f"--unlock: {done.stdout}{done.stderr}")
        self.runs += 1
        return Watched(self.folder, self.config, self.folder / f"run-{self.runs:02d}.log", self.cores)

    def note(self, run: Watched) -> None:
        """Take note of what a run did, once it has ended."""
        started, finished = run.jobs()
        self.again += sorted(started & self.done)
        self.done |= finished

    def kill_at(self, second: float, finished: int, delay: float, kind: str) -> None:
        """Run until so many jobs have finished and some seconds more have passed, and kill."""
        run = self.start()
        while run.alive() and len(self.done | run.jobs()[1]) < finished:
            time.sleep(0.05)
        time.sleep(delay)
        what = None
        while run.alive() and what is None:
            what = {
                "all": run.kill_all,
                "job": lambda: run.kill_job(self.draw.choice),
                "snakemake": run.kill_scheduler,
            }[kind]()
            time.sleep(0.01)
        status = run.wait()
        if kind == "snakemake" and what:
            self.orphans.append(run)
        before = len(self.done)
        self.note(run)
        if what is None and status:
            self.failed.append(f"{run.log}: exit status {status} without a kill")
        self.rows.append((f"{second:.0f}", kind, what or "nothing: the study had ended", before, len(self.done)))
        say(f"kill {len(self.rows)} at {second:.0f} s ({kind}): {self.rows[-1][2]}; {len(self.done)} jobs finished")

    def finish(self) -> None:
        """Run to the end, without a kill."""
        for _ in range(3):
            run = self.start()
            status = run.wait()
            self.note(run)
            if not status:
                break
            self.failed.append(f"{run.log}: exit status {status} without a kill")
        for run in self.orphans:
            run.end()


def report(killing: Killing, first: float, seconds: float, wrong: list[str]) -> None:
    print("\n second  killed     what ran                                             finished before, after")
    for second, kind, what, before, after in killing.rows:
        print(f"{second:>7}  {kind:<9}  {what[:52]:<52} {before:>5} {after:>5}")
    print(f"\nkills                          {sum('nothing' not in row[2] for row in killing.rows)}")
    print(f"runs of Snakemake              {killing.runs}")
    print(f"jobs finished                  {len(killing.done)}")
    print(f"finished jobs that ran again   {len(killing.again)}")
    print(f"runs that failed by themselves {len(killing.failed)}")
    print(f"seconds, undisturbed           {first:.0f}")
    print(f"seconds, killed and restarted  {seconds:.0f}")
    print(f"differences                    {len(wrong)}")
    for line in [*killing.again, *killing.failed, *wrong]:
        print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--whole", action="store_true", help="the default study as it stands, not its small variant")
    parser.add_argument("--folder", type=Path, help="an empty or new folder to work in; left as it is at the end")
    options = parser.parse_args()
    config = yaml.safe_load((ROOT / "config.yaml").read_text()) if options.whole else small_study()
    top = options.folder or Path(tempfile.mkdtemp(prefix="soak-"))
    checkouts = {name: clone(top / name) for name in ("undisturbed", "killed", "full-disk")}
    results = {name: folder / "results" for name, folder in checkouts.items()}

    say(f"undisturbed run in {checkouts['undisturbed']}")
    ends = undisturbed(checkouts["undisturbed"], config, options.cores)
    say(f"{len(ends)} jobs in {ends[-1]:.0f} s; now {options.kills} kills")
    draw = random.Random(options.seed)
    killing, began = Killing(checkouts["killed"], config, options.cores, draw), time.monotonic()
    for i, moment in enumerate(moments(ends, options.kills, draw)):
        killing.kill_at(*moment, KINDS[i % len(KINDS)])
    killing.finish()
    seconds = time.monotonic() - began
    wrong = differences(results["undisturbed"], results["killed"])
    wrong += nothing_to_do(checkouts["killed"], config)
    report(killing, ends[-1], seconds, wrong)

    full = []
    if reason := may_mount():
        say(f"full disk: left out, for {reason}")
    else:
        full = fill_again_and_again(checkouts["full-disk"], config, options.cores, say)
        full += differences(results["undisturbed"], results["full-disk"])
        full += nothing_to_do(checkouts["full-disk"], config)
        print(f"differences after full disks   {len(full)}")
        for line in full:
            print(f"  {line}")
    failed = bool(wrong or killing.again or killing.failed or full)
    if not failed and not options.folder:
        shutil.rmtree(top)
    say(f"FAILED: see {top}" if failed else "passed")
    return int(failed)


def nothing_to_do(folder: Path, config: dict) -> list[str]:
    done = snakemake(folder, "-n", config=config)
    text = done.stdout + done.stderr
    return [] if "Nothing to be done" in text else [f"{folder}: a dry run finds work:\n{text}"]


if __name__ == "__main__":
    sys.exit(main())

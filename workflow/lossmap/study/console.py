"""What a run shows: a line for each job that has ended and, on a terminal, a bar and the jobs that run.

Snakemake's own lines, with each job's files, reason and command, go to the run's log, .snakemake/log/*.log; with
`--printshellcmds` (-p) to the console too. The Snakefile imports this: standard library only.
"""

import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, cast

# What Snakemake says about itself at each start and each job: beginnings of messages, and kinds of events.
ITS_OWN = (
    *("Assuming unrestricted shared filesystem", "Building DAG of jobs", "Conda environments: ignored"),
    *("DAG of jobs will be updated", "Provided ", "Rules claiming more threads", "Select jobs to execute"),
    *("Updating checkpoint dependencies", "Using shell: ", "Workflow defines that rule"),
)
ITS_CHECKPOINTS = "The run involves checkpoint jobs"
CHECKPOINTS = (
    "A dataset has to be read first. Its parts are known then, and of what is listed above only that runs whose inputs "
    "turn out to have changed."
)
COMMAND_FAILED = "RuleException:\nCalledProcessError"  # the whole command; the job's own error follows
UNSHOWN = {"workflow_started", "job_started", "resources_info", "rulegraph"}
SHOWN_JOBS = 8  # on a terminal, of those that run
SHOWN_LINES = 60  # of the log of a job that failed: more than the longest of our own errors
RED, PLAIN = "\x1b[31m", "\x1b[0m"


def install(logger: logging.Logger, settings) -> None:
    """Give a run this console, and every job's command to its log. settings: Snakemake's, of its output.

    Whoever asks for more than a line a job (-p, --verbose, --debug-dag), or for another logger, keeps Snakemake's own.
    """
    asked = settings.printshellcmds or settings.verbose or settings.debug_dag
    for handler in list(logger.handlers):
        if handler.name == "DefaultLogFileHandler":
            for its in handler.filters:
                cast(Any, its).printshellcmds = True
        elif handler.name == "DefaultStreamHandler" and not asked:
            logger.removeHandler(handler)
            logger.addHandler(Console(cast(logging.StreamHandler, handler), settings.dryrun))


class Console(logging.Handler):
    """Snakemake's events as a person reads them. default: the handler whose place it takes, with its stream, colours
    and filters (--quiet); dry: whether jobs are only listed."""

    def __init__(self, default: logging.StreamHandler, dry: bool = False):
        super().__init__()
        self.default, self.dry, self.stream = default, dry, default.stream
        for its in default.filters:
            self.addFilter(its)
        self.jobs: dict[int | None, Any] = {}  # that run: records, which have what Snakemake puts there
        self.failed: dict[int | None, Any] = {}
        self.ended: int | None = None  # the job that ended last, until it has its number
        self.done, self.total, self.drawn, self.stats = 0, 0, 0, None
        self.began = time.time()
        self.closed = threading.Event()
        terminal = getattr(self.stream, "isatty", lambda: False)() and os.environ.get("TERM") != "dumb"
        self.terminal = terminal and not dry
        if self.terminal:
            threading.Thread(target=self._refresh, daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Show what a record says, above what runs."""
        try:
            text = self._text(record)
            self._erase()
            if text:
                self.stream.write(self._coloured(text, record.levelno) + "\n")
            self._draw()
            self.stream.flush()
        except BrokenPipeError:
            raise
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Leave the console as lines alone."""
        self.closed.set()
        with cast(Any, self.lock):
            self._erase()
            self.terminal = False
        super().close()

    def _text(self, record: Any) -> str | None:
        event = str(getattr(record, "event", None) or "")
        match event:
            case "job_info" if self.dry:
                return "  ".join(filter(None, [record.rule_name, _some(record.output), _kinds(record.reason)]))
            case "job_info":
                self.jobs[record.jobid] = record
            case "job_finished":
                self.ended = record.job_id
            case "progress":
                self.done, self.total = record.done, record.total
                return self._line_of_ended(record.created)
            case "job_error":
                self.failed[record.jobid] = self.jobs.pop(record.jobid, record)
                return _failure(_name(self.failed[record.jobid]), record)
            case "run_info":
                self.total, told, self.stats = record.stats["total"], self.stats, record.stats
                return record.getMessage() if self.dry and told != self.stats else None
            case "" | "error":
                message = record.getMessage()
                if message.startswith(ITS_CHECKPOINTS):
                    return CHECKPOINTS
                if message.startswith(COMMAND_FAILED):
                    return None
                if message.startswith("Exiting because a job execution failed") and self.failed:
                    return self._all_failures()
                return message if record.levelno >= logging.ERROR or not message.startswith(ITS_OWN) else None
            case _ if event not in UNSHOWN:
                return self.default.format(record)
        return None

    def _line_of_ended(self, now: float) -> str | None:
        job = self.jobs.pop(self.ended, None)
        self.failed.pop(self.ended, None)  # tried again, with success
        if job is None or not job.log:  # a target, which only names files
            return None
        return f"{self.done} of {self.total}  {_name(job)}  {_duration(now - job.created)}"

    def _all_failures(self) -> str:
        failed = [f"    {_name(job)}: {_some(job.log)}" for job in self.failed.values()]
        return "\n".join([f"{len(failed)} failed, see above:", *failed])

    def _coloured(self, text: str, level: int) -> str:
        coloured = level > logging.INFO and not getattr(self.default, "nocolor", True)
        return f"{RED}{text}{PLAIN}" if coloured else text

    def _refresh(self) -> None:
        while not self.closed.wait(1):
            with cast(Any, self.lock):
                self._erase()
                self._draw()
                self.stream.flush()

    def _erase(self) -> None:
        if self.drawn:
            up = f"\x1b[{self.drawn - 1}A" if self.drawn > 1 else ""
            self.stream.write(f"\r{up}\x1b[J")
        self.drawn = 0

    def _draw(self) -> None:
        if not (self.terminal and self.jobs):
            return
        now, width = time.time(), shutil.get_terminal_size().columns - 1
        full = 24 * self.done // max(1, self.total)
        bar = "#" * full + "." * (24 - full)
        lines = [f"[{bar}] {self.done} of {self.total} jobs  {_duration(now - self.began)}"]
        jobs = list(self.jobs.values())
        lines += [f"  {_name(job)}  {_duration(now - job.created)}  {_last_words(job)}" for job in jobs[:SHOWN_JOBS]]
        if len(jobs) > SHOWN_JOBS:
            lines.append(f"  and {len(jobs) - SHOWN_JOBS} more")
        self.stream.write("\n".join(line[:width] for line in lines))
        self.drawn = len(lines)


def _name(job: Any) -> str:
    """The rule of a job and what it works on."""
    return " ".join([job.rule_name, *(value for key, value in getattr(job, "wildcards", {}).items() if key != "study")])


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return f"{paths[0]}{more}" if paths else ""


def _kinds(reason: str) -> str:
    """Of Snakemake's reasons the kinds, without the lists of files."""
    kinds = "; ".join(dict.fromkeys(part.partition(":")[0].strip() for part in reason.split(";")))
    return f"({kinds})" if kinds else ""


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def _failure(name: str, record: Any) -> str:
    """What the log of a job that failed ends with, where it is, and the command to paste."""
    lines = [f"Error in rule {name}:"]
    if record.rule_msg:
        lines.append(f"    {record.rule_msg}")
    lines += [f"    {name}: {value}" for name, value in record.aux.items()]
    for log in record.log:
        lines += [f"    | {line}" for line in _lines_of(log, 100_000)[-SHOWN_LINES:]] or [f"    {log} holds nothing"]
    if record.log:
        lines.append(f"    log: {', '.join(record.log)}")
    if record.shellcmd:
        lines.append(f"    command: {record.shellcmd}")
    return "\n".join(lines)


def _last_words(job: Any) -> str:
    """The last line of a running job's log, a progress bar in long jobs; nothing while an older one is there."""
    if not job.log or not os.path.exists(job.log[0]) or os.path.getmtime(job.log[0]) < job.created:
        return ""
    return next(reversed(_lines_of(job.log[0], 4_000)), "")


def _lines_of(path: str, size: int) -> list[str]:
    """Lines of the last `size` bytes of a file, of a progress bar its last state; none where there is no such file."""
    try:
        with Path(path).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    lines = (line.rstrip("\r").rpartition("\r")[2].rstrip() for line in text.split("\n"))
    return [line for line in lines if line]

"""What a run shows: a line a job, faults in full, on a terminal what runs now; all else in the log alone."""

import io
import logging
import os
import time
from types import SimpleNamespace

import pytest

from lossmap.study.console import CHECKPOINTS, Console, install

TABLE = "results/s/a.csv"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def settings(**asked):
    return SimpleNamespace(**{"printshellcmds": False, "verbose": False, "debug_dag": False, "dryrun": False} | asked)


@pytest.fixture
def terminal(logger, monkeypatch):
    """The console of a logger that writes to a terminal of 80 columns; it is drawn at events alone."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    [stream] = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    stream.stream = Terminal()
    install(logger, settings())
    console_of(logger).closed.set()
    return console_of(logger)


@pytest.fixture
def logger(monkeypatch):
    """A logger with the handlers that Snakemake gives its own, at a time that stands still."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    made = logging.Logger("snakemake")
    for name in ("DefaultStreamHandler", "DefaultLogFileHandler"):
        handler = logging.StreamHandler(io.StringIO())
        handler.name = name
        made.addHandler(handler)
    yield made
    for handler in made.handlers:
        handler.close()


def event(logger, kind, message=None, level=logging.INFO, **fields):
    logger.log(level, message, extra={"event": kind, **fields})


def job(logger, number, rule="extract", log=("a.log",), reason="", **wildcards):
    fields = {"jobid": number, "rule_name": rule, "output": [TABLE, "b"], "log": list(log), "reason": reason}
    event(logger, "job_info", wildcards=wildcards, **fields)


def finish(logger, number, done, total):
    event(logger, "job_finished", job_id=number)
    event(logger, "progress", done=done, total=total)


def fail(logger, number, log, message=None):
    fields = {"jobid": number, "rule_name": "extract", "log": [str(log)], "shellcmd": "python -m lossmap extract"}
    event(logger, "job_error", level=logging.ERROR, rule_msg=message, aux={"slurm_jobid": 7}, **fields)


def console_of(logger) -> Console:
    [found] = [handler for handler in logger.handlers if isinstance(handler, Console)]
    return found


def test_a_finished_job_is_one_line_and_a_target_none(logger):
    install(logger, settings())
    job(logger, 4, study="s", dataset="photos", model="m")
    job(logger, 5, rule="all", log=())
    finish(logger, 4, 1, 2)
    finish(logger, 5, 2, 2)
    assert console_of(logger).stream.getvalue() == "1 of 2  extract photos m  0:00\n"


def test_what_snakemake_says_of_itself_is_left_out_and_all_else_is_not(logger):
    install(logger, settings())
    for message in ("Building DAG of jobs...", "Provided cores: 2", "Select jobs to execute..."):
        logger.info(message)
    logger.warning("Workflow defines that rule extract is eligible for caching")
    event(logger, "workflow_started", "Workflow has started!")
    logger.info("Nothing to be done")
    logger.error("Building DAG of jobs... failed")
    event(logger, "error", "MissingInputException in rule a", logging.ERROR)
    event(logger, "error", "RuleException:\nCalledProcessError in file x: a command of 6,000 characters", logging.ERROR)
    lines = console_of(logger).stream.getvalue().splitlines()
    assert lines == ["Nothing to be done", "Building DAG of jobs... failed", "MissingInputException in rule a"]


def test_a_failed_job_shows_the_end_of_its_log_and_its_command_and_is_named_at_the_end(logger, tmp_path):
    install(logger, settings())
    log = tmp_path / "x.log"
    log.write_text("line\n" * 100 + " 10%|#\r 20%|##\r\n\nerror: an image is damaged\n  - its name\n")
    job(logger, 1, dataset="photos")
    fail(logger, 1, log, "out of memory")
    logger.error("Exiting because a job execution failed. Look above for error messages")
    lines = console_of(logger).stream.getvalue().splitlines()
    assert lines[:3] == ["Error in rule extract photos:", "    out of memory", "    slurm_jobid: 7"]
    assert lines[3:60] == ["    | line"] * 57
    assert lines[60:63] == ["    |  20%|##", "    | error: an image is damaged", "    |   - its name"]
    assert lines[63:65] == [f"    log: {log}", "    command: python -m lossmap extract"]
    assert lines[65:] == ["1 failed, see above:", "    extract photos: a.log"]


def test_a_log_without_a_word_is_said_to_be_so(logger, tmp_path):
    install(logger, settings())
    fail(logger, 1, tmp_path / "none.log")
    assert f"    {tmp_path / 'none.log'} holds nothing\n" in console_of(logger).stream.getvalue()


def test_a_job_that_succeeds_at_its_second_try_did_not_fail(logger, tmp_path):
    install(logger, settings())
    job(logger, 1)
    fail(logger, 1, tmp_path / "x.log")
    job(logger, 1)
    finish(logger, 1, 1, 1)
    assert console_of(logger).failed == {}


def test_a_dry_run_lists_each_job_with_its_output_and_the_kinds_of_its_reasons(logger):
    install(logger, settings(dryrun=True))
    event(logger, "run_info", "total 1", stats={"total": 1})
    job(logger, 1, reason="Missing output files: results/a, results/b; Input files updated by another job: c")
    event(logger, "run_info", "total 1", stats={"total": 1})
    assert console_of(logger).stream.getvalue().splitlines() == [
        "total 1",
        f"extract  {TABLE} and 1 more  (Missing output files; Input files updated by another job)",
    ]


def test_a_dry_run_that_reads_a_dataset_says_that_it_lists_more_than_may_run(logger):
    install(logger, settings(dryrun=True))
    logger.info("The run involves checkpoint jobs, which will result in alteration of the DAG of jobs.")
    assert console_of(logger).stream.getvalue() == CHECKPOINTS + "\n"


@pytest.mark.parametrize("asked", ["printshellcmds", "verbose", "debug_dag"])
def test_who_asks_for_more_gets_snakemakes_console(logger, asked):
    before = list(logger.handlers)
    install(logger, settings(**{asked: True}))
    assert logger.handlers == before


def test_the_runs_log_holds_commands_unasked(logger):
    [log] = [handler for handler in logger.handlers if handler.name == "DefaultLogFileHandler"]
    log.addFilter(SimpleNamespace(printshellcmds=False, filter=lambda record: True))
    install(logger, settings())
    assert log in logger.handlers
    assert log.filters[0].printshellcmds is True


def test_what_snakemake_was_told_to_be_quiet_about_stays_unsaid(logger):
    [stream] = [handler for handler in logger.handlers if handler.name == "DefaultStreamHandler"]
    stream.addFilter(lambda record: getattr(record, "event", None) != "progress")
    install(logger, settings())
    job(logger, 1)
    finish(logger, 1, 1, 1)
    assert console_of(logger).stream.getvalue() == ""


def test_a_terminal_shows_a_bar_and_the_last_words_of_what_runs(logger, terminal, tmp_path):
    log = tmp_path / "x.log"
    log.write_text("start\n 10%|#\r 20%|##" + "#" * 99)
    job(logger, 1, dataset="a")
    finish(logger, 1, 1, 4)
    job(logger, 2, log=[str(log)], dataset="b")
    bar, running = terminal.stream.getvalue().splitlines()[-2:]
    assert bar == "[######..................] 1 of 4 jobs  0:00"
    assert running == "  extract b  0:00   20%|" + "#" * 55
    assert len(running) == 79
    os.utime(log, (0, 0))  # of an earlier run
    logger.warning("attention")
    above, _, below = terminal.stream.getvalue().rpartition("\x1b[1A\x1b[J")[2].partition("\n")
    assert above == "attention"
    assert below == "[######..................] 1 of 4 jobs  0:00\n  extract b  0:00  "
    terminal.close()
    assert terminal.stream.getvalue().endswith("\r\x1b[1A\x1b[J")


def test_many_jobs_that_run_take_few_lines(logger, terminal):
    for number in range(100):
        job(logger, number)
    lines = terminal.stream.getvalue().rpartition("\x1b[J")[2].splitlines()
    assert len(lines) == 10
    assert lines[-1] == "  and 92 more"

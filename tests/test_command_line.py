"""One command per step; a fault that a user can mend is one line, and the exit status says so."""

import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
from small_study import ROOT

from lossmap import __main__ as command_line
from lossmap.errors import LossmapError


@pytest.fixture
def step(monkeypatch):
    """A step of its own, and what it was called with."""
    calls = []

    def run(*, table: Path, parts: list[Path], spec: dict, revision: str | None = None, threads: int = 1) -> None:
        """Do something.

        spec: anything.
        """
        calls.append({"table": table, "parts": parts, "spec": spec, "revision": revision, "threads": threads})
        if spec.get("fault"):
            raise spec_fault(spec["fault"])

    def spec_fault(name):
        faults = {
            "user": LossmapError("a.json: broken. Mend it."),
            "disk": OSError(28, "No space left on device", "x.parquet"),
            "bug": RuntimeError("a bug"),
        }
        return faults[name]

    monkeypatch.setitem(sys.modules, "lossmap.study.steps.try_it", types.SimpleNamespace(run=run))
    monkeypatch.setattr(command_line, "step_names", lambda: ["try_it"])
    return calls


def call(spec, *more):
    return command_line.main(["try_it", "--table", "t.csv", "--parts", "a", "b", "--spec", json.dumps(spec), *more])


def test_options_come_from_the_signature(step):
    assert call({"k": [1]}, "--threads", "3") == 0
    assert step == [
        {"table": Path("t.csv"), "parts": [Path("a"), Path("b")], "spec": {"k": [1]}, "revision": None, "threads": 3}
    ]


def test_help_is_the_docstring(step, capsys):
    with pytest.raises(SystemExit):
        command_line.main(["try_it", "--help"])
    out = capsys.readouterr().out
    assert "Do something." in out
    assert "--parts PATH [PATH ...]" in out
    assert "--spec JSON" in out


def test_a_fault_of_the_input_is_printed_without_traceback(step, capsys):
    assert call({"fault": "user"}) == 1
    assert capsys.readouterr().err == "error: a.json: broken. Mend it.\n"


def test_a_full_disk_is_named(step, capsys):
    assert call({"fault": "disk"}) == 1
    assert "error: the disk is full at x.parquet" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(step):
    with pytest.raises(RuntimeError, match="a bug"):
        call({"fault": "bug"})


def without_reader(code, **streams):
    """A program of these lines, of whose output nobody reads anything."""
    reading, writing = os.pipe()
    os.close(reading)
    environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
    environment.pop("PYTHONUNBUFFERED", None)
    given = {"stdout": writing, "stderr": subprocess.PIPE, "env": environment, "text": True} | streams
    done = subprocess.run([sys.executable, "-c", code], check=False, **given)
    os.close(writing)
    return done


MAIN = "import sys; from lossmap.__main__ import main; sys.exit(main({}))"
STEP = """
import sys, types
from lossmap import __main__ as command_line
def run(*, lines: int = 1) -> None:
    "Print."
    {}
sys.modules["lossmap.study.steps.try_it"] = types.SimpleNamespace(run=run)
command_line.step_names = lambda: ["try_it"]
sys.exit(command_line.main(["try_it"]))
"""


@pytest.mark.parametrize("joined", [False, True], ids=["out", "out and err"])
@pytest.mark.parametrize(
    ("code", "status"),
    [
        (MAIN.format("['--help']"), 141),
        (MAIN.format("['init', '--help']"), 141),
        (STEP.format("print('much')"), 141),  # fits in the buffer: the fault shows as it is emptied
        (STEP.format("print('much ' * 100_000)"), 141),
        (STEP.format("print('much'); raise command_line.LossmapError('wrong')"), 141),
    ],
)
def test_a_reader_who_has_left_ends_a_command_quietly(code, status, joined):
    done = without_reader("import os; os.dup2(1, 2)\n" * joined + code)
    assert done.returncode == status
    assert done.stderr in ("", "error: wrong\n")


def test_a_reader_who_leaves_errors_alone_ends_a_command_quietly():
    code = STEP.format("print('much', file=sys.stderr, flush=True)")
    done = without_reader("import os; os.dup2(1, 2)\n" + code)
    assert (done.returncode, done.stderr) == (141, "")


def test_another_pipe_that_breaks_is_a_fault():
    code = STEP.format("raise BrokenPipeError(32, 'a process of ours has ended')")
    done = without_reader(code, stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert "BrokenPipeError: [Errno 32] a process of ours has ended" in done.stderr


def test_the_overview_takes_no_time():
    code = "import sys; from lossmap.__main__ import main\ntry: main([])\nexcept SystemExit: print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT / "workflow", capture_output=True, text=True, check=True
    )
    help_text, _, modules = done.stdout.strip().rpartition("\n")
    assert help_text.startswith("usage: lossmap [-h] COMMAND")
    assert not {"torch", "transformers", "pandas", "numpy", "yaml", "pydantic", "snakemake"} & set(modules.split())


def test_run_hands_all_that_it_is_given_to_snakemake(monkeypatch):
    called = []
    monkeypatch.setattr(os, "execv", lambda program, command: called.append(command))
    given = ["figure3", "--cores", "2", "--configfile", "my study.yaml", "-n", "--", "--threads"]
    command_line.main(["run", *given])
    assert called == [[sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *given]]


def test_an_unknown_step_lists_the_known_ones(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["extrct"])
    assert "extract" in capsys.readouterr().err


def test_an_option_that_may_be_left_out_can_hold_several_values():
    def run(*, table: Path, sizes: list[int] | None = None):
        """Some step."""

    parser = command_line.parser_of("some_step", run)
    given = parser.parse_args(["--table", "t.csv", "--sizes", "3", "40"])
    assert (given.table, given.sizes) == (Path("t.csv"), [3, 40])
    assert parser.parse_args(["--table", "t.csv"]).sizes is None

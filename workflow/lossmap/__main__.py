"""`lossmap <command> ...`: one command per step, made from the signature of the step's `run`."""

import argparse
import errno
import importlib
import inspect
import json
import os
import pkgutil
import select
import signal
import sys
import textwrap
import types
import typing

from lossmap.errors import LossmapError
from lossmap.study import steps
from lossmap.vlm.checkpoints import CHECKOUT

COMMANDS = {  # what people call; the other steps are called by the workflow's rules
    "init": "write a study of your own model and images",
    "plan": "tell what a study costs: images, disk, GPU memory, hours",
    "run": "run a study: Snakemake, with the workflow that is part of this package",
    "doctor": "print versions, devices and disk, and what is wrong with them",
    "verify": "check every byte of a store of embeddings",
    "simulate_coverage": "check by simulation how often the intervals cover",
    "write_reference": "write the pages on settings and columns, and the schema for editors",
    "train_zoo": "train a miniature model anew",
}
FULL = ("the disk is full", "Free space")
FAULTS_OF_DISKS = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EROFS: ("the disk is read-only", "Make it writable"),
    errno.EACCES: ("access is refused", "Mend the permissions"),
}


def step_names() -> list[str]:
    """The steps, by the name of their module."""
    return sorted(module.name for module in pkgutil.iter_modules(steps.__path__))


def overview() -> str:
    """The commands for people, a line each, and the names of all others. Imports no step: that takes seconds."""
    steps_of_rules = ", ".join(name for name in step_names() if name not in COMMANDS)
    return "\n".join(
        [
            "commands:",
            *(f"  {name:<18} {purpose}" for name, purpose in COMMANDS.items()),
            "",
            "steps of the workflow, each the rule of its name:",
            *textwrap.wrap(steps_of_rules, 100, initial_indent="  ", subsequent_indent="  "),
            "",
            "lossmap COMMAND --help explains a command or a step. The Snakefile, the default study (config.yaml),",
            f"profiles/slurm and docs/settings.md, which lists all settings, lie in {CHECKOUT}",
        ]
    )


def parser_of(step: str, run) -> argparse.ArgumentParser:
    """The command line of a step: each parameter of `run` is one option, typed by its annotation; a positional-only one
    is an argument without a name, and `*rest` what is left of the line, whatever it is."""
    parser = argparse.ArgumentParser(
        prog=f"lossmap {step}", description=inspect.getdoc(run), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    hints = typing.get_type_hints(run)
    for name, parameter in inspect.signature(run).parameters.items():
        kind, required = hints[name], parameter.default is inspect.Parameter.empty
        if typing.get_origin(kind) in (types.UnionType, typing.Union):  # "str | None": the option may be left out
            kind = next(choice for choice in typing.get_args(kind) if choice is not type(None))
        many = typing.get_origin(kind) is list
        kind = typing.get_args(kind)[0] if many else kind
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            parser.add_argument(name, type=kind, metavar=name.upper())
            continue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            parser.add_argument(name, nargs="*", metavar=name.upper())
            continue
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_reader(kind),
            nargs="+" if many else None,
            required=required,
            default=None if required else parameter.default,
            metavar="JSON" if _is_json(kind) else kind.__name__.upper(),
            help=None if required else f"default: {parameter.default}",
        )
    return parser


def _is_json(kind: type) -> bool:
    return kind is dict or hasattr(kind, "model_validate_json")


def _reader(kind: type):
    """How an option is read: settings are checked by what defines them, so that a job starts with all that it needs."""
    if not hasattr(kind, "model_validate_json"):
        return json.loads if kind is dict else kind

    def read(text: str):
        try:
            return kind.model_validate_json(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{kind.__name__}: {error}") from None

    return read


def read_options(step: str, run, arguments: list[str]) -> tuple[list, dict]:
    """What a step is called with: values without a name, and named ones."""
    kinds = {name: parameter.kind for name, parameter in inspect.signature(run).parameters.items()}
    asks_help = bool({"-h", "--help"} & set(arguments))
    if inspect.Parameter.VAR_POSITIONAL in kinds.values() and not asks_help:
        return arguments, {}  # options of another program
    options = vars(parser_of(step, run).parse_args(["--help"] if asks_help else arguments))
    unnamed = [options.pop(name) for name, kind in kinds.items() if kind is inspect.Parameter.POSITIONAL_ONLY]
    return unnamed, options


def main(arguments: list[str] | None = None) -> int:
    """Run one step.

    Returns: the exit status: 0; 1 for a fault that the user can mend (printed without traceback); 141 where the reader
        of what is printed has left, as `head` does: what a shell reports of a program that SIGPIPE ends.
    """
    try:
        try:
            return _main(sys.argv[1:] if arguments is None else arguments)
        finally:
            _flush()  # as the interpreter ends, it would be too late to see that the reader has left
    except BrokenPipeError:
        left = [stream for stream in (sys.stdout, sys.stderr) if _has_no_reader(stream)]
        if not left:  # another pipe broke, such as one to a process of ours
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in left:  # what is still in their buffers goes nowhere, without a second complaint
            os.dup2(nowhere, stream.fileno())
        return 128 + signal.SIGPIPE


def _flush() -> None:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError:  # a full disk: a step has told so, or the interpreter will as it ends
        pass


def _has_no_reader(stream: typing.TextIO) -> bool:
    try:
        number = stream.fileno()
    except (OSError, ValueError):  # not a file of the operating system
        return False
    poll = select.poll()
    poll.register(number, 0)  # errors are reported unasked
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _main(arguments: list[str]) -> int:
    top = argparse.ArgumentParser(
        prog="lossmap",
        description="What a vision-language model loses at its connector.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=overview(),
    )
    top.add_argument("step", choices=step_names(), metavar="COMMAND", help="a command or a step, see below")
    step = top.parse_args(arguments[:1] or ["--help"]).step
    run = importlib.import_module(f"lossmap.study.steps.{step}").run
    unnamed, options = read_options(step, run, arguments[1:])
    try:
        run(*unnamed, **options)
        sys.stdout.flush()  # so that a full disk is named
    except LossmapError as error:
        return _tell(str(error))
    except OSError as error:
        if error.errno not in FAULTS_OF_DISKS:
            raise
        fault, remedy = FAULTS_OF_DISKS[error.errno]
        place = f" at {error.filename}" if error.filename else ""
        return _tell(f"{fault}{place} ({error.strerror}). {remedy} and run again.")
    return 0


def _tell(fault: str) -> int:
    """Print a fault to stderr, which is the job's log; on a disk that takes no log either, to stdout."""
    try:
        print(f"error: {fault}", file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        print(f"error: {fault}", flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())

"""What a user can mend. Everything else is a bug, and keeps its traceback."""

import os

STUDY_FILE = "LOSSMAP_STUDY"  # environment variable


def study_file() -> str:
    """What a person edits to change a setting: the file, as the workflow that runs this code was given it."""
    return os.environ.get(STUDY_FILE, "the study's file")


class LossmapError(Exception):
    """A fault in the input, worded for the person who can mend it: what was found, where, and what to do.

    The command line prints it alone, without a traceback, and exits with status 1.
    """

    @classmethod
    def listing(cls, summary: str, problems: list[str], remedy: str, shown: int = 50) -> "LossmapError":
        """One error for many problems. summary: one line; problems: one line each; remedy: what to do about them."""
        lines = [f"  - {problem}" for problem in problems[:shown]]
        if len(problems) > shown:
            lines.append(f"  ... and {len(problems) - shown} more")
        return cls("\n".join([summary, *lines, remedy]))

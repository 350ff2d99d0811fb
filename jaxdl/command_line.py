"""A dataclass from the command line, whose mistakes are one line each.

tyro draws boxes of several lines around them. For programs, which print that line.
"""

import contextlib
import dataclasses
import io
import itertools
import re
import sys
import textwrap
from pathlib import Path
from typing import Any, TypeVar

import tyro

from jaxdl.errors import InputError

T = TypeVar("T")


def read(kind: type[T], description: str, **options: Any) -> T:
    """Reads a dataclass from the command line; `--help` ends the program.

    Args:
      kind: the dataclass. In its paths a leading ~ is the user's home, as no shell
        expands it in --option=~/folder.
      description: what `--help` begins with.
      **options: for `tyro.cli`, such as the name of the program.

    Raises:
      InputError: an option is unknown, missing or ill-typed.
    """
    if {"-h", "--help"} & set(sys.argv[1:]):
        # tyro would join the lines of a paragraph and not wrap them again.
        print(_wrapped(description), end="\n\n")
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return _at_home(tyro.cli(kind, description="", **options))
    except SystemExit as end:
        if end.code in (None, 0):  # --help
            raise
        raise InputError(_one_line(said.getvalue())) from None


def _at_home(value: Any) -> Any:
    if isinstance(value, Path):
        return value.expanduser()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        changed = {name: _at_home(getattr(value, name)) for name in fields}
        return dataclasses.replace(value, **changed)
    return value


def _wrapped(text: str) -> str:
    """The text with paragraphs of 80 columns; indented lines stay as they are."""
    return "\n\n".join(
        "\n".join(
            "\n".join(lines)
            if indented
            else textwrap.fill(" ".join(lines), 80, break_on_hyphens=False)
            for indented, lines in itertools.groupby(
                paragraph.splitlines(), lambda line: line.startswith(" ")
            )
        )
        for paragraph in text.strip().split("\n\n")
    )


def _one_line(box: str) -> str:
    """What tyro says in a box of several sections, as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", box)
    # A rule ends a section; the first, with a title in it, begins the box.
    sections = re.split(r"[─-]{3,}[╮╯+│| ]*\n", plain)[1:]
    said = []
    for section in sections:
        lines = [line.strip("│|╰+ ") for line in section.splitlines()]
        paragraph = itertools.takewhile(bool, lines)  # tyro's reasons follow a gap
        said.append(" ".join(paragraph).rstrip("."))
    return "; ".join(filter(None, said))

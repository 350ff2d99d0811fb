"""A report to hand out: Markdown with figures, and the same as one HTML file.

The HTML file carries its figures and styles within, so it can be mailed or put on a
server as it is. Both are in the folder of the study, beside the figures.
"""

import base64
import dataclasses
import html
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token
from matplotlib.figure import Figure

from experiments import cli
from jaxdl import plots, runs
from jaxdl.search.ablation import Effect

_STYLE = """
body { max-width: 52rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5;
  font-family: system-ui, sans-serif; color: #222; }
img { max-width: 100%; } code { background: #f3f3f3; padding: 0 0.2em; }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { border-bottom: 1px solid #ddd; padding: 0.3em 0.7em; vertical-align: top; }
"""


def write(
    folder: Path, text: str, figures: Mapping[str, Figure], name: str = "report"
) -> Path:
    """Writes `report.md`, `report.html` and `figures/<name>.png`; each whole or not.

    Args:
      folder: made where it is missing. Reports that are there are replaced.
      text: Markdown (CommonMark, with tables) that begins with "# title" and shows a
        figure as `![what it shows](figures/<name>.png)`.
      figures: by name.
      name: of both files, in the place of "report".

    Returns:
      The path of the HTML file.

    Raises:
      InputError: the folder or a file cannot be written.
    """
    runs.make_folder(folder / "figures")
    for title, figure in figures.items():
        plots.save(figure, folder / "figures" / f"{title}.png")
    runs.write_text(folder / f"{name}.md", text)
    page = folder / f"{name}.html"
    runs.write_text(page, _page(text, folder))
    return page


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table. A "|" in a cell is escaped; a None is an empty cell."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def plain(text: str) -> str:
    """Text of others (names of files, errors) for Markdown that shows it as it is."""
    return re.sub(r"([\\`*_\[\]<>&])", r"\\\1", text)


def share(effect: Effect) -> str:
    """A share and its interval, within 0 and 1, as 98.20% [98.00%, 98.40%]."""
    low, high = max(0.0, effect.low), min(1.0, effect.high)
    return f"{effect.mean:.2%} [{low:.2%}, {high:.2%}]"


def points(effect: Effect, *, sign: bool = True) -> str:
    """A difference of shares and its interval in points, as +0.12 [-0.10, +0.34].

    Args:
      effect: of shares in [0, 1].
      sign: whether a plus is shown.
    """
    mean, low, high = (100 * x for x in effect)
    plus = "+" if sign else ""
    return f"{mean:{plus}.2f} [{low:{plus}.2f}, {high:{plus}.2f}]"


def command(experiment: str) -> str:
    """The command line of this process, for a shell."""
    return shlex.join(["python", "-m", f"experiments.{experiment}", *sys.argv[1:]])


def anew(experiment: str, config: Any) -> str:
    """The command line that does a study anew, whether or not it was stopped.

    Args:
      experiment: its module.
      config: its settings, a flat dataclass; those that are as usual are left out, and
        so are those that may change when it goes on (`cli.FREE`).
    """
    words = ["python", "-m", f"experiments.{experiment}"]
    for field in dataclasses.fields(config):
        value, usual = getattr(config, field.name), field.default
        if field.name in cli.FREE or value == usual:
            continue
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, tuple):
            words += [option, *map(str, value)]
        else:
            words.append(f"{option}={value}")
    return shlex.join(words)


def provenance(command: str, data: str, seconds: float) -> str:
    """The sentence that says how, on what and from which data figures have come."""
    versions = runs.versions()
    return (
        f"Computed by `{command}` in {seconds:.0f} s on {runs.device_name()}; "
        f"Python {versions['python']}, jax {versions['jax']}, jaxdl "
        f"{versions['jaxdl']}. Data: {data}."
    )


def _page(text: str, folder: Path) -> str:
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(text)
    for token in tokens:
        for child in token.children or ():
            if child.type == "image":
                _embed(child, folder)
    title = text.partition("\n")[0].lstrip("# ")
    body = markdown.renderer.render(tokens, markdown.options, {})
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n{body}</html>\n"
    )


def _embed(image: Token, folder: Path) -> None:
    source = folder / str(image.attrs["src"])
    encoded = base64.b64encode(source.read_bytes()).decode()
    image.attrs["src"] = f"data:image/png;base64,{encoded}"


def _cell(value: object) -> str:
    return "" if value is None else str(value).replace("|", "\\|").replace("\n", " ")

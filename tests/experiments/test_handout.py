"""Reports to hand out: the Markdown, and the HTML file that carries its figures."""

import base64
import dataclasses
import re
from html.parser import HTMLParser

import pytest
from matplotlib.figure import Figure

from experiments import handout, search
from jaxdl.errors import InputError

TEXT = f"""# Bits & pieces

A sentence with 1 < 2.

![a line](figures/line.png)

{handout.table(["name", "P(a|b)"], [["x", 0.5], ["y|z", None]])}
"""


def line() -> Figure:
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    return figure


class Seen(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_data(self, data) -> None:
        if self.cells:
            self.cells[-1] += data


def test_the_page_carries_what_the_markdown_names(tmp_path) -> None:
    page = handout.write(tmp_path / "study", TEXT, {"line": line()})
    assert (page.parent / "report.md").read_text() == TEXT
    text = page.read_text()
    assert re.search("<title>Bits &amp; pieces</title>", text)
    seen = Seen(text)
    [image] = seen.images
    head, _, encoded = image.partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(encoded) == (page.parent / "figures/line.png").read_bytes()
    cells = [cell.strip() for cell in seen.cells]
    assert cells == ["name", "P(a|b)", "x", "0.5", "y|z", ""]


@pytest.mark.parametrize(
    "text",
    [
        "TypeError: __init__() got *args*, <unknown> & `x`",
        "<script>alert(1)</script>",
        "![a](figures/gone.png) [b](https://example.org)",
        r"C:\_runs\[1]|&lt;",
    ],
)
def test_text_of_others_is_shown_as_it_is(tmp_path, text) -> None:
    table = handout.table(["error"], [[handout.plain(text)]])
    page = handout.write(tmp_path, f"# Title\n\n{table}\n", {}).read_text()
    seen = Seen(page)
    assert [cell.strip() for cell in seen.cells] == ["error", text]
    assert not seen.images and "<script" not in page and "<em>" not in page


def test_html_in_the_text_is_no_html(tmp_path) -> None:
    page = handout.write(tmp_path, "# A\n\n<script>alert(1)</script>\n", {})
    assert "<script" not in page.read_text()


def test_writing_again_replaces(tmp_path) -> None:
    handout.write(tmp_path, TEXT, {"line": line()})
    page = handout.write(tmp_path, "# Other\n", {})
    assert "<h1>Other</h1>" in page.read_text()
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_made_is_refused(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="--out"):
        handout.write(tmp_path / "file" / "study", TEXT, {})


def test_the_command_of_a_study_has_its_settings_and_not_its_place() -> None:
    usual = search.Config()
    assert handout.anew("search", usual) == "python -m experiments.search"
    config = dataclasses.replace(
        usual,
        space=("hidden=8|16", "dropout=0:0.5"),
        rungs=(1, 2),
        sampler="grid",
        validation=100,
        name="mine",
        resume=True,
    )
    assert handout.anew("search", config) == (
        "python -m experiments.search --space 'hidden=8|16' dropout=0:0.5 "
        "--sampler=grid --rungs 1 2 --validation=100"
    )


def test_provenance_names_command_data_and_device() -> None:
    said = handout.provenance("python -m experiments.logistic", "digits", 61.4)
    for part in ("`python -m experiments.logistic`", "61 s", "digits", "cpu", "jax "):
        assert part in said

import dataclasses
import json

import pytest

from benchmarks import measure, report
from benchmarks.cases import Network
from benchmarks.measure import Measured
from benchmarks.report import Report

NET = Network("lenet5", None, 100)


def outcome(more_is_better=True):
    return Report(
        command="step",
        data="synthetic",
        unit="images/s" if more_is_better else "seconds",
        figures=lambda one: [
            one.case.batch / s if more_is_better else s for s in one.seconds
        ],
        measured=[
            Measured(NET, "jaxdl", [1.0, 0.5, 1.0], versions={"jax": "9"}),
            Measured(NET, "torch nchw", [2.0, 2.0, 2.0]),
            Measured(NET, "torch nhwc", [4.0, 1.0, 4.0]),
            Measured(NET, "torch compile", failed="does not compile"),
            Measured(NET, "flax+cure", [10.0, 10.0, 10.0]),
        ],
        more_is_better=more_is_better,
        notes=["a note"],
    )


@pytest.mark.parametrize("more_is_better", [True, False])
def test_ratios_are_by_round_and_against_the_best(more_is_better):
    found = report.table(outcome(more_is_better))
    ratios = found[found.index("| times better") :].splitlines()[2]
    cells = [cell.strip() for cell in ratios.strip("|").split("|")]
    # Against nchw, whose median is better, though nhwc was once the fastest.
    assert cells == ["lenet5, batch 100", "2 [2, 4]", "10 [10, 20]"]


def test_the_best_of_several_names_counts():
    both = dataclasses.replace(outcome(), against={"all": ("flax", "torch n")})
    ratios = report.table(both).partition("| times better")[2].splitlines()
    assert ratios[0].split(" | ")[1].strip(" |") == "jaxdl : all"
    assert ratios[2].strip("| ").split(" | ")[1] == "2 [2, 4]"


@pytest.mark.parametrize(
    "rivals",
    [
        measure.RIVALS,
        measure.EPOCH_RIVALS,
        measure.HVP_RIVALS,
        measure.SEARCH_RIVALS,
    ],
)
def test_every_rival_has_a_colour_of_its_own(rivals):
    colours = {report.colour(name) for name in rivals}
    assert len(colours) == len(rivals) and report.colour("unknown") not in colours


def test_pictures_name_the_data_and_a_rival_keeps_its_colour(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr("jaxdl.plots.save", lambda figure, _: drawn.append(figure))
    report.save(outcome(), tmp_path, "all")
    fewer = [one for one in outcome().measured if one.rival != "jaxdl"]
    report.save(dataclasses.replace(outcome(), measured=fewer), tmp_path, "fewer")
    found = [
        {
            bars.get_label(): bars.lines[0].get_color()
            for bars in figure.axes[0].containers
        }
        for figure in drawn
    ]
    assert all("synthetic" in figure.axes[0].get_title() for figure in drawn)
    assert len(found[1]) == 4 and found[1].items() < found[0].items()


def test_the_table_says_where_with_what_and_why_not():
    found = report.table(outcome())
    for text in ("cpu: ", "cores: ", "jax 9", "data: synthetic", "a note", "failed"):
        assert text in found
    assert "lenet5, batch 100, torch compile: does not compile" in found
    assert "100 [100, 200]" in found


def test_files(tmp_path):
    paths = report.save(outcome(), tmp_path, "step-here")
    assert [path.name for path in paths] == ["step-here.json", "step-here.png"]
    stored = json.loads(paths[0].read_text())
    assert stored["results"][0]["seconds"] == [1.0, 0.5, 1.0]
    assert stored["results"][0]["figures"] == [100, 200, 100]
    assert stored["results"][3]["failed"] == "does not compile"
    assert paths[1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234567, "1,234,567"), (0.51234, "0.512"), (99.96, "100"), (float("nan"), "-")],
)
def test_numbers_have_three_digits(value, text):
    assert report.number(value) == text

import json

import pytest

from benchmarks import report
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

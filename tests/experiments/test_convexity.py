"""The study of convexity: its verdicts, its files, and certificates read back."""

import json
import math
import re
import shutil

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from experiments import convexity_certificates as certificates
from experiments import convexity_report, convexity_text
from experiments import convexity_table as table
from experiments.convexity_findings import answer
from jaxdl import separation
from jaxdl.convexity import spectrum
from jaxdl.convexity.problems import PROBLEMS

SMALL = ("--starts=1", "--epochs=1", "--images=40", "--steps=4", "--probes=2")
CONVEX = {
    *("logistic on logits", "softmax", "linear + MSE", "linear + CE", "hinge"),
    "Huber",
}


@pytest.fixture
def study(runs_dir, invoke):
    """Folder of a small study, made once; what it printed lies beside it."""
    path = runs_dir / "convexity" / "small"
    if not path.exists():
        done = invoke("convexity", *SMALL, f"--out={runs_dir}", "--name=small")
        assert done.code == 0, done
        (runs_dir / "convexity.txt").write_text(done.out)
    return path


def test_every_verdict_is_the_known_one(study):
    result = json.loads((study / "result.json").read_text())
    verdicts = {one["name"]: one["verdict"] for one in result["losses"]}
    assert verdicts == {
        name: "convex" if name in CONVEX else "not convex" for name in PROBLEMS
    }
    assert result["answer"] == {
        "mse": "one layer: convex; two or three layers: not convex",
        "cross_entropy": "one layer: convex; two or three layers: not convex",
        "whole": "The statement is refuted: depth decides, not the choice of the loss",
    }
    for one in result["losses"]:
        tiny = 1e-6 * one["largest"]
        assert one["smallest"] < -1e-3 if one["gap"] else one["smallest"] >= -tiny


def test_cross_entropy_is_trained_where_it_has_a_minimum():
    table = load_breast_cancer()
    assert not separation.separable(table.data[:, :10], table.target)


def test_deep_linear_networks_reach_the_global_minimum(study):
    result = json.loads((study / "result.json").read_text())
    trained = [(one["loss"], one["depth"]) for one in result["deep_linear"]]
    assert trained == [("MSE", 2), ("MSE", 3), ("CE", 2), ("CE", 3)]
    for one in result["deep_linear"]:
        rounding = 1e-8 if one["loss"] == "MSE" else 1e-6  # CE is in float32
        assert max(map(abs, one["final_gaps"])) < rounding * one["minimum"]
        assert one["smallest_eigenvalue"] > -rounding * one["largest_eigenvalue"]
        assert one["zero_eigenvalues"] == one["flat_directions"] > 0


def test_the_networks_are_curved_both_ways(study):
    result = json.loads((study / "result.json").read_text())
    start, trained = result["networks"]
    assert trained["loss"] < start["loss"] / 2
    assert start["parameters"] == 61_706
    for one in result["networks"]:
        assert one["smallest"] < 0 < one["largest"]
        assert one["gauss_newton_smallest_node"] > -1e-5 * one["largest"]


def test_one_probe_has_no_standard_error_and_no_nan():
    found = spectrum.Estimate(2.5, math.nan)
    record = convexity_report._estimate(found)
    assert json.dumps(record, allow_nan=False) == (
        '{"value": 2.5, "standard_error": null}'
    )
    assert convexity_text._plus_minus(*found) == "2.5"


def test_the_report_shows_all_it_names(study, runs_dir):
    text = (study / "report.md").read_text()
    for figure in re.findall(r"\]\((figures/.*?)\)", text):
        assert (study / figure).stat().st_size > 10_000
    for said in ("breast cancer", "mnist_embedded", "digits", "refuted", *PROBLEMS):
        assert said in text
    printed = (runs_dir / "convexity.txt").read_text()
    assert "linear + CE" in printed and "The statement is refuted" in printed
    assert not re.search(r"\bnan\b", text)
    page = (study / "report.html").read_text()
    assert page.count("data:image/png;base64") == 4


def test_certificates_hold_when_read_back(study, invoke):
    done = invoke("convexity", f"--check={study}")
    assert done.code == 0 and done.err == ""
    lines = dict(line.split(": ", 1) for line in done.out.splitlines())
    assert lines.keys() == PROBLEMS.keys()
    for name, line in lines.items():
        assert line.startswith(
            "convex, by a" if name in CONVEX else "not convex: f(mid"
        )


def tampered(study, tmp_path, change):
    """A copy of the study whose certificates were changed."""
    shutil.copy(study / certificates.FILE, tmp_path)
    path = tmp_path / certificates.FILE
    stored = json.loads(path.read_text())
    change(stored)
    path.write_text(json.dumps(stored))
    return tmp_path


def swap(stored):
    """A proof and a witness, of losses that they do not fit."""
    losses = stored["losses"]
    losses["deep linear 2 + CE"] = losses["softmax"]  # computed in other steps
    losses["softmax"] = {
        "verdict": "not convex",
        "a": [["0x0p+0"] * 2, ["0x1p+0"] * 60],
        "b": [["0x0p+0"] * 2, ["-0x1p+0"] * 60],
    }


def drop(stored):
    del stored["losses"]["linear + MSE"]["steps"][3]
    stored["losses"]["hinge"] = {"verdict": "convex", "steps": "none"}


def leave_out(stored):
    """What claims nothing is no claim that fails."""
    losses = stored["losses"]
    del losses["softmax"]
    losses["hinge"]["verdict"] = "proven"
    losses["Huber"] = {"verdict": "undecided", "tried": "nothing"}


def damage(stored):
    losses = stored["losses"]
    losses["linear + MSE"]["steps"][0]["factors"] = [["1/0"]]
    losses["ReLU network"]["a"][0][0] = "nan"


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (swap, {"deep linear 2 + CE", "softmax"}),
        (drop, {"linear + MSE", "hinge"}),
        (leave_out, {"softmax", "hinge"}),
        (damage, {"linear + MSE", "ReLU network"}),
    ],
)
def test_false_certificates_fail(study, tmp_path, invoke, change, failing):
    done = invoke("convexity", f"--check={tampered(study, tmp_path, change)}")
    assert done.code == 1
    assert done.err == "error: 2 certificates do not hold\n"
    lines = dict(line.split(": ", 1) for line in done.out.splitlines())
    assert {name for name in lines if lines[name].startswith("FAILED")} == failing


def test_certificates_about_other_data_are_refused(study, tmp_path, invoke):
    path = tampered(study, tmp_path, lambda stored: stored.update(digest="0"))
    done = invoke("convexity", f"--check={path}")
    assert done.code == 2 and "run the study anew" in done.err


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (None, "has no object 'losses'"),
        ([], "has no object 'losses'"),
        ({"x": {}}, "'x'"),
    ],
)
def test_what_holds_no_certificates_is_refused(tmp_path, invoke, losses, said):
    stored = {"digest": certificates.digest(), "losses": losses}
    (tmp_path / certificates.FILE).write_text(json.dumps(stored))
    done = invoke("convexity", f"--check={tmp_path}")
    assert done.code == 2 and done.out == "" and done.err.count("\n") == 1
    assert said in done.err


def test_a_folder_that_cannot_be_made_is_refused_before_the_work(invoke, tmp_path):
    (tmp_path / "file").touch()
    done = invoke("convexity", f"--out={tmp_path}/file")
    assert done.code == 2 and done.out == "" and "choose another with --out" in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--images=0"], "--images must be at least 1, not 0"),
        (["--images=20000"], "--images must be at most 9000, the training images of"),
        (["--starts=-1"], "--starts must be at least 1, not -1"),
        (["--steps=1"], "--steps must be at least 2"),
        (["--seed=-1"], "--seed must be at least 0 and below 2**32, not -1"),
        (["--name=a/b"], "--name must be a plain folder name, not 'a/b'"),
        (["--run=nowhere"], "nowhere is not a run"),
        (["--check=nowhere"], "nowhere is not a run"),
        (["--depth=3"], "--depth"),
    ],
)
def test_bad_input_is_one_line_and_code_2(invoke, tmp_path, options, said):
    done = invoke("convexity", *options, f"--out={tmp_path}")
    assert done.code == 2 and done.out == ""
    assert done.err.count("\n") == 1 and said in done.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changed", "whole"),
    [
        ({}, "The statement is refuted: depth decides, not the choice of the loss"),
        ({"linear + CE": "undecided"}, "The statement is refuted"),
        (
            {"linear + CE": "not convex", "deep linear 2 + MSE": "undecided"},
            "The statement is refuted",
        ),
        (
            {
                "linear + CE": "undecided",
                "deep linear 2 + MSE": "undecided",
                "deep linear 3 + MSE": "convex",
            },
            "This run does not decide the statement",
        ),
    ],
)
def test_the_answer_follows_from_the_verdicts(changed, whole):
    known = {n: "convex" if n in CONVEX else "not convex" for n in PROBLEMS}
    assert answer(known | changed).whole == whole


def test_points_survive_the_file_exactly():
    _, start = table.problem("softmax")
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.integers(-300, 300, 62)
    numbers = iter(rng.standard_normal(62) * scale)
    point = [
        {k: np.array([next(numbers) for _ in range(v.size)]).reshape(v.shape)}
        for layer in start
        for k, v in layer.items()
    ]
    merged = [{k: v for part in point for k, v in part.items()}]
    stored = json.loads(json.dumps(certificates._point(merged)))
    back = certificates._read_point(stored, start)
    for k, v in merged[0].items():
        np.testing.assert_array_equal(back[0][k], v)


def test_help_teaches_and_loads_no_jax(invoke, start):
    done = invoke("convexity", "--help")
    assert done.code == 0 and "python -m experiments.convexity --check" in done.out
    code = "import sys, experiments.convexity; print('jax' in sys.modules)"
    assert start("-c", code).communicate()[0].strip() == "False"


@pytest.mark.long
def test_a_stored_run_is_studied_too(invoke, mnist_run, tmp_path):
    done = invoke("convexity", *SMALL, f"--run={mnist_run}", f"--out={tmp_path}")
    assert done.code == 0, done
    [folder] = (tmp_path / "convexity").iterdir()
    networks = json.loads((folder / "result.json").read_text())["networks"]
    assert len(networks) == 3 and "fnn of" in networks[2]["title"]
    assert networks[2]["smallest"] < 0 < networks[2]["largest"]

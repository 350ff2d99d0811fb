"""The study of logistic regression: its data, its measurements and its report."""

import json
import re

import jax
import numpy as np
import pytest
from scipy.special import expit

from experiments import (
    logistic,
    logistic_data,
    logistic_fits,
    logistic_paths,
    logistic_report,
    verdicts,
)
from experiments.verdicts import Comparison
from jaxdl import separation
from jaxdl.errors import InputError


def rows(part, seed):
    return {row.tobytes() for row in part.features[seed]}


def test_parts_of_a_table_are_disjoint_stratified_and_standardised():
    x, y = logistic_data.breast_cancer()
    study = logistic_data.splits("cancer", x, y, seeds=2)
    parts = (study.train, study.validation, study.test)
    for seed in range(2):
        found = [rows(part, seed) for part in parts]
        assert sum(map(len, found)) == len(set.union(*found)) == len(y)
        for part in parts:
            assert abs(part.labels[seed].mean() - y.mean()) < 0.01
    np.testing.assert_allclose(study.train.features.mean(1), 0, atol=1e-12)
    np.testing.assert_allclose(study.train.features.std(1), 1)
    assert not np.array_equal(study.test.labels[0], study.test.labels[1])
    assert study.overlap == len(study.test.labels[0]) / len(study.train.labels[0])


@pytest.mark.parametrize("law", logistic_data.LAWS)
def test_labels_follow_the_law_and_seeds_share_nothing(law):
    study = logistic_data.generated(law, seeds=2, count=100, test=20_000)
    assert study.overlap == 0 and study.train.labels.shape == (2, 100)
    assert study.validation.labels.shape == (2, 50)
    assert not rows(study.test, 0) & rows(study.test, 1)
    for level in np.linspace(0.05, 0.85, 5):
        within = (study.truth >= level) & (study.truth < level + 0.1)
        if within.sum() > 500:
            gap = study.test.labels[within].mean() - study.truth[within].mean()
            assert abs(gap) < 4 * np.sqrt(0.25 / within.sum())


def test_laws_are_what_the_report_says():
    x = np.array([[0.3, -0.5, 0.1, 0.2, 0.9]])
    along = x.sum() / np.sqrt(5)
    wanted = {
        "logistic": expit(3 * along),
        "flipped labels": 0.9 * expit(6 * along) + 0.1 * expit(-6 * along),
        "curved": expit(3 * (0.3 + 0.25 - 1)),
    }
    for law, p in wanted.items():
        np.testing.assert_allclose(logistic_data.probability(law, x), p)


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_imbalance_is_of_the_ratio_and_parts_are_disjoint(ratio):
    study = logistic_data.imbalanced("n", logistic_data.two_normals, ratio, 2, keep=500)
    for seed in range(2):
        counts = np.bincount(study.train.labels[seed].astype(int))
        assert counts[0] == ratio * counts[1]
        for part in (study.validation, study.test):
            counts = np.bincount(part.labels[seed].astype(int))
            np.testing.assert_array_equal(counts, [2000, 500])
        found = [rows(p, seed) for p in (study.train, study.validation, study.test)]
        assert sum(map(len, found)) == len(set.union(*found))
    assert study.overlap == 0
    x = np.random.default_rng(0).normal(size=(2000, 2))
    table = logistic_data.imbalanced("t", lambda _: (x[:300], x[300:]), 10, 2, keep=50)
    assert table.overlap > 0


def test_planes_divide_what_they_are_said_to_divide():
    assert separation.separable(*logistic_data.three_or_eight())
    assert separation.separable(*logistic_data.breast_cancer())
    assert not separation.separable(*logistic_data.breast_cancer(10))
    assert not separation.separable(*logistic_data.odd_digits(4))
    assert separation.separable(*logistic_data.blobs(3))
    assert not separation.separable(*logistic_data.four_valleys(3))


def test_tuned_rates_come_from_the_tuning_seeds_alone():
    steps = np.full((3, 4, 6), 100)
    steps[1, 2, :4] = 10  # best for the seeds that tune
    steps[1, 3, 4:] = 1  # best for the others
    race = {"accuracy": steps}
    assert logistic_paths.rate(race, "zero", "accuracy") == 2
    np.testing.assert_array_equal(
        logistic_paths.steps(race, "zero", "accuracy"), [100, 100]
    )
    steps[2, 2, 4:] = 7
    found = logistic_paths.steps(race, logistic_paths.CARRIED, "accuracy")
    np.testing.assert_array_equal(found, [7, 7])


def test_weights_bring_a_part_to_a_ratio():
    labels = np.repeat([1.0, 0.0], [10, 30])
    weights = logistic_fits._reweighted(labels, 0.01)
    np.testing.assert_allclose(weights @ labels / weights.sum(), 0.01)


def test_a_shorter_training_set_is_what_weights_0_leave(monkeypatch):
    """The fit on the first 50 of 100 is that of a study that has no more."""
    monkeypatch.setattr(logistic_fits, "PENALTIES", np.array([0.01]))
    study = logistic_data.generated("logistic", seeds=2, count=100, test=30)
    short = study._replace(
        train=logistic_data.Part(*(leaf[:, :50] for leaf in study.train)),
        validation=logistic_data.Part(*(leaf[:, :25] for leaf in study.validation)),
    )
    with jax.enable_x64():
        masked = logistic_fits._test_logits("mse", study, 50)
        whole = logistic_fits._test_logits("mse", short, None)
    np.testing.assert_allclose(masked, whole, rtol=1e-6)


@pytest.mark.parametrize("loss", verdicts.LOSSES)
def test_each_seed_chooses_its_penalty_by_itself(loss):
    """What a seed validates on changes nothing for the others."""
    study = logistic_data.splits("c", *logistic_data.breast_cancer(3), seeds=2)
    labels = study.validation.labels.copy()
    labels[1] = 1 - labels[1]  # the most shrunk model is the best for these
    other = study._replace(validation=study.validation._replace(labels=labels))
    ones = np.ones((1, 1))
    with jax.enable_x64():
        found, changed = (
            logistic_fits.tuned(loss, one, ones, ones).weights for one in (study, other)
        )
    np.testing.assert_array_equal(found[0], changed[0])
    assert np.linalg.norm(changed[1]) < 0.5 * np.linalg.norm(found[1])


def test_reasons_name_what_is_better_and_where():
    values = {"cross_entropy": np.zeros(20), "mse": np.ones(20)}
    turned = {"cross_entropy": np.ones(20), "mse": np.zeros(20)}
    found = verdicts.judge(
        [
            Comparison("digits, odd", "log loss", values, matters=0.1),
            Comparison("cancer", "log loss", values, matters=0.1),
            Comparison("cancer", "Brier score", turned, matters=0.1),
        ]
    )
    said = logistic_report.because(found)
    assert "better in 2 of 3. In *log loss*: digits, odd; cancer." in said
    assert "Squared error is better in 1 of 3. In *Brier score*: cancer." in said
    table = logistic_report.comparison_table(found)
    assert "| cancer | Brier score | 1.0000 | 0.0000 | -1.0000" in table


SMALL = {
    logistic_fits: {
        "SIZES": (50, 60),
        "RATIOS": (1, 10),
        "PENALTIES": np.array([0.01, 0.1]),
    },
    logistic_paths: {
        "STEPS": 20,
        "RATES": 2.0 ** np.arange(2, 4),
        "START_COUNT": 4,
        "DESCENT": 64,
    },
}


@pytest.fixture
def quick_compiler():
    """Compiling is most of a small study's time."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def test_run_leaves_a_report_that_hangs_together(
    invoke, tmp_path, monkeypatch, quick_compiler
):
    for module, constants in SMALL.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    done = invoke("logistic", "--seeds=3", f"--out={tmp_path}", "--name=small")
    assert done.code == 0 and done.err == "", done.err
    folder = tmp_path / "logistic" / "small"
    assert f"Report: {folder / 'report.html'}" in done.out
    text = (folder / "report.md").read_text()
    page = (folder / "report.html").read_text()
    figures = re.findall(r"!\[[^]]+\]\(figures/(\w+)\.png\)", text)
    assert len(figures) == 8 == page.count("data:image/png;base64,")
    assert {path.stem for path in (folder / "figures").iterdir()} == set(figures)
    assert not re.search(r"\bnan\b|\binf\b", text)
    assert "--seeds=3" in text and "generated" in text

    result = json.loads((folder / "result.json").read_text())
    assert result["seeds"] == 3
    for claim, statement in zip(
        result["claims"], logistic_report.STATEMENTS, strict=True
    ):
        assert claim["statement"] == statement
        # The verdict follows from the values in the file, by the rule.
        stored = [
            Comparison(
                c["setting"],
                c["measure"],
                {loss: np.array(c["values"][loss]) for loss in verdicts.LOSSES},
                matters=c["matters"],
                higher_is_better=c["higher_is_better"],
                overlap=c["overlap"],
            )
            for c in claim["comparisons"]
        ]
        assert all(len(c.values["mse"]) == 3 for c in stored)
        found = verdicts.judge(stored)
        assert [one.finding for one in found] == [
            c["finding"] for c in claim["comparisons"]
        ]
        assert verdicts.verdict(found) == claim["verdict"]
        assert f"{statement} {claim['verdict'].capitalize()}." in done.out
        assert f"{statement} | **{claim['verdict']}**" in text

    # What mathematics says of the measurements, whatever the seeds.
    single = {c["setting"]: c for c in result["claims"][2]["comparisons"]}
    valleys = single["generated, four valleys"]["values"]
    assert set(valleys["cross_entropy"]) == {1.0} and np.mean(valleys["mse"]) < 1
    apart = single["digits, 3 or 8, without L2"]["values"]
    assert set(apart["cross_entropy"]) == set(apart["mse"]) == {0.0}

    before = (folder / "report.md").stat().st_mtime_ns
    again = invoke("logistic", "--seeds=3", f"--out={tmp_path}", "--name=small")
    assert again.code == 2 and "is there already" in again.err
    assert (folder / "report.md").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--seeds=1"], ["--seeds", "2", "1"]),
        (["--seeds=many"], ["--seeds", "'many'", "INT"]),
        (["--name=a/b"], ["--name", "a/b"]),
        (["--name=.."], ["--name", "'..'"]),
        (["--out=FILE"], ["FILE", "--out"]),
        (["--data=moons"], ["--data"]),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, parts, invoke, tmp_path):
    (tmp_path / "FILE").touch()
    arguments = [a.replace("=FILE", f"={tmp_path}/FILE") for a in arguments]
    done = invoke("logistic", f"--out={tmp_path}/runs", *arguments)
    assert done.code == 2 and done.out == ""
    assert done.err.startswith("error: ") and done.err.count("\n") == 1
    assert all(part in done.err for part in parts), done.err
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]


def test_a_killed_study_may_be_started_again(tmp_path):
    config = logistic.Config(out=tmp_path, name="again")
    assert logistic.folder(config) == logistic.folder(config)
    (tmp_path / "logistic" / "again" / "result.json").write_text("{}")
    with pytest.raises(InputError, match="--name"):
        logistic.folder(config)

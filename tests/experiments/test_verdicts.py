"""Intervals against SciPy, and the rule on constructed measurements."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from experiments import verdicts
from experiments.verdicts import Comparison, Evidence


def comparison(mean=0.0, spread=0.01, count=20, **options):
    """Gains of cross-entropy with that mean and standard deviation exactly."""
    noise = np.random.default_rng(0).normal(size=count)
    noise = (noise - noise.mean()) / noise.std(ddof=1)
    ours = np.random.default_rng(1).normal(size=count)
    values = {"cross_entropy": ours, "mse": ours + mean + spread * noise}
    return Comparison("data", "measure", values, **{"matters": 0.1} | options)


FOR, AGAINST = comparison(1.0), comparison(-1.0)
EQUAL, OPEN = comparison(0.0), comparison(0.5, spread=5.0)


def test_interval_is_that_of_the_paired_t_test():
    one = comparison(0.3, spread=0.4)
    [found] = verdicts.judge([one])
    test = scipy.stats.ttest_rel(one.values["mse"], one.values["cross_entropy"])
    np.testing.assert_allclose(
        (found.low, found.high), test.confidence_interval(0.95), rtol=1e-9
    )
    np.testing.assert_allclose([found.mean, found.effect], [0.3, 0.75])


def test_intervals_hold_together():
    many = [comparison(0.3, spread=0.4)] * 5
    found = verdicts.judge(many)[0]
    test = scipy.stats.ttest_rel(many[0].values["mse"], many[0].values["cross_entropy"])
    np.testing.assert_allclose(
        (found.low, found.high), test.confidence_interval(0.99), rtol=1e-9
    )


def test_overlapping_splits_widen_the_interval():
    fresh, overlapping = verdicts.judge(
        [comparison(0.3, spread=0.4), comparison(0.3, spread=0.4, overlap=0.6)]
    )
    ratio = (overlapping.high - 0.3) / (fresh.high - 0.3)
    np.testing.assert_allclose(ratio, np.sqrt((1 / 20 + 0.6) / (1 / 20)))


def test_measures_where_more_is_better_are_turned_round():
    one = comparison(1.0)
    other = Comparison("d", "m", one.values, matters=0.1, higher_is_better=True)
    assert [j.finding for j in verdicts.judge([one, other])] == ["for", "against"]


@pytest.mark.parametrize(
    ("one", "finding"),
    [
        (FOR, "for"),
        (AGAINST, "against"),
        (EQUAL, "equal"),
        (OPEN, "open"),
        (comparison(0.05, spread=1e-4), "equal"),  # sure, but too small to matter
        (comparison(0.0, spread=0.0), "equal"),  # the same for every seed
        (comparison(1.0, spread=0.0), "for"),
        (comparison(0.3, spread=0.1, count=2), "open"),  # two seeds decide little
    ],
)
def test_findings(one, finding):
    [found] = verdicts.judge([one])
    assert found.finding == finding
    assert np.isnan(found.effect) == (found.comparison.gains.std() < 1e-12)


@pytest.mark.parametrize(
    ("comparisons", "wanted"),
    [
        ([FOR], "supported"),
        ([FOR] * 3, "supported"),
        ([FOR, EQUAL], "supported with conditions"),
        ([FOR, OPEN, OPEN], "supported with conditions"),
        ([FOR, AGAINST], "supported with conditions"),
        ([FOR, AGAINST, AGAINST], "refuted"),
        ([AGAINST, OPEN], "refuted"),
        ([EQUAL], "refuted"),
        ([EQUAL, EQUAL, OPEN], "refuted"),
        ([EQUAL, OPEN, OPEN], "not decided by this run"),
        ([OPEN], "not decided by this run"),
        ([], "not decided by this run"),
    ],
)
def test_rule(comparisons, wanted):
    claim = verdicts.claim("A claim.", Evidence(comparisons, {}))
    assert claim.verdict == wanted


@given(st.lists(st.sampled_from([FOR, AGAINST, EQUAL, OPEN]), min_size=1, max_size=8))
def test_turning_the_losses_round_never_supports_both(comparisons):
    turned = [
        Comparison(
            "d",
            "m",
            {"cross_entropy": c.values["mse"], "mse": c.values["cross_entropy"]},
            matters=c.matters,
        )
        for c in comparisons
    ]
    both = [verdicts.claim("", Evidence(c, {})).verdict for c in (comparisons, turned)]
    assert both.count("supported") < 2
    if "supported" in both:
        assert "refuted" in both


def test_tally_counts_in_a_fixed_order():
    found = verdicts.judge([OPEN, FOR, EQUAL, FOR])
    assert verdicts.tally(found) == "2 for, 1 equal, 1 open"

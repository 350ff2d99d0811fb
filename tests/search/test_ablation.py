import numpy as np
import pytest
from scipy import stats

from jaxdl.search import ablation
from jaxdl.search.ablation import Effect


def test_effects_are_those_of_the_model_that_made_the_data():
    random = np.random.default_rng(0)
    seeds = random.normal(size=6)
    noise = 1e-9 * random.normal(size=(2, 2, 6))
    first, second = np.meshgrid([0, 1], [0, 1], indexing="ij")
    mean = 0.9 + 0.02 * first - 0.01 * second + 0.005 * first * second
    found = ablation.effects(mean[..., None] + seeds + noise)
    expected = {
        "first": 0.0225,
        "second": -0.0075,
        "first alone": 0.02,
        "second alone": -0.01,
        "both": 0.015,
        "interaction": 0.005,
    }
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].mean == pytest.approx(value, abs=1e-8)
        assert found[name].high - found[name].low < 1e-7  # seeds cancel


def test_interval_is_scipys():
    values = np.random.default_rng(1).normal(3, 2, 5)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = ablation.mean(values)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert found.mean == pytest.approx(values.mean())


@pytest.mark.parametrize(
    ("low", "high", "rise", "fall"),
    [
        (0.1, 0.3, "supported", "refuted"),
        (-0.3, -0.1, "refuted", "supported"),
        (-0.1, 0.1, "not shown", "not shown"),
    ],
)
def test_verdict_follows_the_interval(low, high, rise, fall):
    effect = Effect((low + high) / 2, low, high)
    assert ablation.verdict(effect, "rise") == rise
    assert ablation.verdict(effect, "fall") == fall

import importlib
import math
import statistics

import pytest

from jaxdl.errors import InputError
from jaxdl.search import samplers, space
from jaxdl.search.samplers import Tried

SPACE = space.parse(
    ["learning_rate=log:0.001:1", "hidden=8|16,8", "batch_size=16:64", "dropout=0,0.5"]
)


def study(sampler, count, score, seed=0):
    tried = []
    for index in range(count):
        settings = samplers.propose(sampler, SPACE, seed, index, tried)
        tried.append(Tried(settings, score(settings)))
    return tried


def test_random_and_grid_are_those_of_the_space():
    assert samplers.propose("random", SPACE, 5, 2, []) == space.draw(SPACE, 5, 2)
    grid = space.parse(["momentum=0,0.9"])
    assert samplers.propose("grid", grid, 0, 1, []) == {"momentum": 0.9}
    with pytest.raises(InputError, match="2 points, not 3"):
        samplers.propose("grid", grid, 0, 2, [])


def closeness(settings):
    return -abs(math.log10(settings["learning_rate"]) + 1)


def test_optuna_goes_where_it_is_good():
    pytest.importorskip("optuna")
    late = {
        sampler: [
            one.score
            for seed in range(3)
            for one in study(sampler, 50, closeness, seed)[25:]
        ]
        for sampler in ("random", "optuna")
    }
    assert statistics.mean(late["optuna"]) > 0.6 * statistics.mean(late["random"])


def test_optuna_goes_on_from_what_was_tried_and_not_from_the_start():
    """Its state is the list of what was tried: a new process proposes the same."""
    pytest.importorskip("optuna")
    whole = study("optuna", 16, closeness)
    for index in (3, 12, 15):
        again = samplers.propose("optuna", SPACE, 0, index, whole[:index])
        assert again == whole[index].settings
    assert len({t.settings["learning_rate"] for t in whole}) == 16
    assert study("optuna", 3, closeness, seed=1) != whole[:3]


def test_optuna_proposes_a_batch_of_different_ones():
    pytest.importorskip("optuna")
    tried = study("optuna", 12, closeness)
    for index in range(12, 16):
        settings = samplers.propose("optuna", SPACE, 0, index, tried)
        tried.append(Tried(settings, None))
    rates = [t.settings["learning_rate"] for t in tried[12:]]
    assert len(set(rates)) == 4


def test_without_optuna_the_error_says_how_to_get_it(monkeypatch):
    real = importlib.import_module

    def missing(name):
        if name == "optuna":
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="pip install optuna"):
        samplers.check("optuna")
    samplers.check("random")

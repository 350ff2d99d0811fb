import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from jaxdl.config import Config, ModelConfig, OptimConfig, RunConfig
from jaxdl.data import sources
from jaxdl.data.sources import Split
from jaxdl.errors import InputError
from jaxdl.search import journal, programs, space, studies
from jaxdl.search.results import Epoch, Result, rank
from jaxdl.search.study import Study, Trial, validate

BASE = Config(
    model=ModelConfig(hidden=(8,)),
    optim=OptimConfig(learning_rate=0.1),
    run=RunConfig(batch_size=50),
)


def study(*texts, **changes):
    made = Study(
        base=BASE,
        space=space.parse(texts or ["learning_rate=log:0.01:1"]),
        sampler="random",
        configurations=9,
        seeds=(0,),
        rungs=(1, 2, 4),
        eta=3,
        seed=0,
    )
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def data():
    (images, labels), _ = sources.mnist_embedded()
    order = np.random.default_rng(0).permutation(len(labels))
    splits = [Split(images[some], labels[some]) for some in (order[:500], order[-200:])]
    return programs.material(*splits, tuple("0123456789"), jax.devices()[:2])


@pytest.fixture(autouse=True, scope="module")
def compiled_once(data):
    """Spares the many studies of this module the compilation of the same programs."""
    of_data = functools.cache(lambda shape, lanes: original(shape, data, lanes))
    original = programs.compile
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            programs, "compile", lambda shape, _, lanes: of_data(shape, lanes)
        )
        yield


def lines(path):
    """The journal without the clock."""
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in journal.mend(path)
    ]


def result(configuration, accuracy, loss=1.0, seed=0, rung=0, diverged=False):
    epoch = Epoch(0.0, 1.0, loss, accuracy)
    trial = Trial(configuration, seed, {})
    return Result(trial, rung, (epoch,), diverged, {}, 0.0)


def test_ranks_by_mean_accuracy_then_loss_then_number():
    ranked = rank(
        [
            result(0, 0.8),
            result(0, 0.9, seed=1),
            result(1, 0.7),
            result(1, 0.99, seed=1),
            result(2, 0.9, loss=2.0),
            result(3, 0.9, loss=0.5),
            result(4, 0.9, loss=0.5),
            result(5, 0.0, loss=None, diverged=True),
        ]
    )
    assert [one.configuration for one in ranked] == [3, 4, 2, 0, 1, 5]
    assert ranked[4].accuracy == pytest.approx(0.845)


def test_rungs_have_as_many_as_halving_says():
    assert study().sizes == [9, 3, 1]
    assert study(configurations=27).sizes == [27, 9, 3]
    assert study(configurations=2).sizes == [2, 1, 1]
    assert study("hidden=8|16|24", "momentum=0,0.9").sizes == [6, 2, 1]
    assert study("momentum=0,0.9", sampler="grid", rungs=(3,)).sizes == [2]


def test_halving_promotes_the_best_of_each_rung(data, tmp_path):
    path = tmp_path / "journal.jsonl"
    events = list(studies.run(study(), data, path))
    ended = [e for e in events if isinstance(e, studies.Ended)]
    assert [e.rung for e in ended] == [0, 1, 2]
    results = [e.results for e in ended]
    assert [len(some) for some in results] == [9, 3, 1]
    assert [[len(r.curve) for r in some] for some in results] == [[1] * 9, [2] * 3, [4]]
    for before, after in itertools.pairwise(results):
        best = rank(before)[: len(after)]
        chosen = {r.trial.configuration for r in after}
        assert chosen == {one.configuration for one in best}
    epochs = sum(e.epochs for e in events if isinstance(e, studies.Progressed))
    assert epochs == 9 + 6 + 4
    assert all(r.key[0] > 0.15 for some in results for r in some)


@pytest.mark.parametrize("sampler", ["random", "optuna"])
def test_a_journal_cut_anywhere_is_filled_with_the_same(data, tmp_path, sampler):
    if sampler == "optuna":
        pytest.importorskip("optuna")
    searched = study(
        *("learning_rate=log:0.01:1", "hidden=8|8,8"),
        sampler=sampler,
        configurations=9,
        rungs=(1, 2),
    )
    path = tmp_path / "journal.jsonl"
    for _ in studies.run(searched, data, path):
        pass
    whole, expected = path.read_bytes(), lines(path)
    ends = [i for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (ends[2] + 9, ends[9] + 1, ends[len(ends) // 2] + 30, ends[-2]):
        path.write_bytes(whole[:cut])
        for _ in studies.run(searched, data, path):
            pass
        assert sorted(map(repr, lines(path))) == sorted(map(repr, expected))
    before = path.read_bytes()
    events = list(studies.run(searched, data, path))
    assert path.read_bytes() == before  # nothing was left to do
    assert not any(isinstance(e, studies.Progressed) for e in events)


def test_seeds_are_trials_and_further_splits_are_scored(data, tmp_path):
    searched = study("momentum=0,0.9", sampler="grid", seeds=(3, 1), rungs=(1,))
    path = tmp_path / "journal.jsonl"
    *_, ended = studies.run(searched, data, path, {"again": data.validation})
    results = ended.results
    assert [(r.trial.configuration, r.trial.seed) for r in results] == [
        (0, 3),
        (0, 1),
        (1, 3),
        (1, 1),
    ]
    for one in results:
        assert one.also["again"] == one.curve[-1][2:]
    assert len({r.curve[-1].loss for r in results}) == 4
    best = rank(results)[0].results[0]
    score = studies.score(searched, data, best.trial, 0, data.validation)
    assert score == best.also["again"]


def test_epochs_may_be_searched_where_there_are_no_rungs(data, tmp_path):
    searched = study("epochs=1,3", sampler="grid", rungs=())
    path = tmp_path / "journal.jsonl"
    *_, ended = studies.run(searched, data, path)
    assert [len(r.curve) for r in ended.results] == [1, 3]


def test_what_diverges_counts_as_nothing_and_stops_nothing(data, tmp_path):
    searched = study("learning_rate=0.1,1e30", sampler="grid", rungs=(1,))
    path = tmp_path / "journal.jsonl"
    *_, ended = studies.run(searched, data, path)
    good, bad = ended.results
    assert bad.diverged and bad.curve[-1] == Epoch(None, 0.0, None, 0.0)
    assert bad.key == (0.0, -math.inf)
    assert not good.diverged and rank([bad, good])[0].results == [good]


@pytest.mark.parametrize(
    ("texts", "changes", "said"),
    [
        ([], {"configurations": 0}, "--trials must be at least 1, not 0"),
        ([], {"eta": 1}, "--eta must be at least 2, not 1"),
        ([], {"rungs": (2, 2)}, "--rungs must be ascending numbers of epochs, not 2 2"),
        ([], {"rungs": (0,)}, "--rungs must be ascending"),
        ([], {"seeds": ()}, "--seeds must be one or more"),
        ([], {"seeds": (1, 1)}, "--seeds must be one or more"),
        ([], {"seeds": (-1,)}, "--seeds must be at least 0"),
        (["epochs=1,2"], {}, "--space has epochs, of which the rungs decide"),
        (["dropout=0:1"], {}, "--space: dropout=1: dropout of fnn must be at least 0"),
        (["learning_rate=-1:1"], {}, "--space: learning_rate=-1: --learning-rate must"),
        (["hidden=8|0"], {}, "--space: hidden=0: hidden of fnn must be"),
        (["arch=fnn,lenet9"], {}, "--space: arch=lenet9: unknown architecture"),
        (["arch=lenet5", "hidden=8|9"], {}, "lenet5 has no option 'hidden'"),
        (["dropout=0:0.5"], {"sampler": "grid"}, "a grid needs single values"),
        (["accumulate=1,3"], {}, "accumulate=3: --batch-size must be a multiple of"),
        (["batch_size=48,50", "accumulate=1,4"], {}, "batch_size=50 accumulate=4: "),
        (["batch_size=32:64", "accumulate=2"], {}, "batch_size must be a list of"),
        (
            ["schedule=cosine,onecycle", "warmup_epochs=0,0.5"],
            {},
            "schedule=onecycle warmup_epochs=0.5: --warmup-epochs must be 0",
        ),
    ],
)
def test_bad_studies_are_refused_before_anything_runs(texts, changes, said):
    with pytest.raises(InputError) as error:
        validate(study(*texts, **changes))
    assert said in str(error.value) and "\n" not in str(error.value)

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from jaxdl.config import Config
from jaxdl.errors import InputError
from jaxdl.search import space
from jaxdl.search.space import Choice, Range


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("learning_rate=log:0.001:1", Range(0.001, 1.0, log=True)),
        ("learning-rate=0.1", Choice((0.1,))),
        ("dropout=0:0.5", Range(0.0, 0.5)),
        ("batch_size=32:256", Range(32, 256, integer=True)),
        ("batch_size=log:16:256:5", Choice((16, 32, 64, 128, 256))),
        ("weight_decay=log:1e-5:1e-3:3", Choice((1e-5, 1e-4, 1e-3))),
        ("momentum=0:0.9:4", Choice((0.0, 0.3, 0.6, 0.9))),
        ("batch_norm=true,false", Choice((True, False))),
        ("hidden=512,256|1024,512|()", Choice(((512, 256), (1024, 512), ()))),
        ("ema=none,0.999", Choice((None, 0.999))),
        ("augment=none,digits", Choice(("none", "digits"))),
        ("arch=fnn|lenet5", Choice(("fnn", "lenet5"))),
    ],
)
def test_reads_every_kind_of_domain(text, domain):
    ((_, found),) = space.parse([text]).items()
    assert found == domain


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ([], "--space is empty"),
        (["lr=0.1"], "no field 'lr' to search"),
        (["learning_rat=0.1"], "did you mean learning_rate?"),
        (["seed=0,1"], "seeds are given by --seeds"),
        (["raw_dir=x"], "there are augment, image_size, normalise, arch"),
        (["learning_rate="], "learning_rate has no values"),
        (["learning_rate"], "learning_rate has no values"),
        (["learning_rate=1:0.1"], "must begin with the smaller number"),
        (["learning_rate=0.1:0.1"], "must begin with the smaller number"),
        (["learning_rate=log:0:1"], "both ends must be above 0, not 0"),
        (["learning_rate=log:-1:1"], "both ends must be above 0, not -1"),
        (["learning_rate=nan"], "takes finite numbers, not 'nan'"),
        (["learning_rate=0.1:inf"], "takes finite numbers, not 'inf'"),
        (["learning_rate=log:0.1"], "is no range"),
        (["learning_rate=0.1:1:1"], "is no range"),
        (["learning_rate=log:0.01:1:100000000000"], "may have 10,000 values at most"),
        (["learning_rate=0.01:1:10001"], "may have 10,000 values at most"),
        (["learning_rate=0.01:1:" + "9" * 5000], "takes whole numbers, not '99"),
        (["batch_size=32:" + "9" * 400], "takes whole numbers, not '99"),
        (["batch_size=64,1.5"], "takes whole numbers, not '1.5'"),
        (["batch_norm=yes"], "takes true, false, none, not 'yes'"),
        (["augment=flip"], "takes digits, handwriting, none, not 'flip'"),
        (["hidden=512,a"], "takes whole numbers, not 'a'"),
        (["momentum=0.9,0.9"], "has a value twice"),
        (["momentum=0.9", "momentum=0.5"], "momentum is given twice"),
    ],
)
def test_bad_input_is_one_line_that_names_it(texts, said):
    with pytest.raises(InputError) as error:
        space.parse(texts)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_field_has_an_example_that_can_be_read():
    for name in space.FIELDS:
        assert name in space.parse([space._example(name)])


def test_what_is_written_reads_the_same():
    texts = [
        "learning_rate=log:0.001:1",
        "dropout=0:0.5",
        "batch_norm=true,false",
        "hidden=512,256|()",
        "ema=none,0.999",
    ]
    parsed = space.parse(texts)
    again = [f"{name}={space.written(d)}" for name, d in parsed.items()]
    assert space.parse(again) == parsed


def test_settings_go_to_their_sections():
    config = space.applied(Config(), {"hidden": (8,), "momentum": 0.5, "epochs": 7})
    assert config.model.hidden == (8,) and config.optim.momentum == 0.5
    assert config.run == dataclasses.replace(Config().run, epochs=7)
    assert config.data == Config().data


def test_a_grid_has_all_combinations_in_order():
    of = space.parse(["momentum=0,0.9", "batch_norm=true,false"])
    assert [tuple(s.values()) for s in space.grid(of)] == [
        (0.0, True),
        (0.0, False),
        (0.9, True),
        (0.9, False),
    ]
    with pytest.raises(InputError, match=r"dropout=0:0\.5:5"):
        space.grid(space.parse(["dropout=0:0.5"]))
    many = [f"{name}=0:0.5:{space.MOST}" for name in ("dropout", "momentum")]
    with pytest.raises(InputError, match="10,000 combinations at most, not 100,000,0"):
        space.grid(space.parse(many))


def test_draws_are_uniform_and_functions_of_seed_and_index():
    of = space.parse(
        [
            "learning_rate=log:0.001:10",
            "batch_size=1:3",
            "hidden=1|2|3|4",
            "dropout=0:1",
        ]
    )
    drawn = [space.draw(of, 3, index) for index in range(2000)]
    assert drawn[7] == space.draw(of, 3, 7) != space.draw(of, 4, 7)
    logs = [(math.log10(s["learning_rate"]) + 3) / 4 for s in drawn]
    for values in (logs, [s["dropout"] for s in drawn]):
        assert stats.kstest(values, "uniform").pvalue > 1e-3
    for field in ("batch_size", "hidden"):
        counts = np.unique([str(s[field]) for s in drawn], return_counts=True)[1]
        assert len(counts) in (3, 4) and stats.chisquare(counts).pvalue > 1e-3
    correlation = stats.spearmanr(logs, [s["dropout"] for s in drawn])
    assert correlation.pvalue > 1e-3


@given(
    low=st.floats(1e-6, 1e3),
    ratio=st.floats(1.001, 1e6),
    part=st.floats(0, 1, exclude_max=True),
    log=st.booleans(),
)
def test_position_is_the_inverse_of_at(low, ratio, part, log):
    domain = Range(low, low * ratio, log)
    value = domain.at(part)
    assert domain.low <= value * (1 + 1e-12) and value <= domain.high * (1 + 1e-12)
    assert domain.position(value) == pytest.approx(part, abs=1e-6)


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0, 1), st.booleans())
def test_whole_numbers_stay_whole_and_within(low, more, part, log):
    value = Range(low, low + more, log, integer=True).at(part)
    assert isinstance(value, int) and low <= value <= low + more


def test_where_combinations_can_be_counted_each_is_drawn_once():
    found = space.parse(["hidden=8|16|32", "batch_norm=true,false"])
    drawn = [space.draw(found, 0, index) for index in range(6)]
    assert sorted(map(str, drawn)) == sorted(map(str, space.grid(found)))
    assert drawn != [space.draw(found, 1, index) for index in range(6)]
    assert space.combinations(space.parse(["dropout=0:0.5", "hidden=8"])) is None

import pytest

from jaxdl.search import space
from jaxdl.search.importance import importances, position

SPACE = space.parse(
    ["learning_rate=log:0.001:1", "hidden=8|16|32", "dropout=0:0.5", "augment=none"]
)


def test_what_makes_the_score_is_most_important():
    settings = [space.draw(SPACE, 0, index) for index in range(60)]
    scores = [
        position(SPACE["learning_rate"], s["learning_rate"])
        + 0.3 * position(SPACE["hidden"], s["hidden"])
        for s in settings
    ]
    forest = importances(SPACE, settings, scores)
    assert [one.field for one in forest.fields] == [
        "learning_rate",
        "hidden",
        "dropout",
    ]
    rate, hidden, dropout = forest.fields
    assert rate.low > hidden.high > dropout.high and abs(dropout.mean) < 0.1
    assert rate.low <= rate.mean <= rate.high
    assert forest.explained > 0.7


def test_noise_is_not_explained():
    settings = [space.draw(SPACE, 0, index) for index in range(60)]
    noise = [space.draw(SPACE, 1, index)["dropout"] for index in range(60)]
    assert importances(SPACE, settings, noise).explained < 0.2


def test_equal_scores_have_nothing_in_them_to_explain():
    """All but two have failed: their order, which is that of dropout, says nothing."""
    settings = [
        {"learning_rate": 0.1, "hidden": (8,), "dropout": index / 80, "augment": "none"}
        for index in range(40)
    ]
    scores = [float(index in (13, 27)) for index in range(40)]
    forest = importances(SPACE, settings, scores)
    assert forest.explained < 0.2


@pytest.mark.parametrize(
    ("count", "scores"), [(7, range(7)), (20, [0.5] * 20)], ids=["few", "equal"]
)
def test_nothing_is_said_where_there_is_nothing_to_say(count, scores):
    settings = [space.draw(SPACE, 0, index) for index in range(count)]
    assert importances(SPACE, settings, list(scores)) is None
    fixed = space.parse(["augment=none"])
    assert importances(fixed, [{"augment": "none"}] * 9, list(range(9))) is None

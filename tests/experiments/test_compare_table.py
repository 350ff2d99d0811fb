import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import brentq

from experiments import compare_table, recipes
from experiments.compare import Config
from experiments.compare_table import interval
from jaxdl.config import DataConfig, RunConfig
from jaxdl.errors import InputError
from jaxdl.models import registry
from jaxdl.training import assemble
from jaxdl.weights import published


def test_interval_of_several_seeds_is_students():
    mean, low, high, of = interval([0.90, 0.93, 0.91], 26032)
    # s^2 = (0.0133^2 + 0.0167^2 + 0.0033^2) / 2; the 97.5 % point of t with 2 degrees
    spread = math.sqrt((0.04 / 3) ** 2 + (0.05 / 3) ** 2 + (0.01 / 3) ** 2) / 2**0.5
    margin = 4.302652729911275 * spread / math.sqrt(3)
    assert mean == pytest.approx(0.9133333333)
    assert (high - low) / 2 == pytest.approx(margin)
    assert of == "seeds"


def test_interval_of_one_seed_is_the_test_set_s():
    found = interval([0.9171], 10_000)
    # Wilson's ends are where the score test of a proportion just rejects.
    z = stats.norm.ppf(0.975)

    def score(p):
        return abs(0.9171 - p) / math.sqrt(p * (1 - p) / 10_000) - z

    assert found.low == pytest.approx(brentq(score, 0.85, 0.9171), abs=1e-9)
    assert found.high == pytest.approx(brentq(score, 0.9171, 0.95), abs=1e-9)
    assert found.mean == 0.9171 and found.of == "test images"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=5), st.integers(1, 30_000))
def test_intervals_hold_their_mean_and_stay_in_bounds(accuracies, count):
    if len(accuracies) == 1:
        accuracies = [round(accuracies[0] * count) / count]
    found = interval(accuracies, count)
    assert 0 <= found.low <= found.mean + 1e-12
    assert found.mean - 1e-12 <= found.high <= 1


def test_the_assignment_s_figures():
    figures = compare_table.ASSIGNMENT
    assert figures["lenet5"] == 0.3467 and figures["resnet18"] == 0.9224
    assert figures["vgg16_bn"] == figures["vgg16"] == 0.9454
    assert "alexnet" not in figures


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_is_a_valid_run_on_digits(name):
    recipe = recipes.RECIPES[name]
    assemble.validate(recipe)
    assert recipe.data.augment in ("none", "digits")  # "handwriting" is for strokes
    assert recipe.optim.nesterov and recipe.optim.schedule == "onecycle"


def test_entries_have_names_of_their_own():
    entries = recipes.entries(Config().architectures, (0, 7))
    names = [entry.name for entry in entries]
    assert len(set(names)) == 2 * len(Config().architectures)
    assert names[0] == "lenet5-seed0" and "resnet18-torchvision-seed7" in names
    assert "vgg16_bn-small-seed0" in names
    assert [entry.seed for entry in entries] == [0] * 7 + [7] * 7


def test_a_recipe_cannot_be_changed():
    with pytest.raises(TypeError):
        recipes.RECIPES["lenet5"] = recipes.RECIPES["alexnet"]
    with pytest.raises(InputError, match="resnet19"):
        recipes.parse("resnet19")


def test_only_svhn_itself_is_real():
    assert compare_table.real("svhn_cropped")
    assert compare_table.real("svhn_cropped_extra")
    assert not compare_table.real("synthetic_svhn")


def test_pretrained_entries_are_runs_of_their_own():
    (entry,) = recipes.entries(["resnet18"], [3], pretrained=True)
    assert entry.name == "resnet18-torchvision-imagenet-seed3"
    config = recipes.config_of(
        entry, DataConfig(), RunConfig(), epochs=2, precision="float32"
    )
    assemble.validate(config)
    assert config.model.pretrained == "imagenet" and config.data.image_size == 64
    scratch = recipes.RECIPES["resnet18"].optim.learning_rate
    assert config.optim.learning_rate == pytest.approx(scratch / 10)
    for text in ("lenet5", "resnet18/small"):
        with pytest.raises(InputError, match="no weights are published"):
            recipes.entries([text], [0], pretrained=True)


def test_every_network_with_published_weights_takes_their_size():
    for arch in published.FILES:
        registry.check_input(arch, "torchvision", *[recipes.FINE_TUNED_SIZE] * 2)

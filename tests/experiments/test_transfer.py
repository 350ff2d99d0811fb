import dataclasses
import itertools
import json
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from experiments import transfer_source, transfer_trials, transferring
from experiments.transfer import Config
from experiments.transfer_trials import Point, Result, Source, Trial
from jaxdl import config as settings
from jaxdl.data import augment, batches, sources
from jaxdl.data.batches import Layout
from jaxdl.models import registry
from jaxdl.search import journal
from jaxdl.training import assemble, epoch, parallel
from jaxdl.training.epoch import Examples

TINY = (
    *("transfer", "--dataset=mnist_embedded_colour", "--labels", "40", "20"),
    *("--seeds", "0", "1", "--steps=10", "--batch-size=10"),
)


def lines(path):
    """The journal without the clock."""
    return [
        {key: value for key, value in line.items() if key != "seconds"}
        for line in journal.mend(path)
    ]


@pytest.fixture(scope="module")
def studies_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("studies")


@pytest.fixture
def study(studies_dir, svhn_run, invoke):
    """Folder of a finished study of LeNet-5; what it printed lies beside it."""
    folder = studies_dir / "transfer" / "finished"
    if not folder.exists():
        done = invoke(
            *TINY, f"--source={svhn_run}", f"--out={studies_dir}", "--name=finished"
        )
        assert done.code == 0 and done.err == "", done
        (studies_dir / "out.txt").write_text(done.out)
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return sources.load(
        "mnist_embedded_colour",
        raw_dir=None,
        cache_dir=tmp_path_factory.mktemp("cache"),
        validation=1000,
        seed=0,
    )


@pytest.fixture(scope="module")
def source(digits):
    """A small FNN with weights of another seed, standing for those of a source."""
    model = registry.build("fnn", num_classes=10, hidden=(16, 12))
    given = jax.jit(model.init)(jax.random.key(99), jnp.zeros((1, 32, 32, 3)))
    return Source(
        config=settings.Config(
            data=settings.DataConfig(augment="digits"),
            model=settings.ModelConfig(arch="fnn", hidden=(16, 12), pretrained="given"),
            optim=settings.OptimConfig(schedule="onecycle"),
            run=settings.RunConfig(batch_size=10),
        ),
        facts=assemble.facts(digits.train, digits.classes),
        variables=jax.tree.map(np.asarray, given),
    )


def trained(source, digits, trial, points=1):
    curve, variables = [], None
    for point, variables in transfer_trials.run(  # noqa: B007
        source,
        trial,
        transfer_trials.compile(source, trial.arm),
        transfer_trials.compile_evaluate(source),
        transfer_trials.labelled(digits.train, 40, trial.seed),
        transfer_trials.labelled(digits.validation, 50, 0),
        points,
    ):
        curve.append(point)
    return curve, jax.device_get(variables)


def test_says_data_source_and_results(study, studies_dir):
    printed = (studies_dir / "out.txt").read_text()
    assert "Data:    mnist_embedded_colour (9,000 train" in printed
    assert "Source:  lenet5, trained on" in printed and "synthetic_svhn" in printed
    result = json.loads((study / "result.json").read_text())
    mean = result["arms"]["head"]["20"]["mean"]["mean"]
    assert f"fine-tuned, head alone, 20 labels: {100 * mean:.2f} on the test" in printed
    assert not set(printed) & set("\r\x1b")  # no bar where there is no terminal


def test_the_design_is_paired_and_complete(study):
    entries = [e for e in lines(study / "journal.jsonl") if e["kind"] == "training"]
    reported = [e for e in entries if e["test"] is not None]
    rates = {}
    for e in reported:
        trial = e["trial"]
        rates.setdefault((trial["arm"], trial["labels"]), set()).add(trial["rate"])
    arms = ("scratch", "all", "last-block", "head")
    assert rates.keys() == set(itertools.product(arms, (20, 40)))
    assert all(len(some) == 1 for some in rates.values())
    cells = [
        (e["trial"]["arm"], e["trial"]["labels"], e["trial"]["seed"]) for e in reported
    ]
    assert sorted(cells) == sorted(itertools.product(arms, (20, 40), (0, 1)))
    assert all([p["step"] for p in e["curve"]] == [2, 4, 6, 8, 10] for e in reported)
    # The rate is the best of those that were tried, on other seeds.
    unread = [e for e in entries if e["test"] is None]
    longer = [e for e in unread if e["trial"]["steps"] == 20]
    assert [e["trial"]["arm"] for e in longer] == ["scratch"] * 2
    assert {e["trial"]["rate"] for e in longer} == rates["scratch", 20]
    tuning = [e for e in unread if e["trial"]["steps"] == 10]
    assert len(tuning) + len(longer) == len(unread)
    for arm in arms:
        (rate,) = rates[arm, 20]
        assert rates[arm, 40] == {rate}
        ends = {}
        for e in tuning:
            if e["trial"]["arm"] == arm:
                assert e["trial"]["seed"] >= transferring.TUNING_SEED
                end = e["curve"][-1]
                ends.setdefault(e["trial"]["rate"], []).append(end)
        assert len(ends) >= 3 and all(len(some) == 2 for some in ends.values())
        score = {
            rate: (sum(p["accuracy"] for p in some), -sum(p["loss"] for p in some))
            for rate, some in ends.items()
        }
        assert max(score, key=score.get) == rate


def test_the_intervals_are_those_of_a_paired_t_test(study):
    result = json.loads((study / "result.json").read_text())["arms"]
    for arm, labels in itertools.product(("all", "last-block", "head"), ("20", "40")):
        cell = result[arm][labels]
        test = stats.ttest_rel(cell["test"], result["scratch"][labels]["test"])
        low, high = test.confidence_interval(0.95)
        found = cell["against_scratch"]
        np.testing.assert_allclose([found["low"], found["high"]], [low, high])
    assert result["scratch"]["20"]["against_scratch"] is None


def test_the_report_answers_first_and_labels_the_data(study):
    text = (study / "report.md").read_text()
    assert text.index("**Answer.**") < text.index("## All arms")
    assert "synthetic: drawn by a generator" in text
    assert "made from a part of MNIST only" in text
    assert "nan" not in text.lower().replace("finance", "")
    assert text.index("- with 20 labels") < text.index("- with 40 labels")
    page = (study / "report.html").read_text()
    assert page.count("data:image/png;base64") == 3
    for name in ("errors", "curves", "examples"):
        with Image.open(study / "figures" / f"{name}.png") as image:
            image.load()
            assert min(image.size) > 300


def test_a_killed_study_goes_on_to_the_same_bits(study, studies_dir, invoke):
    other = studies_dir / "transfer" / "killed"
    other.mkdir()
    (other / "config.json").write_text((study / "config.json").read_text())
    whole = (study / "journal.jsonl").read_text().splitlines(keepends=True)
    kept = len(whole) // 2
    (other / "journal.jsonl").write_text("".join(whole[:kept]) + whole[kept][:30])
    done = invoke("transfer", "--resume", "--name=killed", f"--out={studies_dir}")
    assert done.code == 0, done.err
    assert lines(other / "journal.jsonl") == lines(study / "journal.jsonl")
    again = (other / "journal.jsonl").read_text().splitlines(keepends=True)
    assert again[:kept] == whole[:kept]  # not computed twice
    first, second = (
        json.loads((folder / "result.json").read_text())["arms"]
        for folder in (study, other)
    )
    assert first == second
    done = invoke(
        *("transfer", "--resume", "--name=killed", f"--out={studies_dir}"), "--steps=11"
    )
    assert done.code == 2 and "--steps was 10, not 11" in done.err


def test_a_study_goes_on_with_its_own_source_only(study, studies_dir, invoke):
    other = studies_dir / "transfer" / "changed"
    other.mkdir()
    stored = json.loads((study / "config.json").read_text())
    stored["source"]["digest"] = "0"
    (other / "config.json").write_text(json.dumps(stored))
    done = invoke("transfer", "--resume", "--name=changed", f"--out={studies_dir}")
    assert done.code == 2 and "have changed since" in done.err
    assert [path.name for path in other.iterdir()] == ["config.json"]


def test_a_run_is_a_source_when_it_is_finished(svhn_run, tmp_path, invoke):
    run = shutil.copytree(svhn_run, tmp_path / "run")
    (run / "result.json").unlink()
    done = invoke(*TINY, f"--source={run}", f"--out={tmp_path}")
    assert done.code == 2 and f"--source={run} is not finished" in done.err


def test_a_name_that_is_taken_trains_no_source(study, studies_dir, invoke):
    before = set(studies_dir.iterdir())
    done = invoke(
        *TINY, "--arch=lenet5", f"--out={studies_dir}", f"--name={study.name}"
    )
    assert done.code == 2 and "finished is there already" in done.err
    assert set(studies_dir.iterdir()) == before


def test_without_imagenets_weights_network_and_input_stay():
    """Whether they are given by name, or by a run that began with them."""
    recipe = transfer_source._recipe(Config(pretrained="imagenet"))
    for arm in transfer_trials.ARMS:
        config = transfer_trials.config_of(recipe, arm)
        assert registry.options_for("resnet18", config.model) == {
            "layout": "torchvision"
        }
        facts = assemble.DataFacts((32, 32, 3), ("a",) * 10, (0.1,) * 3, (0.2,) * 3)
        mean, _ = assemble.normalisation(config, facts)
        assert mean == augment.IMAGENET_MEAN


@pytest.mark.long
def test_a_source_is_trained_once_and_can_be_a_file(tmp_path, invoke):
    options = (
        *(*TINY, "--arch=lenet5", "--source-epochs=1", "--arms", "scratch", "head"),
        *("--labels", "20"),
        f"--out={tmp_path}",
    )
    done = invoke(*options, "--name=first")
    assert done.code == 0, done.err
    assert done.out.count("Finished Training") == 1
    run = tmp_path / "svhn" / "transfer-source-lenet5-1"
    assert json.loads((run / "result.json").read_text())["dataset"]["name"] == (
        "synthetic_svhn"
    )
    file = tmp_path / "source.safetensors"
    assert invoke("export", run, file).code == 0
    again = invoke(*options, "--name=second")
    assert again.code == 0 and "Finished Training" not in again.out
    from_file = invoke(*options, f"--pretrained={file}", "--name=third")
    assert from_file.code == 0, from_file.err
    first, second, third = (
        json.loads((tmp_path / "transfer" / name / "result.json").read_text())
        for name in ("first", "second", "third")
    )
    assert first["arms"] == second["arms"]
    assert third["source"]["dataset"] == "unknown to this program"
    assert third["source"]["untouched"] is None


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--source=a", "--pretrained=b"), "--source and --pretrained exclude"),
        (("--labels", "15"), "--labels: 15 examples cannot be drawn evenly"),
        (("--labels", "100000"), "100000 examples cannot be drawn"),
        (("--arms", "all", "head"), '--arms must be "scratch"'),
        (("--seeds", "1"), "--seeds must be two or more"),
        (("--seeds", "0", "1000"), "below 1000, not 1000"),
        (("--steps=4",), "--steps must be at least 5, not 4"),
        (("--source=nowhere",), "nowhere is not a run"),
        (("--pretrained=nowhere.pth",), "nowhere.pth"),
        (("--pretrained=imagenet", "--arch=lenet5"), "no weights are published for"),
        (("--arch=lenet5_1998",), "--finetune=head"),
        (("--dataset=mnist_embedded",), "--dataset=mnist_embedded has images of 28x28"),
    ],
)
def test_bad_options_end_in_a_line(options, said, invoke, tmp_path):
    done = invoke(
        *("transfer", "--dataset=mnist_embedded_colour", *options, f"--out={tmp_path}")
    )
    assert done.code == 2 and done.err.count("\n") == 1 and said in done.err
    assert not list(tmp_path.iterdir())


def test_an_arm_trains_as_the_projects_own_loop_does(source, digits):
    """Against `epoch.compile_resident`, an epoch of 4 steps at a time."""
    trial = Trial("scratch", 40, 3, 0.05, 8)
    _, found = trained(source, digits, trial)
    config = transfer_trials.config_of(source.config, "scratch")
    config = dataclasses.replace(
        config,
        optim=dataclasses.replace(config.optim, learning_rate=0.05),
        run=dataclasses.replace(config.run, seed=3),
    )
    devices = parallel.choose("jit", 1, 10, 1)
    parts = assemble.assemble(config, source.facts, 8, 4, devices)
    run = epoch.compile_resident(parts.train_step, Layout(10, 1, 1), devices, 100)
    pool = transfer_trials.labelled(digits.train, 40, 3)
    data = Examples(jnp.asarray(pool.images), jnp.asarray(pool.labels))
    state = assemble.initial_state(config, parts, source.facts)
    for e in range(2):
        state = run(state, data, batches.epoch_order(state.key, e, 40), 0, 4)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
        found["params"],
        jax.device_get(state.variables["params"]),
    )


def test_a_curve_does_not_change_the_training(source, digits):
    trial = Trial("all", 20, 5, 0.02, 8)
    (end,), once = trained(source, digits, trial)
    curve, often = trained(source, digits, trial, points=4)
    assert [point.step for point in curve] == [2, 4, 6, 8] and end.step == 8
    jax.tree.map(np.testing.assert_array_equal, once, often)
    assert (curve[-1].loss, curve[-1].accuracy) == (end.loss, end.accuracy)


def test_arms_share_the_head_and_keep_what_they_do_not_train(source, digits):
    starts = {
        arm: transfer_trials.compile(source, arm).start(7).variables["params"]
        for arm in ("scratch", "all", "head")
    }
    head = registry.blocks("fnn")[0][0]
    for arm in ("all", "head"):
        jax.tree.map(
            np.testing.assert_array_equal, starts[arm][head], starts["scratch"][head]
        )
        np.testing.assert_array_equal(
            starts[arm]["hidden_0"]["kernel"],
            source.variables["params"]["hidden_0"]["kernel"],
        )
    assert not np.array_equal(
        starts["scratch"]["hidden_0"]["kernel"], starts["all"]["hidden_0"]["kernel"]
    )
    given = source.variables["params"]
    for arm, layers in (
        ("head", {"head"}),
        ("last-block", {"head", "hidden_1"}),
    ):
        _, after = trained(source, digits, Trial(arm, 20, 7, 0.05, 8))
        for layer in given:
            same = np.array_equal(
                given[layer]["kernel"], after["params"][layer]["kernel"]
            )
            assert same == (layer not in layers), (arm, layer)


def test_a_diverged_training_counts_as_nothing(source, digits):
    (point,), _ = trained(source, digits, Trial("scratch", 20, 0, 1e9, 8))
    assert point == Point(8, None, None, 0.0)


@pytest.mark.parametrize("peak", [-8, -5, -3, 0, 2])
def test_the_best_rate_is_none_at_the_edge(peak, monkeypatch):
    """Accuracy with one peak over the powers; what is tried encloses it."""
    tried = []

    def accuracy(bench, trial, bar):
        tried.append(trial.rate)
        power = round(2 * np.log10(trial.rate))
        point = Point(10, 1.0, 1.0, 1 - abs(power - peak) / 20)
        return Result(trial, (point,), None, 0.0)

    class Bar:
        total = 6

    monkeypatch.setattr(transferring, "_result", accuracy)
    bench = SimpleNamespace(config=Config(labels=(20, 40)))
    rate, found = transferring._tuned(bench, "all", Bar)
    assert abs(rate / 10 ** (peak / 2) - 1) < 0.02
    assert Bar.total == len(found) == len(tried)
    assert len(set(tried)) == len(tried) / 2
    if transferring.LEAST < peak < transferring.MOST:
        assert min(tried) < rate < max(tried)

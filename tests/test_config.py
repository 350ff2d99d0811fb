"""Settings survive the way through JSON, and every difference is found."""

import dataclasses
import json
import sys
import typing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import command_line
from jaxdl import config as settings
from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.errors import InputError

FREE = {"resume", "name", "out", "raw_dir", "cache_dir", "profile"}

folders = st.text("abc/. ", min_size=1, max_size=8).map(Path)
texts = st.text(max_size=8)
numbers = st.floats(allow_nan=False, allow_infinity=False)
OF_TYPE = {bool: st.booleans(), int: st.integers(), float: numbers, str: texts}


def values(kind) -> st.SearchStrategy:
    """Any value of a field's type, read from its annotation."""
    if kind is Path:
        return folders
    if kind in OF_TYPE:
        return OF_TYPE[kind]
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is typing.Literal:
        return st.sampled_from(arguments)
    if typing.get_origin(kind) is tuple:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    return st.one_of([st.none() if a is type(None) else values(a) for a in arguments])


def instances(kind) -> st.SearchStrategy:
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: values(hint) for name, hint in hints.items()})


configs = st.builds(
    Config,
    data=instances(DataConfig),
    model=instances(ModelConfig),
    optim=instances(OptimConfig),
    run=instances(RunConfig),
)


@given(configs)
def test_what_is_spelled_out_needs_no_weights_of_imagenets(config: Config) -> None:
    found = settings.spelled_out(config)
    assert settings.spelled_out(found) == found
    if config.model.pretrained != "imagenet":
        assert found == config
    else:
        assert found.model.layout == (config.model.layout or "torchvision")
        assert found.data.normalise == (config.data.normalise or "imagenet")


@given(configs)
def test_any_configuration_survives_json(config: Config) -> None:
    text = json.dumps(settings.to_json(config), allow_nan=False)
    back = settings.from_json(json.loads(text))
    assert back == config
    for section in dataclasses.fields(Config):
        old, new = getattr(config, section.name), getattr(back, section.name)
        for field in dataclasses.fields(old):
            was, now = getattr(old, field.name), getattr(new, field.name)
            assert isinstance(was, Path) == isinstance(now, Path)
            assert isinstance(was, tuple) == isinstance(now, tuple)


def all_fields() -> list[tuple[str, str]]:
    return [
        (section.name, field.name)
        for section in dataclasses.fields(Config)
        for field in dataclasses.fields(section.type)
    ]


def changed(section: str, field: str) -> Config:
    """The defaults with another value in one field."""
    part = getattr(Config(), section)
    value = getattr(part, field)
    if field == "out":
        other = Path("elsewhere")
    elif value is None or isinstance(value, str):
        other = "another"
    elif isinstance(value, bool):
        other = not value
    elif isinstance(value, tuple):
        other = (*value, 0.9)
    elif isinstance(value, Path):
        other = value / "another"
    else:
        other = value + 1
    part = dataclasses.replace(part, **{field: other})
    return dataclasses.replace(Config(), **{section: part})


@pytest.mark.parametrize(("section", "field"), all_fields())
def test_every_setting_counts_on_resume_but_where_things_lie(section, field) -> None:
    found = settings.differences(Config(), changed(section, field))
    if field in FREE:
        assert found == []
    else:
        (line,) = found
        assert f"--{field.replace('_', '-')} was " in line


def test_a_difference_is_told_as_on_the_command_line() -> None:
    old = Config(model=ModelConfig(hidden=(512, 256)), run=RunConfig(batch_size=64))
    new = Config(model=ModelConfig(hidden=(10,)), run=RunConfig(batch_size=32))
    assert settings.differences(old, new) == [
        "--hidden was 512 256, not 10",
        "--batch-size was 64, not 32",
    ]
    assert settings.differences(old, old) == []


def test_no_two_settings_share_a_name() -> None:
    """They become options without a prefix."""
    names = [field for _, field in all_fields()]
    assert len(set(names)) == len(names)


@given(configs, st.sampled_from(all_fields()))
def test_a_setting_that_a_stored_run_has_not_is_the_default(config, place) -> None:
    section, field = place
    stored = settings.to_json(config)
    del stored[section][field]
    default = getattr(getattr(Config(), section), field)
    part = dataclasses.replace(getattr(config, section), **{field: default})
    expected = dataclasses.replace(config, **{section: part})
    assert settings.from_json(json.loads(json.dumps(stored))) == expected


@pytest.mark.parametrize("section", ["data", "model", "optim", "run"])
def test_an_unknown_setting_and_a_missing_section_are_named(section) -> None:
    stored = settings.to_json(Config())
    unknown = {**stored, section: {**stored[section], "colour": 1}}
    nothing = {k: v for k, v in stored.items() if k != section}
    for values, said in (
        (unknown, f"{section}: colour"),
        (nothing, f"{section}: missing"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            settings.from_json(values)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("run", "batch_size", "64"),
        ("run", "batch_size", None),
        ("run", "batch_size", True),
        ("run", "resume", 1),
        ("data", "augment", "l1"),
        ("data", "cache_dir", 3),
        ("data", "raw_dir", ["a"]),
        ("model", "hidden", [16, "16"]),
        ("model", "precision", "float7"),
        ("optim", "learning_rate", [0.1]),
    ],
)
def test_a_setting_of_another_type_is_named(section, field, value) -> None:
    stored = settings.to_json(Config())
    stored[section][field] = value
    with pytest.raises(InputError, match=rf"has {field}=.*; allowed is"):
        settings.from_json(stored)


def test_renamed_changes_the_name_and_the_wish_only() -> None:
    config = Config(optim=OptimConfig(momentum=0.5))
    new = settings.renamed(config, "x", resume=True)
    assert (new.run.name, new.run.resume) == ("x", True)
    assert settings.renamed(new, config.run.name, resume=False) == config


def test_the_environment_says_where_data_lies(monkeypatch) -> None:
    for name in ("JAXDL_RAW_DIR", "JAXDL_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert DataConfig().raw_dir is None
    assert DataConfig().cache_dir == Path.home() / ".cache" / "jaxdl"
    monkeypatch.setenv("JAXDL_RAW_DIR", "/raw")
    monkeypatch.setenv("JAXDL_CACHE_DIR", "/cache")
    for data in (DataConfig(), Config().data):
        assert data.raw_dir == Path("/raw")
        assert data.cache_dir == Path("/cache")
    monkeypatch.setenv("JAXDL_RAW_DIR", "")
    assert DataConfig().raw_dir is None


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().run.epochs = 3


def test_a_home_is_found_where_no_shell_looks_for_one(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for option, value in (("JAXDL_RAW_DIR", "~/raw"), ("JAXDL_CACHE_DIR", "~/kept")):
        monkeypatch.setenv(option, value)
    assert settings.default_raw_dir() == tmp_path / "raw"
    assert settings.default_cache_dir() == tmp_path / "kept"
    monkeypatch.setattr(sys, "argv", ["x", "--run.out=~/runs", "--data.raw-dir=~"])
    read = command_line.read(Config, "")
    assert read.run.out == tmp_path / "runs" and read.data.raw_dir == tmp_path

"""What a search may change: fields of a run's configuration, and their domains.

A space is written as on the command line, one `field=domain` for each field:

    learning_rate=log:0.001:1      any number between, evenly in the logarithm
    dropout=0:0.5                  any number between
    batch_size=32:256              any whole number between, for a field that is one
    weight_decay=log:1e-5:1e-3:3   three numbers: 1e-5, 1e-4, 1e-3
    batch_norm=true,false          one of these
    hidden=512,256|1024,512        one of these; "|" separates what has commas
    augment=none                   always this

Nothing here imports JAX.
"""

import dataclasses
import difflib
import itertools
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import numpy as np

from jaxdl.config import Config, DataConfig, ModelConfig, OptimConfig, RunConfig
from jaxdl.errors import InputError

Value = Any
"""Of a field: a number, a bool, a string, a tuple of numbers or None."""
Settings = dict[str, Value]
"""Values by the name of their field."""


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Value, ...]


@dataclasses.dataclass(frozen=True)
class Range:
    """Any number from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    """Evenly in the logarithm."""
    integer: bool = False
    """Whole numbers only."""

    def at(self, part: float) -> float | int:
        """The number that lies that part of the way up; `part` in [0, 1)."""
        if not self.integer:
            return float(self._between(self.low, self.high, part))
        # Each whole number owns the unit around it, so that the ends are as likely.
        number = round(self._between(self.low - 0.5, self.high + 0.5, part))
        return int(min(max(number, self.low), self.high))

    def position(self, value: float) -> float:
        """How far up a number lies, in [0, 1]: where a plot has it."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        return (at - low) / (high - low)

    def _between(self, low: float, high: float, part: float) -> float:
        if self.log:
            return low * (high / low) ** part
        return low + (high - low) * part


Domain = Choice | Range
MOST = 10_000
"""Values of a range, and combinations of a grid: no study comes to the end of more."""
Space = dict[str, Domain]

_NOT_SEARCHED = {
    "DataConfig": ("dataset", "raw_dir", "cache_dir", "validation", "placement"),
    "ModelConfig": ("pretrained",),
    "OptimConfig": ("finetune", "layer_decay"),
    "RunConfig": tuple(
        field.name
        for field in dataclasses.fields(RunConfig)
        if field.name not in ("epochs", "batch_size")
    ),
}
"""What does not decide how a network learns; what is for pretrained ones, which a
search has not; and the seed, which `seeds` varies."""

_SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}
FIELDS: dict[str, tuple[str, Any]] = {
    field.name: (section, typing.get_type_hints(kind)[field.name])
    for section, kind in _SECTIONS.items()
    for field in dataclasses.fields(kind)
    if field.name not in _NOT_SEARCHED[kind.__name__]
}
"""The fields that can be searched: section of `Config` and type, by name."""


def parse(texts: Iterable[str]) -> Space:
    """Reads a space from `field=domain` texts; see the head of this module.

    Raises:
      InputError: no text, an unknown field or one given twice, an empty domain, bounds
        that are reversed, equal, not finite or (for log) not positive, too many values,
        or one that is not of the field's type.
    """
    space: Space = {}
    for text in texts:
        name, equals, domain = text.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            if name == "seed":
                hint = " (seeds are given by --seeds)"
            raise InputError(
                f"--space: no field {name!r} to search{hint}; there are "
                f"{', '.join(FIELDS)}"
            )
        if name in space:
            raise InputError(f"--space: {name} is given twice; put its values together")
        if not equals or not domain.strip():
            raise InputError(
                f"--space: {name} has no values; write for instance {_example(name)}"
            )
        space[name] = _domain(name, domain.strip())
    if not space:
        raise InputError(
            "--space is empty; write for instance learning_rate=log:0.01:1 "
            f"dropout=0:0.5; fields are {', '.join(FIELDS)}"
        )
    return space


def applied(config: Config, settings: Mapping[str, Value]) -> Config:
    """The configuration with these fields changed."""
    for name, value in settings.items():
        section, _ = FIELDS[name]
        part = dataclasses.replace(getattr(config, section), **{name: value})
        config = dataclasses.replace(config, **{section: part})
    return config


def ends(domain: Domain) -> tuple[Value, ...]:
    """All values of a choice; the least and the largest of a range."""
    if isinstance(domain, Choice):
        return domain.values
    return domain.at(0.0), domain.at(1.0)


def grid(space: Space) -> list[Settings]:
    """All combinations, the last field changing fastest.

    Raises:
      InputError: a domain is a range, which has no end of values, or there are too
        many combinations.
    """
    for name, domain in space.items():
        if isinstance(domain, Range):
            raise InputError(
                f"--space: a grid needs single values of {name}: list them, or add "
                f"their number, as in {name}={written(domain)}:5"
            )
    choices = [ends(domain) for domain in space.values()]
    if (count := _count(space)) > MOST:
        raise InputError(
            f"--space: a grid may have {MOST:,} combinations at most, not {count:,}: "
            f"leave values out, or draw some with --sampler=random"
        )
    return [
        dict(zip(space, values, strict=True)) for values in itertools.product(*choices)
    ]


def combinations(space: Space) -> int | None:
    """How many there are; None where there is a range, or more than `MOST`."""
    listed = all(isinstance(domain, Choice) for domain in space.values())
    count = _count(space)
    return count if listed and count <= MOST else None


def _count(space: Space) -> int:
    return math.prod(len(ends(domain)) for domain in space.values())


def draw(space: Space, seed: int, index: int) -> Settings:
    """Random settings number `index`: a function of (space, seed, index) alone.

    Args:
      space: from `parse`.
      seed: of the study, not negative.
      index: from 0.

    Returns:
      Independent draws, uniform over each domain (in the logarithm where it says so).
      Where there are combinations to be counted, each comes once, until there are none.
    """
    if (count := combinations(space)) is not None:
        order = np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")
        return grid(space)[order[index]]
    # Of PCG64's raw stream, as elsewhere in this library: NEP 19 keeps it for good.
    raw = np.random.PCG64([seed, index]).random_raw(len(space))
    parts = (np.atleast_1d(raw) >> np.uint64(11)) * 2.0**-53  # in [0, 1)
    return {
        name: domain.at(float(part))
        if isinstance(domain, Range)
        else domain.values[int(part * len(domain.values))]
        for (name, domain), part in zip(space.items(), parts, strict=True)
    }


def written(value: Domain | Value) -> str:
    """A domain or a value as `parse` reads it."""
    match value:
        case Choice(values):
            separator = "|" if any(isinstance(v, tuple) for v in values) else ","
            return separator.join(map(written, values))
        case Range(low, high, log):
            return ("log:" if log else "") + f"{low:g}:{high:g}"
        case tuple():
            return ",".join(map(written, value)) or "()"
        case bool() | None:
            return str(value).lower()
        case float():
            return f"{value:.4g}"
        case _:
            return str(value)


def option(name: str, value: Value) -> str:
    """The option of an experiment that sets a field, exactly."""
    dashed = "--" + name.replace("_", "-")
    if isinstance(value, bool) and name not in ("batch_norm",):
        return dashed if value else f"--no-{dashed[2:]}"
    if isinstance(value, tuple):
        return " ".join([dashed, *map(str, value)])
    return f"{dashed}={value}"


def _domain(name: str, text: str) -> Domain:
    kinds = _kinds(name)
    numeric = {int, float} & set(kinds)
    if numeric and ":" in text:
        return _range(name, text, integer=float not in numeric)
    is_tuple = any(isinstance(kind, types.GenericAlias) for kind in kinds)
    separator = "|" if is_tuple or "|" in text else ","
    values = tuple(_value(name, part.strip()) for part in text.split(separator))
    if len(set(values)) < len(values):
        raise InputError(f"--space: {name}={text} has a value twice")
    return Choice(values)


def _range(name: str, text: str, *, integer: bool) -> Domain:
    log, parts = text.startswith("log:"), text.split(":")
    parts = parts[1:] if log else parts
    wrong = InputError(
        f"--space: {name}={text} is no range; write low:high, log:low:high, or either "
        f"with :N behind it for N values"
    )
    if len(parts) not in (2, 3):
        raise wrong
    low, high = (_number(name, part, integer=integer) for part in parts[:2])
    if not low < high:
        raise InputError(
            f"--space: {name}={text} must begin with the smaller number, "
            f"not {parts[0]} before {parts[1]}"
        )
    if log and low <= 0:
        raise InputError(
            f"--space: {name}={text} has a logarithm, so both ends must be above 0, "
            f"not {parts[0]}"
        )
    if len(parts) == 2:
        return Range(low, high, log, integer)
    if not parts[2].isdecimal():
        raise wrong
    if (count := int(_number(name, parts[2], integer=True))) < 2:
        raise wrong
    if count > MOST:
        raise InputError(
            f"--space: {name}={text} may have {MOST:,} values at most; leave the "
            f"number out, and any between may be drawn"
        )
    space = np.geomspace if log else np.linspace
    # Twelve digits: 0.30000000000000004 is nobody's wish.
    points = [float(f"{x:.12g}") for x in space(low, high, count)]
    return Choice(tuple(dict.fromkeys(map(round, points) if integer else points)))


def _value(name: str, text: str) -> Value:
    """A single value of a field's type."""
    for kind in _kinds(name):
        if kind is type(None) and text.lower() == "none":
            return None
        if kind is bool and text.lower() in ("true", "false"):
            return text.lower() == "true"
        if typing.get_origin(kind) is Literal and text in typing.get_args(kind):
            return text
        if kind is str and text:
            return text
        if typing.get_origin(kind) is tuple and text:
            if text == "()":
                return ()
            integer = typing.get_args(kind)[0] is int
            return tuple(
                _number(name, part, integer=integer) for part in text.split(",")
            )
        if kind in (int, float):
            return _number(name, text, integer=kind is int)
    raise InputError(
        f"--space: {name} takes {_allowed(name)}, not {text!r}; "
        f"write for instance {_example(name)}"
    )


def _number(name: str, text: str, *, integer: bool) -> float | int:
    try:
        number = int(text) if integer else float(text)
        finite = math.isfinite(number)
    except (ValueError, OverflowError):  # the latter: beyond all floats
        finite = False
    if not finite:
        what = "whole numbers" if integer else "finite numbers"
        raise InputError(
            f"--space: {name} takes {what}, not {text.strip()!r}; "
            f"write for instance {_example(name)}"
        )
    return number


def _kinds(name: str) -> tuple[Any, ...]:
    """The types that a field may have, those that read anything last."""
    _, kind = FIELDS[name]
    kinds = (
        typing.get_args(kind)
        if typing.get_origin(kind) in (types.UnionType, typing.Union)
        else (kind,)
    )
    return tuple(sorted(kinds, key=lambda k: k is not type(None)))


def _allowed(name: str) -> str:
    said: list[str] = []
    for kind in _kinds(name):
        if typing.get_origin(kind) is Literal:
            said.extend(map(str, typing.get_args(kind)))
        elif kind is bool:
            said.extend(("true", "false"))
        elif kind is type(None):
            said.append("none")
        else:
            said.append({int: "whole numbers", float: "numbers"}.get(kind, "numbers"))
    return ", ".join([*said[1:], said[0]] if said[0] == "none" else said)


def _example(name: str) -> str:
    examples = {
        "learning_rate": "log:0.01:1",
        "weight_decay": "log:1e-5:1e-3",
        "batch_size": "64,128",
        "epochs": "5,10",
        "accumulate": "1,2",
        "image_size": "28,32",
        "hidden": "512,256|1024,512",
        "step_epochs": "0.5,0.75|0.8",
        "arch": "fnn,lenet5",
        "clip_norm": "1:10",
        "ema": "0.99:0.999",
        "step_factor": "0.1,0.3",
        "warmup_epochs": "0:1",
    }
    for kind in _kinds(name):
        if typing.get_origin(kind) is Literal:
            examples.setdefault(name, ",".join(map(str, typing.get_args(kind)[:2])))
        if kind is bool:
            examples.setdefault(name, "true,false")
    return f"{name}={examples.get(name, '0:0.5')}"

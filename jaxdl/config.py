"""Every setting of a training run, as frozen dataclasses; the CLI is derived from them.

Nothing heavy is imported here: `--help` reads this module and little else. `None`
always means "let the architecture or the data decide", never a number in disguise.

The text below a field is its help. tyro keeps the line breaks in it, so each line is a
sentence of its own.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jaxdl.errors import InputError

Loss = Literal["cross_entropy", "mse"]
Schedule = Literal["constant", "step", "cosine", "onecycle"]
Finetune = Literal["all", "last-block", "head"]


def default_raw_dir() -> Path | None:
    """Where raw files lie without --raw-dir: what JAXDL_RAW_DIR says, if anything."""
    value = os.environ.get("JAXDL_RAW_DIR")
    return Path(value).expanduser() if value else None


def default_cache_dir() -> Path:
    """Without --cache-dir: what JAXDL_CACHE_DIR says, else ~/.cache/jaxdl."""
    value = os.environ.get("JAXDL_CACHE_DIR")
    return Path(value or "~/.cache/jaxdl").expanduser()


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the examples come from, and what happens to them before the model."""

    dataset: str = "auto"
    """Data set. "auto" is the real one or, with a banner, the embedded stand-in.
    A set that is named is never replaced."""
    raw_dir: Path | None = dataclasses.field(default_factory=default_raw_dir)
    """Folder with the official raw files, used instead of a download.
    MNIST: the four idx .gz files. SVHN: train_32x32.mat and test_32x32.mat.
    Without this option: what JAXDL_RAW_DIR says."""
    cache_dir: Path = dataclasses.field(default_factory=default_cache_dir)
    """Folder where prepared data and compiled programs are kept.
    Without this option: what JAXDL_CACHE_DIR says, else ~/.cache/jaxdl."""
    validation: int | None = None
    """Training examples set apart, stratified by class, for every choice of a run.
    Without this option: 5,000, or a tenth of a smaller set."""
    augment: Literal["none", "digits", "handwriting"] = "none"
    """"digits": small shifts, rotations, scales and cutout, on the device; no flips.
    "handwriting": elastic deformation in place of the cutout."""
    image_size: int | None = None
    """Resize the images to this side, in pixels, on the device, after any augmentation.
    Without this option: they stay as they are."""
    normalise: Literal["data", "imagenet"] | None = None
    """Mean and deviation to normalise by: of the training set, or of ImageNet.
    Grey images have one mean and deviation: those of ImageNet's channels, averaged.
    Without this option: imagenet with --pretrained=imagenet, else data."""
    placement: Literal["auto", "device", "stream"] = "auto"
    """Keep the whole set on the device, or stream it with prefetch.
    "auto" streams only what does not fit."""


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network. An option that the architecture does not have is an error."""

    arch: str = "fnn"
    """Architecture; `python -m experiments.models` lists them all."""
    hidden: tuple[int, ...] | None = None
    """fnn: sizes of the hidden layers, for instance --hidden 512 256, which is also
    what there is without this option. Without numbers: a linear classifier."""
    activation: Literal["relu", "gelu", "tanh", "sigmoid"] | None = None
    """fnn: activation of the hidden layers. Without this option: relu."""
    batch_norm: bool | None = None
    """fnn: batch normalisation before each activation, True or False.
    Without this option: False."""
    dropout: float | None = None
    """fnn, alexnet, vgg: probability of dropping a hidden unit.
    Without this option: 0.5 in alexnet and in vgg as torchvision has it, else 0."""
    layout: Literal["small", "torchvision"] | None = None
    """alexnet, vgg, resnet: "small" is made for 32x32 images, and what there is without
    this option. "torchvision" is the ImageNet network exactly as torchvision has it."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Number format of the activations. Parameters always stay float32."""
    pretrained: str | None = None
    """Start from trained weights: "imagenet", or a file (.pth, .safetensors).
    "imagenet": torchvision's for alexnet, vgg, resnet; found in its cache or fetched.
    A file: of torch, of timm, or of `python -m experiments.export`.
    A head for other classes begins afresh; for grey images colours are summed up.
    "imagenet" means --layout=torchvision."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """SGD, its schedule and its regularisers."""

    loss: Loss = "cross_entropy"
    """Training loss. "mse": squared distance of the softmax from the one-hot label."""
    learning_rate: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    """Momentum of SGD, in [0, 1)."""
    nesterov: bool = True
    """Nesterov's form of momentum."""
    weight_decay: float = 5e-4
    """Weight decay, on kernels only."""
    decoupled: bool = False
    """Decay the weights apart from the gradient (SGDW) rather than as an L2 term."""
    decay_all: bool = False
    """Decay biases and normalisation parameters too."""
    clip_norm: float | None = None
    """Clip the gradient to this global norm."""
    schedule: Schedule = "cosine"
    """How the learning rate changes over the run."""
    warmup_epochs: float = 0.0
    """Linear warm-up from zero, in epochs (not for "onecycle", which has its own)."""
    step_epochs: tuple[float, ...] = (0.5, 0.75)
    """"step": where the rate is multiplied by --step-factor, as parts of the run."""
    step_factor: float = 0.1
    """"step": the factor."""
    label_smoothing: float = 0.0
    """Weight of the uniform distribution in the training target, in [0, 1)."""
    ema: float | None = None
    """Decay of an exponential moving average of the parameters; for instance 0.999.
    Where there is one, it is what is evaluated."""
    accumulate: int = 1
    """Split each batch into this many micro-batches and average their gradients."""
    finetune: Finetune = "all"
    """What is trained: all, the head and the last block before it, or the head alone.
    The rest stays as --pretrained gave it, batch statistics included."""
    layer_decay: float = 1.0
    """What each block's learning rate is of the next one's, in (0, 1].
    The head has the whole rate; with 0.5 the last block has half, the one before 1/4.
    Blocks: the stages of resnet and vgg, else single convolutions or hidden layers.
    Hidden layers after convolutions belong to the last of these."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """How long, on what, and where the results go."""

    epochs: int = 5
    """Passes over the training set."""
    batch_size: int = 64
    """Examples per step, over all devices together."""
    seed: int = 0
    """Decides initialisation, data order, augmentation, dropout and the split."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the step is spread over devices. Both compute the same."""
    devices: int | None = None
    """Number of devices to use; all by default."""
    log_every: int = 100
    """Steps between lines of the log."""
    checkpoint_seconds: float = 60.0
    """At most this long between checkpoints (one is saved after each epoch as well)."""
    keep: int = 2
    """Most recent checkpoints to keep, beside the best one by validation accuracy."""
    patience: int | None = None
    """Stop after this many epochs without a better validation accuracy."""
    out: Path = Path("checkpoints")
    """Folder that gets <experiment>/<run>/."""
    name: str | None = None
    """Name of the run. Without this option: the architecture and the time."""
    resume: bool = False
    """Go on with the run of that --name, or with the latest one.
    The result is bit for bit that of a run that was never stopped.
    Where devices, engine or versions are others, so may the bits be: a line says so."""
    profile: bool = False
    """Write a trace of some steps to <run>/trace, for ui.perfetto.dev or TensorBoard.
    It shows where the time of a step goes."""


@dataclasses.dataclass(frozen=True)
class Config:
    """One training run, whole."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    run: RunConfig = dataclasses.field(default_factory=RunConfig)


def to_json(config: Config) -> dict[str, Any]:
    """The settings as plain JSON values."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: plain(v) for name, v in value.items()}
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return str(value) if isinstance(value, Path) else value

    return plain(dataclasses.asdict(config))


def from_json(values: Mapping[str, Any]) -> Config:
    """Inverse of `to_json`; a setting that is not there has its default.

    So the run of an older version, which had fewer settings, can be read: the default
    of a new setting is what was done before there was one.

    Raises:
      InputError: a section is missing, or there is a setting of an unknown name or of
        another type.
    """
    sections = {}
    for section in dataclasses.fields(Config):
        kind: Any = section.type
        names = {field.name for field in dataclasses.fields(kind)}
        stored: Any = values.get(section.name)
        known = isinstance(stored, dict)
        if not known or stored.keys() - names:
            odd = ", ".join(sorted(stored.keys() - names)) if known else "missing"
            raise InputError(
                f"the stored configuration does not fit this version of jaxdl "
                f"({section.name}: {odd}); start a new run"
            )
        given = dict(stored)
        for field in dataclasses.fields(kind):
            value = given.get(field.name)
            if isinstance(value, list):
                given[field.name] = tuple(value)
            elif "Path" in str(field.type) and isinstance(value, str):
                given[field.name] = Path(value)
            if field.name in given and not _fits(given[field.name], field.type):
                allowed = getattr(field.type, "__name__", str(field.type))
                raise InputError(
                    f"the stored configuration has {field.name}={value!r}; allowed is "
                    f"{get_args(field.type) or allowed}"
                )
        sections[section.name] = kind(**given)
    return Config(**sections)


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the type of a setting."""
    parts = get_args(kind)
    if get_origin(kind) is Literal:
        return value in parts
    if get_origin(kind) is tuple:  # of any length
        return isinstance(value, tuple) and all(_fits(one, parts[0]) for one in value)
    if parts:  # a union
        return any(_fits(value, part) for part in parts)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind or (kind is Path and isinstance(value, Path))


def differences(stored: Config, given: Config) -> list[str]:
    """How a configuration given for a resumed run differs from the stored one.

    Where data and runs lie may change, and so may the wish to resume; all else decides
    the bits of the run.
    """
    free = {"resume", "name", "out", "raw_dir", "cache_dir", "profile"}
    found = []
    for section in dataclasses.fields(Config):
        old, new = getattr(stored, section.name), getattr(given, section.name)
        for field in dataclasses.fields(old):
            was, is_now = getattr(old, field.name), getattr(new, field.name)
            if field.name not in free and was != is_now:
                option = "--" + field.name.replace("_", "-")
                found.append(f"{option} was {_shown(was)}, not {_shown(is_now)}")
    return found


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def spelled_out(config: Config) -> Config:
    """The same settings, with what ImageNet's weights decide said outright.

    So network and input stay the same where other weights, or none, take their place.
    """
    if config.model.pretrained != "imagenet":
        return config
    return dataclasses.replace(
        config,
        data=dataclasses.replace(
            config.data, normalise=config.data.normalise or "imagenet"
        ),
        model=dataclasses.replace(
            config.model, layout=config.model.layout or "torchvision"
        ),
    )


def renamed(config: Config, name: str, *, resume: bool) -> Config:
    """The same settings for the run of that name."""
    run = dataclasses.replace(config.run, name=name, resume=resume)
    return dataclasses.replace(config, run=run)

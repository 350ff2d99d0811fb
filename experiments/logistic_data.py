"""The data of the study of logistic regression: real tables and a generator.

Everything is drawn once for each seed and stacked over the seeds, so that one compiled
program fits them all. Features are standardised by the training part of their seed.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split

from jaxdl.data import sources

Law = Literal["logistic", "flipped labels", "curved"]

LAWS: dict[Law, str] = {
    "logistic": "logit P = 3 u.x, which the model can express",
    "flipped labels": "logit 6 u.x, and then one label in ten flipped, which it cannot",
    "curved": "logit P = 3 (x1 + x2^2 - 1), which it cannot",
}
"""The generator's P(1|x); x is standard normal in 5 dimensions, |u| = 1."""


class Part(NamedTuple):
    """Examples of every seed."""

    features: np.ndarray
    """Float64 [S, N, D]."""
    labels: np.ndarray
    """0 or 1 as float64, [S, N]."""


class Study(NamedTuple):
    """One source of data, split anew for every seed."""

    name: str
    train: Part
    validation: Part
    test: Part
    truth: np.ndarray | None
    """P(1|x) of the test examples [S, N], where a generator knows it."""
    overlap: float
    """Test over training examples for splits of one table; 0 for fresh draws."""


def breast_cancer(columns: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Wisconsin's 569 tumours; class 1 is malignant. The first 10 columns are means."""
    features, labels = load_breast_cancer(return_X_y=True)
    return features[:, :columns], 1.0 - labels


def odd_digits(side: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """The 1,797 digits of scikit-learn, 8x8 or averaged to less; class 1 is odd."""
    features, labels = load_digits(return_X_y=True)
    block = 8 // side
    pooled = features.reshape(-1, side, block, side, block).mean((2, 4))
    pooled = pooled.reshape(len(labels), -1)
    return pooled[:, pooled.std(0) > 0], labels % 2.0


def three_or_eight() -> tuple[np.ndarray, np.ndarray]:
    """The digits 3 and 8 of scikit-learn, which a plane divides; class 1 is the 8."""
    features, labels = load_digits(return_X_y=True)
    chosen = np.isin(labels, (3, 8))
    features = features[chosen]
    return features[:, features.std(0) > 0], (labels[chosen] == 8).astype(float)


def mnist_eights() -> tuple[np.ndarray, np.ndarray]:
    """The embedded part of MNIST, averaged to 4x4: the eights, and all other digits."""
    parts = sources.mnist_embedded()
    images = np.concatenate([part[0] for part in parts])
    labels = np.concatenate([part[1] for part in parts])
    pooled = (
        (images / 255).reshape(-1, 4, 7, 4, 7).mean((2, 4)).reshape(len(labels), 16)
    )
    return pooled[labels == 8], pooled[labels != 8]


def splits(
    name: str,
    features: np.ndarray,
    labels: np.ndarray,
    seeds: int,
    train: int | float = 0.5,
) -> Study:
    """A number or share to train on; of the rest 2/5 for choices and 3/5 to test.

    Stratified by class, anew for every seed.
    """
    parts: list[list[np.ndarray]] = []
    for seed in range(seeds):
        chosen, rest = train_test_split(
            np.arange(len(labels)), train_size=train, stratify=labels, random_state=seed
        )
        validation, test = train_test_split(
            rest, train_size=0.4, stratify=labels[rest], random_state=seed
        )
        parts.append([chosen, validation, test])
    stacked = [
        Part(features[rows], labels[rows])
        for rows in map(np.stack, zip(*parts, strict=True))
    ]
    return standardised(name, *stacked)


def generated(law: Law, seeds: int, count: int, test: int = 4000) -> Study:
    """Fresh draws for every seed: `count` to train on, half as many for choices."""
    sizes = (count, count // 2, test)
    features, truths, labels = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng([seed, list(LAWS).index(law)])
        x = rng.standard_normal((sum(sizes), 5))
        p = probability(law, x)
        features.append(x)
        truths.append(p)
        labels.append((rng.random(len(p)) < p).astype(float))
    cuts = np.cumsum(sizes)[:-1]
    parts = [
        Part(x, y)
        for x, y in zip(
            np.split(np.stack(features), cuts, axis=1),
            np.split(np.stack(labels), cuts, axis=1),
            strict=True,
        )
    ]
    truth = np.split(np.stack(truths), cuts, axis=1)[-1]
    return standardised(f"generated, {law}", *parts, truth=truth, fresh=True)


def four_valleys(seed: int) -> Part:
    """Points in the plane for which squared error has a minimum in each quadrant.

    On either axis ten examples near 1 (eight of class 1) ask for a positive weight, and
    five near 10, of class 0, for a negative one. Squared error gives up either the
    latter, which a positive weight makes confident mistakes, or the former. The two
    axes do so independently, hence 2 x 2 minima; in D dimensions 2^D (Auer, Herbster
    and Warmuth 1996). Mirrored, so that the bias stays near 0; each seed moves the
    points a little.
    """
    rng = np.random.default_rng(seed)
    along = np.repeat([1.0, 10.0], [10, 5])
    one = np.repeat([1.0, 0.0, 0.0], [8, 2, 5])
    features, labels = [], []
    for axis in np.eye(2):
        for sign in (1, -1):
            features.append(sign * along[:, None] * axis)
            labels.append(one if sign > 0 else 1 - one)
    x = np.concatenate(features)
    return Part(x + 0.05 * rng.standard_normal(x.shape), np.concatenate(labels))


def blobs(seed: int, count: int = 60) -> Part:
    """Two clouds in the plane with an empty strip between: a plane divides them."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2.0
    side = 2 * labels - 1
    across = side * (0.5 + rng.exponential(1.0, count))
    along = rng.normal(0, 1.5, count) + 0.8 * side
    turn = np.array([[0.8, 0.6], [-0.6, 0.8]])
    return Part(np.column_stack([across, along]) @ turn, labels)


def subsets(features: np.ndarray, labels: np.ndarray, seeds: int, count: int) -> Part:
    """Random stratified subsets of a table, one for each seed, standardised."""
    study = splits("", features, labels, seeds, train=count)
    return study.train


def stacked(parts: Sequence[Part]) -> Part:
    """The parts of all seeds as one."""
    return Part(*map(np.stack, zip(*parts, strict=True)))


def imbalanced(
    name: str,
    draw: Callable[[int], tuple[np.ndarray, np.ndarray]],
    ratio: int,
    seeds: int,
    keep: int,
) -> Study:
    """One rare example for every `ratio` common ones to train on.

    Args:
      name: of the data.
      draw: gives for a seed the features of class 1, [N, D], and of class 0, [M, D].
        Where all seeds get the same, their splits overlap.
      ratio: common over rare.
      seeds: how many splits.
      keep: rare examples set apart for validation, and as many to test; four common
        ones go with each. The same numbers for every ratio.
    """
    parts: list[list[Part]] = [[], [], []]
    fresh = not np.array_equal(draw(0)[0], draw(1)[0])
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        rare, common = draw(seed)
        few = min(len(rare) - 2 * keep, (len(common) - 8 * keep) // ratio)
        rows = [rng.permutation(rare), rng.permutation(common)]
        cuts = [(2 * keep, few), (8 * keep, few * ratio)]
        train = [x[apart : apart + n] for x, (apart, n) in zip(rows, cuts, strict=True)]
        held = [
            np.split(x[:apart], 2) for x, (apart, _) in zip(rows, cuts, strict=True)
        ]
        validation, test = zip(*held, strict=True)
        for part, classes in zip(parts, (train, validation, test), strict=True):
            labels = np.repeat([1.0, 0.0], [len(x) for x in classes])
            part.append(Part(np.concatenate(classes), labels))
    return standardised(name, *map(stacked, parts), fresh=fresh)


def two_normals(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rare and common examples in 5 dimensions: normal, their means 2 apart."""
    rng = np.random.default_rng([seed, 4])
    rare = rng.standard_normal((1500, 5)) + 2 / np.sqrt(5)
    return rare, rng.standard_normal((12_000, 5))


def probability(law: Law, features: np.ndarray) -> np.ndarray:
    """The generator's P(1|x) for features [..., 5]."""
    along = features.sum(-1) / np.sqrt(features.shape[-1])
    if law == "logistic":
        return expit(3 * along)
    if law == "flipped labels":
        return 0.1 + 0.8 * expit(6 * along)
    return expit(3 * (features[..., 0] + features[..., 1] ** 2 - 1))


def standardised(
    name: str,
    train: Part,
    validation: Part,
    test: Part,
    *,
    truth: np.ndarray | None = None,
    fresh: bool = False,
) -> Study:
    """The study, each feature with mean 0 and deviation 1 over the training part.

    `fresh` says that no two seeds share examples.
    """
    mean = train.features.mean(1, keepdims=True)
    spread = train.features.std(1, keepdims=True)
    spread[spread == 0] = 1  # a pixel that is blank in all of these

    def scaled(part: Part) -> Part:
        return Part((part.features - mean) / spread, part.labels)

    overlap = 0.0 if fresh else test.labels.shape[1] / train.labels.shape[1]
    return Study(name, scaled(train), scaled(validation), scaled(test), truth, overlap)

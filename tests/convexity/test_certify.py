import functools
import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from convexity.rows import NOT_CONVEX, data

from jaxdl import losses
from jaxdl.convexity import Convex, NotConvex, Undecided, certify
from jaxdl.convexity.problems import PROBLEMS
from jaxdl.convexity.proof import Claim, Proof, Step
from jaxdl.errors import InputError
from jaxdl.models import registry

KEY = jax.random.key(0)
WRAPS = {"plain": lambda f: f, "jit": jax.jit}


@functools.cache
def of_row(name, wrap):
    loss, example = PROBLEMS[name](*data())
    return certify(WRAPS[wrap](loss), example, key=KEY)


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_row_of_the_table(name, wrap):
    verdict = of_row(name, wrap)
    assert isinstance(verdict, NotConvex if name in NOT_CONVEX else Convex), verdict


@pytest.mark.parametrize("name", sorted(set(PROBLEMS) - NOT_CONVEX))
def test_a_convex_row_has_no_negative_curvature_anywhere(name):
    """Dense Hessians in float64, which know nothing of proofs."""
    loss, example = PROBLEMS[name](*data())
    rng = np.random.default_rng(1)
    with jax.enable_x64(True):
        flat, unravel = jax.flatten_util.ravel_pytree(
            jax.tree.map(lambda x: np.zeros(np.shape(x)), example)
        )
        hessian = jax.jit(jax.hessian(lambda v: loss(unravel(v))))
        for _ in range(10):
            at = hessian(2 * rng.standard_normal(flat.size))
            assert np.linalg.eigvalsh(at)[0] > -1e-6


@pytest.mark.parametrize("name", sorted(NOT_CONVEX))
def test_a_witness_holds_when_jax_computes_it(name):
    loss, example = PROBLEMS[name](*data())
    witness = of_row(name, "plain").witness
    chex.assert_trees_all_equal_shapes(witness.a, example)
    chex.assert_trees_all_equal_shapes(witness.b, example)
    with jax.enable_x64(True):
        middle = jax.tree.map(lambda x, y: (x + y) / 2, witness.a, witness.b)
        a, b, mid = (float(loss(x)) for x in (witness.a, witness.b, middle))
    assert mid - (a + b) / 2 == pytest.approx(witness.gap, rel=1e-3, abs=1e-5)
    # jaxdl's cross-entropy computes in float32, whatever the parameters
    assert a == pytest.approx(witness.at_a[0], rel=1e-5)
    assert mid == pytest.approx(witness.at_midpoint[1], rel=1e-5)
    assert witness.at_a[0] <= witness.at_a[1]


X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
Y = jnp.array([0, 1, 2, 0, 1, 2])
W = np.zeros((4, 3), np.float32)
ONE_HOT = jax.nn.one_hot(Y, 3)
SIGNS = 2 * ONE_HOT - 1
A = np.array([[2.0, -1, 0], [-1, 2, -1], [0, -1, 2]])
X3 = np.ones(3)

CONVEX = {
    "smoothed": (
        lambda w: losses.cross_entropy(X @ w, Y, label_smoothing=0.1).sum(),
        W,
    ),
    "log_softmax by hand": (
        lambda w: -jax.nn.log_softmax(X @ w)[jnp.arange(6), Y].mean(),
        W,
    ),
    "softmax, then log": (
        lambda w: -jnp.log(jax.nn.softmax(X @ w)[jnp.arange(6), Y]).mean(),
        W,
    ),
    "optax one-hot": (lambda w: optax.softmax_cross_entropy(X @ w, ONE_HOT).sum(), W),
    "sigmoid, then log": (lambda w: -jnp.log(jax.nn.sigmoid(X @ w)).mean(), W),
    "log_sigmoid": (lambda w: -jax.nn.log_sigmoid(X @ w).mean(), W),
    "log(1 + exp)": (lambda w: jnp.log(1 + jnp.exp(-X @ w)).mean(), W),
    "TensorFlow's formula": (
        lambda w: (
            jnp.maximum(X @ w, 0)
            - (X @ w) * ONE_HOT
            + jnp.log1p(jnp.exp(-jnp.abs(X @ w)))
        ).mean(),
        W,
    ),
    "logistic + ridge": (
        lambda w: jax.nn.softplus(X @ w).mean() + 0.1 * (w**2).sum(),
        W,
    ),
    "logistic + lasso": (
        lambda w: jax.nn.softplus(X @ w).mean() + 0.1 * jnp.abs(w).sum(),
        W,
    ),
    "squared hinge": (lambda w: (jax.nn.relu(1 - SIGNS * (X @ w)) ** 2).mean(), W),
    "multi-class hinge": (
        lambda w: optax.losses.multiclass_hinge_loss(X @ w, Y).sum(),
        W,
    ),
    "relu by where": (lambda w: jnp.where(X @ w > 0, X @ w, 0).sum(), W),
    "log-cosh": (lambda x: optax.log_cosh(x - 1).sum(), X3),
    "norm": (lambda x: jnp.linalg.norm(A @ x - 1), X3),
    "deviation": (lambda x: jnp.std(x), X3),
    "variance": (lambda x: jnp.var(x), X3),
    "KL": (
        lambda w: optax.losses.kl_divergence(
            jax.nn.log_softmax(X @ w), 0.8 * ONE_HOT + 0.05
        ).mean(),
        W,
    ),
    "quadratic form": (lambda x: x @ A @ x, X3),
    "quadratic form + logistic": (
        lambda x: x @ A @ x + jax.nn.softplus(x).sum(),
        X3,
    ),
    "a scan": (lambda x: jax.lax.scan(lambda c, a: (c + a**2, None), 0.0, x)[0], X3),
    "cumulative sums": (lambda x: (jnp.cumsum(x) ** 2).sum(), X3),
    "max-pooled": (lambda x: jnp.max(A @ x), X3),
    "under remat": (
        jax.checkpoint(lambda w: losses.cross_entropy(X @ w, Y).mean()),
        W,
    ),
    "a constant": (lambda x: jnp.sum(A), X3),
    "dead code": (lambda x: (jnp.sort(x), x.sum())[1], X3),
}


@pytest.mark.parametrize("name", CONVEX)
def test_convex_losses_as_people_write_them(name):
    loss, example = CONVEX[name]
    assert isinstance(verdict := certify(loss, example, key=KEY), Convex), verdict


OTHERS = {
    "Brier": (lambda w: losses.mse(X @ w, Y).mean(), W),
    "focal": (lambda w: optax.losses.sigmoid_focal_loss(X @ w, ONE_HOT).sum(), W),
    "gelu": (lambda w: jax.nn.gelu(X @ w).mean(), W),
    "sine": (lambda x: jnp.sin(x).sum(), X3),
    "product": (lambda x: x[0] * x[1], X3),
    "cubic": (lambda x: x**3, np.float64(0)),
    "minimum": (lambda x: jnp.min(A @ x), X3),
    "minus a kink": (lambda x: -jnp.abs(x).sum(), X3),
    "exp less a tiny square": (lambda x: jnp.exp(x) - 1e-9 * x**2, np.float64(0)),
    "quartic less a tiny square": (
        lambda x: (x - 0.3) ** 4 - 1e-9 * (x - 0.3) ** 2,
        np.float64(0),
    ),
    "a difference of nearly equals": (
        lambda x: (x**2 - x**2 * (1 + 1e-9)).sum(),
        X3,
    ),
    "a step": (lambda x: (x > 0).astype(float).sum(), X3),
}


@pytest.mark.parametrize("name", OTHERS)
def test_losses_that_are_not_convex(name):
    loss, example = OTHERS[name]
    verdict = certify(loss, example, key=KEY)
    assert isinstance(verdict, NotConvex), verdict
    assert verdict.witness.gap > 0


def test_maxima_subtracted_from_the_wrong_rows_are_no_log_sum_exp():
    weights = jnp.array([1.0, 2, 3, 4, 5, 6])

    def loss(w, wrong):
        z = X @ w
        top = jax.lax.stop_gradient(z.max(axis=1))
        lse = jnp.log(jnp.exp(z - top[:, None]).sum(axis=1))
        return weights @ (lse + (jnp.roll(top, 1) if wrong else top))

    assert isinstance(certify(lambda w: loss(w, False), W, key=KEY), Convex)
    assert isinstance(certify(lambda w: loss(w, True), W, key=KEY), NotConvex)


def test_only_the_gradient_is_stopped():
    """What is stopped is still a function of the parameters over the reals."""
    stopped = certify(lambda x: x * jax.lax.stop_gradient(x) * -1.0, 1.0, key=KEY)
    assert isinstance(stopped, NotConvex)


def test_a_lenet_is_not_convex():
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.random((1, 28, 28, 1)), jnp.float32)
    model = registry.build("lenet5", num_classes=10)
    params = jax.tree.map(
        lambda leaf: 0.1 * rng.standard_normal(leaf.shape).astype(np.float32),
        jax.eval_shape(model.init, KEY, images),
    )
    verdict = certify(
        lambda p: losses.cross_entropy(model.apply(p, images), Y[:1]).mean(),
        params,
        key=KEY,
    )
    assert isinstance(verdict, NotConvex), verdict


@pytest.mark.parametrize(
    "loss", [lambda x: jnp.sort(x)[0], lambda x: jnp.linalg.slogdet(jnp.diag(x))[1]]
)
def test_an_unknown_primitive_is_named_and_not_guessed_at(loss):
    verdict = certify(loss, X3, key=KEY)
    assert isinstance(verdict, Undecided)
    assert "sort" in str(verdict) or "lu" in str(verdict)


def test_undecided_says_what_was_tried():
    """Convex where it is defined, but no function on the whole space."""
    verdict = certify(lambda x: -jnp.log(x).sum(), X3, key=KEY)
    assert isinstance(verdict, Undecided)
    assert "segments" in str(verdict)


def test_any_kind_of_key_will_do():
    loss = lambda x: jnp.sin(x)  # noqa: E731
    for key in (jax.random.key(3), jax.random.PRNGKey(3)):
        assert isinstance(certify(loss, 0.0, key=key), NotConvex)


def test_a_proof_that_the_checker_refuses_counts_for_nothing(monkeypatch):
    """Whatever the search for proofs claims, here that a sine is a constant."""

    def lies(program, **_):
        claim = Claim(program.output, "constant")
        return Proof(program, (Step(claim, "data"),))

    module = importlib.import_module("jaxdl.convexity.certify")
    monkeypatch.setattr(module, "prove", lies)
    assert isinstance(certify(jnp.sin, 0.0, key=KEY), NotConvex)
    verdict = certify(lambda x: -jnp.log(x), 1.0, key=KEY)
    assert isinstance(verdict, Undecided)
    assert "refused" in str(verdict)


def test_literals_are_read_in_the_precision_of_the_parameters():
    """In float32 1 + 1e-9 is 1, and what is left is 0, which is convex."""
    loss = lambda x: x**2 - x**2 * (1 + np.float32(1e-9))  # noqa: E731
    assert isinstance(certify(loss, np.float32(0), key=KEY), Convex)
    loss = lambda x: x**2 - x**2 * (1 + 1e-9)  # noqa: E731
    assert isinstance(certify(loss, np.float32(0), key=KEY), Convex)
    assert isinstance(certify(loss, np.float64(0), key=KEY), NotConvex)


def test_the_verdicts_read_well():
    assert str(of_row("softmax", "plain")) == "convex: exp, log-sum-exp"
    assert str(of_row("ReLU network", "plain")).startswith("not convex: f(mid) = ")
    proof = str(of_row("softmax", "plain").proof)
    assert "log v" in proof and "is convex" in proof


@pytest.mark.parametrize(
    ("loss", "example", "message"),
    [
        (lambda x: x, X3, r"real scalar, got float\d+\[3\]"),
        (lambda x: (x.sum(), x.sum()), X3, "real scalar"),
        (lambda x: (x > 0).sum(), np.float32(1), "real float, got int"),
        (lambda x: x.sum(), np.arange(3), "got int64; convert it"),
        (lambda x: x.sum(), np.array([1.0, np.nan]), "finite"),
        (lambda x: 0.0, {}, "no parameters"),
        (lambda x: x.sum(), np.ones(2, np.complex64), "complex64"),
    ],
)
def test_bad_input_is_an_input_error(loss, example, message):
    with pytest.raises(InputError, match=message):
        certify(loss, example, key=KEY)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 2)), np.array([0, 1]), r"\(3, 2\) and \(2,\)"),
        (np.ones((2, 2)), np.array([0.0, 1.0]), "float64"),
        (np.ones((2, 2)), np.array([-1, 1]), "-1"),
        (np.ones((2, 2)), np.array([0, 2]), "labels up to 2"),
    ],
)
def test_problems_name_what_is_wrong_with_the_data(features, labels, message):
    with pytest.raises(InputError, match=message):
        PROBLEMS["hinge"](features, labels)

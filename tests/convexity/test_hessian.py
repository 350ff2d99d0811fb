"""Products and dense Hessians against closed forms, finite differences and torch's."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from absl.testing import parameterized
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from jaxdl.convexity import hessian
from jaxdl.errors import InputError
from jaxdl.losses import cross_entropy
from jaxdl.models import registry


def random(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape))


def quadratic(seed: int, n: int):
    """(A + A^T, the loss x^T A x over a vector)."""
    a = random(seed, n, n)
    return a + a.T, lambda x: x @ a @ x


def network(classes: int = 3):
    """(loss, parameters, loss of a batch, data) of a network with a hidden layer."""
    model = registry.build("fnn", num_classes=classes, hidden=(5,), activation="tanh")
    images = random(0, 11, 2, 3, 1)
    labels = jnp.arange(11) % classes
    params = jax.jit(model.init)(jax.random.key(0), images)["params"]

    def mean(params, data):
        images, labels = data
        return cross_entropy(model.apply({"params": params}, images), labels).mean()

    return lambda p: mean(p, (images, labels)), params, mean, (images, labels)


class Product(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_of_a_quadratic_is_its_matrix(self):
        with jax.enable_x64():
            matrix, loss = quadratic(0, 7)

            @self.variant
            def multiply(at, vector):
                return hessian.product(loss, at)(vector)

            at, vector = random(1, 7), random(2, 7)
            np.testing.assert_allclose(
                multiply(at, vector), matrix @ vector, rtol=1e-12
            )

    @chex.variants(with_jit=True, without_jit=True)
    def test_is_linear_and_symmetric(self):
        loss, params, _, _ = network()
        flat, unravel = ravel_pytree(params)

        @self.variant
        def multiply(params, vector):
            return ravel_pytree(hessian.product(loss, params)(unravel(vector)))[0]

        u, v = (random(seed, flat.size).astype(jnp.float32) for seed in (3, 4))
        hu, hv = multiply(params, u), multiply(params, v)
        scale = float(jnp.linalg.norm(hu))
        both = multiply(params, 2 * u - 3 * v)
        np.testing.assert_allclose(both, 2 * hu - 3 * hv, atol=1e-5 * scale)
        np.testing.assert_allclose(u @ hv, v @ hu, rtol=1e-4)

    @chex.variants(with_jit=True, without_jit=True)
    @parameterized.parameters(3, 64)
    def test_in_chunks_is_the_product_over_all(self, chunk):
        loss, params, mean, data = network()
        vector = jax.tree.map(jnp.cos, params)

        @self.variant
        def chunked(params, vector):
            return hessian.mean_product(mean, params, data, chunk=chunk)(vector)

        whole = hessian.product(loss, params)(vector)
        chex.assert_trees_all_close(chunked(params, vector), whole, atol=2e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_batched_by_vmap(self):
        loss, params, _, _ = network()
        flat, unravel = ravel_pytree(params)
        vectors = random(5, 4, flat.size).astype(jnp.float32)

        @self.variant
        def multiply(params):
            return jax.vmap(hessian.product(loss, params))(jax.vmap(unravel)(vectors))

        one_by_one = [hessian.product(loss, params)(unravel(v)) for v in vectors]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *one_by_one)
        chex.assert_trees_all_close(multiply(params), stacked, atol=1e-5)


SHAPES = st.lists(
    st.lists(st.integers(0, 3), max_size=3).map(tuple), min_size=1, max_size=4
).filter(lambda shapes: sum(map(np.prod, shapes)) > 0)


@given(SHAPES, st.integers(0, 10))
@settings(deadline=None, max_examples=5)
def test_dense_over_any_pytree_is_the_derivative_of_the_gradient(shapes, seed):
    with jax.enable_x64():
        params = {
            str(i): (random(seed + i, *s), [random(seed - i + 9, *s)])
            for i, s in enumerate(shapes)
        }
        flat, unravel = ravel_pytree(params)
        mix = random(seed, flat.size, flat.size)

        def loss(tree):
            x = ravel_pytree(tree)[0]
            return jnp.sum(jnp.sin(mix @ x)) + jnp.sum(x**4)

        found = jax.jit(lambda params: hessian.dense(loss, params))(params)
        gradient = jax.jit(jax.grad(lambda x: loss(unravel(x))))
        numeric = scipy.optimize.approx_fprime(flat, gradient, 1e-7)
        chex.assert_shape(found, (flat.size, flat.size))
        np.testing.assert_allclose(found, numeric, atol=1e-4 * (1 + abs(found).max()))
        np.testing.assert_array_equal(found, found.T)


def test_dense_of_least_squares_in_closed_form():
    x, y = random(0, 20, 4), random(1, 20, 2)
    with jax.enable_x64():
        x, y = jnp.asarray(x, jnp.float64), jnp.asarray(y, jnp.float64)

        def loss(weights):
            return jnp.mean((x @ weights - y) ** 2)

        found = hessian.dense(loss, jnp.zeros((4, 2), jnp.float64))
        np.testing.assert_allclose(found, np.kron(2 * x.T @ x / 40, np.eye(2)))


def test_dense_agrees_with_torch():
    torch = pytest.importorskip("torch")
    loss, params, _, (images, labels) = network()
    flat, _ = ravel_pytree(params)
    found = hessian.dense(loss, params)
    x, y = torch.tensor(np.asarray(images)).flatten(1), torch.tensor(np.asarray(labels))
    leaves, structure = jax.tree.flatten(params)  # the order of ravel_pytree

    def torch_loss(flat):
        parts = flat.split([leaf.size for leaf in leaves])
        shaped = [p.reshape(x.shape) for p, x in zip(parts, leaves, strict=True)]
        tree = jax.tree.unflatten(structure, shaped)
        first, second = tree["hidden_0"], tree["head"]
        hidden = torch.tanh(x @ first["kernel"] + first["bias"])
        logits = hidden @ second["kernel"] + second["bias"]
        return torch.nn.functional.cross_entropy(logits, y.long())

    theirs = torch.autograd.functional.hessian(
        torch_loss, torch.tensor(np.asarray(flat))
    )
    np.testing.assert_allclose(found, theirs, atol=1e-5)


def test_gauss_newton_is_the_hessian_where_the_model_is_linear():
    x, y = random(0, 9, 3).astype(jnp.float32), jnp.arange(9) % 4
    weights = random(1, 3, 4).astype(jnp.float32)
    vector = random(2, 3, 4).astype(jnp.float32)

    def model(weights):
        return x @ weights

    def loss(logits):
        return cross_entropy(logits, y).mean()

    found = jax.jit(lambda w: hessian.gauss_newton_product(model, loss, w)(vector))
    whole = hessian.product(lambda w: loss(model(w)), weights)(vector)
    np.testing.assert_allclose(found(weights), whole, atol=1e-6)


def test_gauss_newton_in_closed_form_and_never_negative():
    def model(p):
        return jnp.array([p[0] * p[1], jnp.sin(p[1])])

    def loss(outputs):
        return jnp.sum((outputs - jnp.array([3.0, -2.0])) ** 2)

    at = jnp.array([0.5, -1.5])
    multiply = hessian.gauss_newton_product(model, loss, at)
    jacobian = np.array([[-1.5, 0.5], [0, np.cos(-1.5)]])
    expected = 2 * jacobian.T @ jacobian
    np.testing.assert_allclose(jax.vmap(multiply)(jnp.eye(2)), expected, rtol=1e-5)
    whole = hessian.dense(lambda p: loss(model(p)), at)
    assert np.linalg.eigvalsh(whole)[0] < -1 < 0 <= np.linalg.eigvalsh(expected)[0]


@pytest.mark.parametrize(
    ("loss", "params", "said"),
    [
        (
            lambda x: x,
            jnp.ones(3),
            r"one real number .* not float32\[3\]; take",
        ),
        (lambda x: x.sum() > 0, jnp.ones(3), r"not bool\[\]"),
        (lambda x: (x.sum(), x), jnp.ones(3), "not a tuple"),
        (lambda x: x["a"].sum() * 1.0, {"a": jnp.arange(3)}, r"\['a'\] is int32"),
        (lambda x: jnp.abs(x).sum(), jnp.ones(3) * 1j, "at the root is complex64"),
        (lambda x: 0.0, {}, "there are no parameters"),
        (lambda x: x.sum(), jnp.ones((0, 3)), "there are no parameters"),
    ],
)
def test_what_has_no_hessian_is_refused(loss, params, said):
    for function in (hessian.product, hessian.dense):
        with pytest.raises(InputError, match=said):
            function(loss, params)


def test_too_many_for_a_dense_matrix():
    with pytest.raises(InputError, match=r"10,000 parameters, not 10,001; use"):
        hessian.dense(lambda x: (x**2).sum(), jnp.ones(10_001))


@pytest.mark.parametrize(
    ("data", "chunk", "said"),
    [
        (jnp.ones((4, 2)), 0, "chunk must be at least 1, not 0"),
        ((jnp.ones((4, 2)), jnp.ones(3)), 2, r"their lengths are \[3, 4\]"),
        (jnp.ones((0, 2)), 2, "at least one"),
        (jnp.ones(()), 2, "a scalar"),
        ((), 2, "none"),
    ],
)
def test_data_that_cannot_be_chunked(data, chunk, said):
    with pytest.raises(InputError, match=said):
        hessian.mean_product(lambda p, d: p.sum(), jnp.ones(2), data, chunk=chunk)

"""Functions of known status, drawn by hypothesis: convex by their making, or not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st

N = 3
"""All are functions of a vector of this length."""


def dyadic(low, high, bits=4):
    """Numbers that float32 and float64 have exactly."""
    unit = 2**bits
    return st.integers(low * unit, high * unit).map(lambda k: k / unit)


def matrices(rows, columns=N, low=-2, high=2):
    return st.lists(
        dyadic(low, high), min_size=rows * columns, max_size=rows * columns
    ).map(lambda xs: np.array(xs).reshape(rows, columns))


affine = st.tuples(matrices(4), matrices(1, 4)).map(
    lambda ab: lambda x: ab[0] @ x + ab[1][0]
)
"""From a vector [N] to [4]."""

CONVEX_OF_AFFINE = {
    "square": lambda z: (z**2).sum(),
    "fourth power": lambda z: (z**4).mean(),
    "abs": lambda z: jnp.abs(z).sum(),
    "norm": jnp.linalg.norm,
    "exp": lambda z: jnp.exp(z).sum(),
    "log-sum-exp": jax.nn.logsumexp,
    "stable log-sum-exp": lambda z: z.max() + jnp.log(jnp.exp(z - z.max()).sum()),
    "cross-entropy": lambda z: optax.softmax_cross_entropy_with_integer_labels(z, 1),
    "softplus": lambda z: jax.nn.softplus(z).sum(),
    "log-sigmoid": lambda z: -jax.nn.log_sigmoid(z).mean(),
    "log-cosh": lambda z: optax.log_cosh(z).sum(),
    "Huber": lambda z: optax.huber_loss(z, delta=0.5).sum(),
    "hinge": lambda z: jax.nn.relu(1 - z).sum(),
    "squared hinge": lambda z: (jax.nn.relu(1 - z) ** 2).sum(),
    "max": jnp.max,
    "linear": jnp.sum,
}
CONVEX_OF_CONVEX = {
    "exp": jnp.exp,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "square of relu": lambda y: jax.nn.relu(y) ** 2,
    "itself": lambda y: y,
    "log of 1 + exp": lambda y: jnp.log1p(jnp.exp(y)),
}


@st.composite
def convex_functions(draw):
    """Sums and maxima with weights >= 0 of convex functions of affine ones."""

    def term():
        name = draw(st.sampled_from(sorted(CONVEX_OF_AFFINE)))
        inner = CONVEX_OF_AFFINE[name]
        outer = CONVEX_OF_CONVEX[draw(st.sampled_from(sorted(CONVEX_OF_CONVEX)))]
        into, weight = draw(affine), draw(dyadic(0, 3))
        return lambda x: weight * outer(inner(into(x)))

    terms = [term() for _ in range(draw(st.integers(1, 3)))]
    if draw(st.booleans()):
        return lambda x: sum(t(x) for t in terms)
    return lambda x: jnp.stack([t(x) for t in terms]).max()


CONCAVE_SOMEWHERE = {
    "minus a square": lambda z: -(z**2),
    "product": lambda z: z * jnp.roll(z, 1, axis=-1) if z.ndim else -z * z,
    "sine": jnp.sin,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "cube": lambda z: z**3,
    "minus abs": lambda z: -jnp.abs(z),
    "min": lambda z: jnp.minimum(z, 1.0),
    "minus softplus": lambda z: -jax.nn.softplus(z),
    "Gaussian": lambda z: -jnp.exp(-(z**2)),
    "gelu": jax.nn.gelu,
    "clip": lambda z: jnp.clip(z, -1, 1),
}
"""None of these is convex in z on the whole line."""


@st.composite
def functions_not_convex(draw):
    """A function that is not convex along an axis along which all else is affine.

    Along that axis the sum is as little convex as the part, however small that is.
    """
    part = CONCAVE_SOMEWHERE[draw(st.sampled_from(sorted(CONCAVE_SOMEWHERE)))]
    size = draw(st.sampled_from([1.0, 1e-3, 1e-9]))
    rest, slope = draw(convex_functions()), draw(dyadic(-2, 2))

    def function(x):
        others = x * np.array([0.0, 1.0, 1.0])
        return rest(others) + slope * x[0] + size * part(x[0])

    return function


@st.composite
def unimodular(draw, n):
    """An integer matrix [n, n] of determinant 1."""
    low = np.tril(draw(matrices(n, n)).round(), -1) + np.eye(n)
    high = np.triu(draw(matrices(n, n)).round(), 1) + np.eye(n)
    return low @ high


@st.composite
def quadratics(draw, least):
    """A form (x - c)^T B D B^T (x - c), of which D's least entry is `least`.

    By Sylvester's law of inertia it is convex if and only if least >= 0; all numbers
    are exact in float64.
    """
    n = draw(st.integers(2, 5))
    rest = draw(st.lists(st.integers(0, 4), min_size=n - 1, max_size=n - 1))
    d = [int(x * 2**33) for x in (least, *rest)]
    b = np.array(draw(unimodular(n)).astype(int).tolist(), object)  # Python's integers
    exact = b @ np.diag(np.array(d, object)) @ b.T
    matrix = exact.astype(np.float64)
    assert (matrix.astype(object) == exact).all()
    return n, matrix / 2**33, draw(matrices(1, n))[0]

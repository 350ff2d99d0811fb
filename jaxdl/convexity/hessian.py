"""Hessians of a loss over any pytree: as a product with a vector, and dense when small.

A product costs a few gradients and never forms the matrix (Pearlmutter 1994, "Fast
exact multiplication by the Hessian"). Here it is forward over reverse, and linearised
once: what does not depend on the vector (the forward pass, the backward pass) is
computed once and kept, however many products follow.

Every function here is pure and can be called under `jit`. A product closes over its
parameters; so compile what uses it, with the parameters as arguments:

    @jax.jit
    def curvature(params, vector):
        return hessian.product(loss, params)(vector)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from jaxdl.errors import InputError

Tree = Any
"""A pytree of floating-point arrays, of any shapes; each leaf real."""
Loss = Callable[[Tree], jax.Array]
"""parameters -> float []."""
Product = Callable[[Tree], Tree]
"""A linear function: vector -> matrix times vector, both shaped as the parameters."""

DENSE_LIMIT = 10_000
"""Most parameters of a dense Hessian: 400 MB in float32."""


def product(loss: Loss, params: Tree) -> Product:
    r"""The Hessian at `params`, as the function :math:`v \mapsto \nabla^2 f(p)\, v`.

    It holds the activations of the loss; where these are too many, see `mean_product`.

    Args:
      loss: twice differentiable by JAX. Where it is not (the corner of a hinge), the
        product is that of the derivative which JAX chooses there.
      params: where the Hessian is taken.

    Returns:
      A linear function, to be called as often as needed, jitted, or batched by `vmap`.

    Raises:
      InputError: the loss is not a real scalar, or a parameter is not real.
    """
    _check(loss, params)
    _, linear = jax.linearize(jax.grad(loss), params)
    return linear


def mean_product(
    loss: Callable[[Tree, Tree], jax.Array], params: Tree, data: Tree, *, chunk: int
) -> Product:
    """The Hessian of a mean over examples, a chunk of them at a time.

    For data whose activations do not fit into memory: each product goes through the
    whole data again, and holds the activations of one chunk.

    Args:
      loss: (parameters, some examples) -> mean loss over these, float [].
      params: where the Hessian is taken.
      data: pytree of arrays whose first axis, N long, counts the examples.
      chunk: examples at a time; a last one, of those that remain, may be smaller.

    Returns:
      As `product`.

    Raises:
      InputError: as `product`; or there are no data, or their lengths differ, or the
        chunk is empty.
    """
    count = _length(data)
    if chunk < 1:
        raise InputError(f"chunk must be at least 1, not {chunk}")
    whole, rest = divmod(count, chunk)
    last = jax.tree.map(lambda x: x[count - rest :], data)
    chunks = jax.tree.map(
        lambda x: x[: count - rest].reshape(whole, chunk, *x.shape[1:]), data
    )
    _check(
        lambda p: loss(p, jax.tree.map(lambda x: x[: min(chunk, count)], data)), params
    )

    def share(vector: Tree, part: Tree, weight: float) -> Tree:
        gradient = jax.grad(loss)
        _, tangent = jax.jvp(lambda p: gradient(p, part), (params,), (vector,))
        return jax.tree.map(lambda x: weight * x, tangent)

    def multiply(vector: Tree) -> Tree:
        def add(total: Tree, part: Tree) -> tuple[Tree, None]:
            more = share(vector, part, chunk / count)
            return jax.tree.map(jnp.add, total, more), None

        total = jax.tree.map(jnp.zeros_like, vector)
        if whole:
            total, _ = jax.lax.scan(add, total, chunks)
        if rest:
            total = jax.tree.map(jnp.add, total, share(vector, last, rest / count))
        return total

    return multiply


def gauss_newton_product(
    model: Callable[[Tree], jax.Array],
    loss: Callable[[jax.Array], jax.Array],
    params: Tree,
) -> Product:
    r"""The generalised Gauss-Newton matrix of loss(model(params)), as a product.

    :math:`J^T H_\ell J`: the part of the Hessian that is left where the model is
    replaced by its linear approximation (Schraudolph 2002, "Fast curvature
    matrix-vector products for second-order gradient descent"). It is positive
    semi-definite where the loss is convex in the outputs, so negative curvature of the
    whole then comes from the model alone.

    Args:
      model: parameters -> outputs, float of any shape.
      loss: outputs -> float [].
      params: where the matrix is taken.

    Returns:
      As `product`.

    Raises:
      InputError: as `product`.
    """
    _check(lambda p: loss(model(p)), params)
    outputs, push = jax.linearize(model, params)
    pull = jax.linear_transpose(push, params)
    curve = product(loss, outputs)

    def multiply(vector: Tree) -> Tree:
        (result,) = pull(curve(push(vector)))
        return result

    return multiply


def dense(loss: Loss, params: Tree) -> jax.Array:
    """The whole Hessian, over the parameters in the order of `ravel_pytree`.

    Args:
      loss: as for `product`.
      params: where the Hessian is taken; n numbers in all.

    Returns:
      float [n, n], symmetric to the last bit: the mean of what is computed and its
      transpose, which differ by rounding.

    Raises:
      InputError: as `product`; or n exceeds `DENSE_LIMIT`.
    """
    flat, unravel = ravel_pytree(params)
    if flat.size > DENSE_LIMIT:
        raise InputError(
            f"a dense Hessian takes at most {DENSE_LIMIT:,} parameters, not "
            f"{flat.size:,}; use hessian.product and spectrum.eigenpairs"
        )
    multiply = product(loss, params)
    columns = jax.lax.map(
        lambda unit: ravel_pytree(multiply(unravel(unit)))[0],
        jnp.eye(flat.size, dtype=flat.dtype),
        batch_size=64,  # all at once would need n times the activations
    )
    return (columns + columns.T) / 2


def _check(loss: Loss, params: Tree) -> None:
    """Refuses what has no Hessian, with a line that says why."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not sum(jnp.size(leaf) for _, leaf in leaves):
        raise InputError("there are no parameters: a Hessian needs at least one number")
    for path, leaf in leaves:
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise InputError(
                f"parameter {jax.tree_util.keystr(path) or 'at the root'} is "
                f"{jnp.result_type(leaf)}; parameters must be real floating-point "
                f"arrays"
            )
    value = jax.eval_shape(loss, params)
    if not isinstance(value, jax.ShapeDtypeStruct):
        found = f"a {type(value).__name__}"
    elif value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        found = f"{value.dtype}{list(value.shape)}"
    else:
        return
    raise InputError(
        f"the loss must return one real number (a float array of shape []), not "
        f"{found}; take its mean or its sum"
    )


def _length(data: Tree) -> int:
    """How many examples the data hold."""
    lengths = {jnp.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths & {(), (0,)}:
        found = sorted(size[0] if size else "a scalar" for size in lengths) or "none"
        raise InputError(
            f"data must be arrays with the same number of examples, at least one, "
            f"along the first axis; their lengths are {found}"
        )
    return int(lengths.pop()[0])

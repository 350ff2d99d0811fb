"""What batch normalisation is made of, each part in the form that XLA computes well.

XLA's CPU backend runs elementwise expressions at the speed of memory and sums over rows
at a tenth of it. So the former stay expressions, which it fuses with what stands around
them, and only the sums become calls of the native engine, or, where there is none, a
form that it computes well. Three functions make a closed family: the derivative of each
is written with the other two, so that gradients of any order stay fast.

    affine(x, c, a, b)     = (x - c) * a + b
    channel_sums(g, x, c)  = sum of g, sum of g * (x - c): the transpose in (b, a)
    moments(x)             = mean, biased variance

All take arrays [*stack, *axes, channels], vectors [*stack, channels], and reduce over
the axes in the middle; `vmap` makes the stack. They compute in float32 or wider.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax._src import dispatch  # no public name evaluates a primitive
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.typing import DTypeLike

from jaxdl.ops import sums, varying

affine_p = Primitive("jaxdl_affine")
moments_p, channel_sums_p = map(Primitive, sums.TARGETS)
channel_sums_p.multiple_results = True
moments_p.multiple_results = True


def affine(
    x: jax.Array,
    centre: jax.Array,
    factor: jax.Array,
    offset: jax.Array,
    *,
    stacked: int = 0,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """`(x - centre) * factor + offset`, channel by channel.

    Args:
      x: floating point, [*stack, *axes, channels].
      centre: [*stack, channels].
      factor: [*stack, channels].
      offset: [*stack, channels].
      stacked: number of leading axes that the vectors have too.
      dtype: number format of the result; by default that of the computation, which is
        the wider of `x` and float32.

    Returns:
      An array of the shape of `x`.
    """
    wide = sums.wide(x.dtype)
    vectors = (v.astype(wide) for v in (centre, factor, offset))
    dtype = jnp.dtype(wide if dtype is None else dtype)
    return affine_p.bind(*varying.alike(x, *vectors), stacked=stacked, dtype=dtype)


def channel_sums(
    g: jax.Array, x: jax.Array, centre: jax.Array, *, stacked: int = 0
) -> sums.Pair:
    """Sums of `g` and of `g * (x - centre)` over all axes between stack and channels.

    Args:
      g: floating point, [*stack, *axes, channels].
      x: floating point, the same shape.
      centre: [*stack, channels].
      stacked: number of leading axes that are not summed over.

    Returns:
      Two vectors [*stack, channels], float32 or wider.
    """
    centre = centre.astype(sums.wide(g.dtype, x.dtype))
    totals = channel_sums_p.bind(*varying.alike(g, x, centre), stacked=stacked)
    return totals[0], totals[1]


def moments(x: jax.Array, *, stacked: int = 0) -> sums.Pair:
    """Mean and biased variance over all axes between stack and channels.

    A mean that is large against the spread costs no digits: squares are taken of
    distances from it.

    Args:
      x: floating point, [*stack, *axes, channels].
      stacked: number of leading axes that are not averaged over.

    Returns:
      Two vectors [*stack, channels], float32 or wider.
    """
    mean, variance = moments_p.bind(x, stacked=stacked)
    return mean, variance


# Types.


def _affine_type(x: Any, *vectors: Any, stacked: int, dtype: Any) -> Any:
    del vectors, stacked
    return x.update(dtype=dtype, weak_type=False)


def _channel_sums_type(g: Any, x: Any, centre: Any, *, stacked: int) -> Any:
    if g.shape != x.shape:
        raise ValueError(f"channel_sums: shapes {g.shape} and {x.shape} differ")
    del stacked
    return [centre.update(weak_type=False)] * 2


def _moments_type(x: Any, *, stacked: int) -> Any:
    shape = (*x.shape[:stacked], x.shape[-1])
    spec = x.sharding.spec
    sharding = x.sharding.update(spec=(*spec[:stacked], spec[-1]))
    vector = x.update(
        shape=shape, dtype=sums.wide(x.dtype), weak_type=False, sharding=sharding
    )
    return [vector] * 2


# Derivatives.


def _affine_jvp(
    primals: Sequence[jax.Array],
    tangents: Sequence[Any],
    *,
    stacked: int,
    dtype: Any,
) -> tuple[jax.Array, Any]:
    x, centre, factor, offset = primals
    dx, *moved = tangents
    like = functools.partial(affine, stacked=stacked, dtype=dtype)
    result = like(x, centre, factor, offset)
    nothing = jnp.zeros_like(offset)
    terms = []
    if not isinstance(dx, ad.Zero):
        terms.append(like(dx, nothing, factor, nothing))
    if not all(isinstance(d, ad.Zero) for d in moved):
        dcentre, dfactor, doffset = map(ad.instantiate_zeros, moved)
        terms.append(like(x, centre, dfactor, doffset - factor * dcentre))
    return result, functools.reduce(jnp.add, terms)


def _affine_transpose(
    cotangent: Any,
    x: Any,
    centre: Any,
    factor: Any,
    offset: Any,
    *,
    stacked: int,
    dtype: Any,
) -> list[Any]:
    """Linear in (factor, offset), or in `x` where centre and offset are zero."""
    del dtype
    if isinstance(cotangent, ad.Zero):
        return [None] * 4
    if ad.is_undefined_primal(x):
        nothing = jnp.zeros_like(factor)
        back = affine(
            cotangent, nothing, factor, nothing, stacked=stacked, dtype=x.aval.dtype
        )
        return [back, None, None, None]
    totals, products = channel_sums(cotangent, x, centre, stacked=stacked)
    return [
        None,
        None,
        *(
            total.astype(v.aval.dtype) if ad.is_undefined_primal(v) else None
            for v, total in ((factor, products), (offset, totals))
        ),
    ]


def _channel_sums_jvp(
    primals: Sequence[jax.Array], tangents: Sequence[Any], *, stacked: int
) -> tuple[sums.Pair, sums.Pair]:
    g, x, centre = primals
    dg, dx, dcentre = tangents
    total = functools.partial(channel_sums, stacked=stacked)
    totals, products = total(g, x, centre)
    dtotals = dproducts = jnp.zeros_like(totals)
    if not isinstance(dg, ad.Zero):
        dtotals, dproducts = total(dg, x, centre)
    if not isinstance(dx, ad.Zero):
        dproducts += total(g, dx, jnp.zeros_like(centre))[1]
    if not isinstance(dcentre, ad.Zero):
        dproducts -= totals * dcentre
    return (totals, products), (dtotals, dproducts)


def _channel_sums_transpose(
    cotangents: Sequence[Any], g: Any, x: Any, centre: Any, *, stacked: int
) -> list[Any]:
    """Linear in `g`, or in `x` where the centre is zero."""
    if all(isinstance(ct, ad.Zero) for ct in cotangents):
        return [None] * 3
    ct_totals, ct_products = map(ad.instantiate_zeros, cotangents)
    back = functools.partial(affine, stacked=stacked)
    if ad.is_undefined_primal(g):
        return [
            back(x, centre, ct_products, ct_totals, dtype=g.aval.dtype),
            None,
            None,
        ]
    nothing = jnp.zeros_like(ct_products)
    return [None, back(g, nothing, ct_products, nothing, dtype=x.aval.dtype), None]


def _moments_jvp(
    primals: Sequence[jax.Array], tangents: Sequence[jax.Array], *, stacked: int
) -> tuple[sums.Pair, sums.Pair]:
    (x,), (dx,) = primals, tangents
    mean, variance = moments(x, stacked=stacked)
    count = sums.count_of(x, stacked)
    totals, products = channel_sums(dx, x, mean, stacked=stacked)
    return (mean, variance), (totals / count, products * (2 / max(count, 1)))


def _batch(
    primitive: Primitive, args: Sequence[jax.Array], dims: Sequence[Any], **params: Any
) -> tuple[Any, Any]:
    """The mapped axis becomes the first of the stack."""
    size = next(a.shape[d] for a, d in zip(args, dims, strict=True) if d is not None)
    front = [
        jnp.broadcast_to(a, (size, *a.shape)) if d is None else jnp.moveaxis(a, d, 0)
        for a, d in zip(args, dims, strict=True)
    ]
    out = primitive.bind(*front, **{**params, "stacked": params["stacked"] + 1})
    return (out, [0] * len(out)) if primitive.multiple_results else (out, 0)


def _define(
    primitive: Primitive, type_: Any, jvp: Any, transpose: Any, meaning: Any
) -> None:
    primitive.def_impl(functools.partial(dispatch.apply_primitive, primitive))
    primitive.def_abstract_eval(type_)
    ad.primitive_jvps[primitive] = jvp
    if transpose is not None:
        ad.primitive_transposes[primitive] = transpose
    batching.primitive_batchers[primitive] = functools.partial(_batch, primitive)
    lower = mlir.lower_fun(meaning, multiple_results=primitive.multiple_results)
    mlir.register_lowering(primitive, lower)


_define(affine_p, _affine_type, _affine_jvp, _affine_transpose, sums.affine)
_define(
    channel_sums_p,
    _channel_sums_type,
    _channel_sums_jvp,
    _channel_sums_transpose,
    functools.partial(sums.channel_sums, total=sums.plain_sum),
)
_define(
    moments_p,
    _moments_type,
    _moments_jvp,
    None,
    functools.partial(sums.moments, total=sums.plain_sum),
)
for _primitive, _form in (
    (channel_sums_p, sums.channel_sums),
    (moments_p, sums.moments),
):
    _pure = functools.partial(_form, total=sums.product_sum)
    _rule = functools.partial(sums.lower_on_cpu, _primitive.name, _pure)
    mlir.register_lowering(_primitive, _rule, platform="cpu")

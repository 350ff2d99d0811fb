"""Losses along segments and over planes, against their values point by point."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdl.convexity import landscape

CENTRE = {"x": jnp.array([1.0, 2.0]), "y": jnp.array(3.0)}


def loss(tree):
    return tree["x"][0] ** 2 - 3 * tree["x"][1] + tree["y"] * tree["x"][0]


@pytest.mark.parametrize("jit", [True, False])
def test_along_a_segment(jit):
    end = {"x": jnp.array([-1.0, 4.0]), "y": jnp.array(0.0)}

    def along(places):
        return landscape.along(loss, CENTRE, end, places)

    places = jnp.array([-0.5, 0.0, 0.25, 1.0])
    found = (jax.jit(along) if jit else along)(places)
    x, z, y = 1 - 2 * places, 2 + 2 * places, 3 - 3 * places
    np.testing.assert_allclose(found, x**2 - 3 * z + y * x, rtol=1e-6)


@pytest.mark.parametrize("jit", [True, False])
def test_over_a_plane_as_contour_takes_it(jit):
    u = {"x": jnp.array([1.0, 0.0]), "y": jnp.array(0.0)}
    v = {"x": jnp.array([0.0, 1.0]), "y": jnp.array(2.0)}

    def over(first, second):
        return landscape.over(loss, CENTRE, (u, v), first, second)

    s, t = jnp.array([-1.0, 0.0, 2.0]), jnp.array([0.5, 1.5])
    found = (jax.jit(over) if jit else over)(s, t)
    s, t = np.meshgrid(s, t)
    expected = (1 + s) ** 2 - 3 * (2 + t) + (3 + 2 * t) * (1 + s)
    np.testing.assert_allclose(found, expected, rtol=1e-6)

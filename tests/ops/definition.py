"""A convolution and its gradients by their definition, in float64."""

import itertools

import numpy as np


def correlate(images, kernel, gradient, strides, padding, dilation):
    """[N, H, W, C], [h, w, C, O], [N, rows, columns, O] -> outputs and two gradients.

    The outputs, and the gradients of their inner product with `gradient` by images and
    kernel. Padding may be negative.
    """
    images, kernel, gradient = (
        np.asarray(a).astype(np.float64) for a in (images, kernel, gradient)
    )
    pads = ((0, 0), *padding, (0, 0))
    padded = np.pad(images, [[max(p, 0) for p in pair] for pair in pads])
    seen = tuple(
        slice(max(-low, 0), n - max(-high, 0))
        for n, (low, high) in zip(padded.shape, pads, strict=True)
    )
    rows, columns = gradient.shape[1:3]
    outputs, by_kernel = np.zeros_like(gradient), np.zeros_like(kernel)
    by_padded = np.zeros_like(padded)
    for i, j in itertools.product(*map(range, kernel.shape[:2])):
        window = (
            slice(None),
            slice(
                i * dilation[0],
                i * dilation[0] + (rows - 1) * strides[0] + 1,
                strides[0],
            ),
            slice(
                j * dilation[1],
                j * dilation[1] + (columns - 1) * strides[1] + 1,
                strides[1],
            ),
        )
        view = padded[seen][window]
        outputs += view @ kernel[i, j]
        by_kernel[i, j] = np.einsum("nhwc,nhwo->co", view, gradient)
        by_padded[seen][window] += gradient @ kernel[i, j].T
    inside = tuple(
        slice(max(low, 0), n - max(high, 0))
        for n, (low, high) in zip(padded.shape, pads, strict=True)
    )
    return outputs, by_padded[inside], by_kernel

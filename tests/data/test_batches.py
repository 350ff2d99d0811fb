"""The order of examples, and how a step deals them out, against plain enumeration."""

import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.data import batches
from jaxdl.data.batches import Layout
from jaxdl.data.sources import Split

layouts = st.builds(
    lambda devices, micro, each: Layout(devices * micro * each, micro, devices),
    devices=st.integers(1, 9),
    micro=st.integers(1, 5),
    each=st.integers(1, 7),
)


@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000), st.sampled_from([1, 2, 97]))
@settings(max_examples=40, deadline=None)
def test_an_epoch_visits_each_example_once(seed: int, epoch: int, size: int) -> None:
    order = batches.epoch_order(jax.random.key(seed), epoch, size)
    assert order.dtype == np.int32
    np.testing.assert_array_equal(np.sort(order), np.arange(size))


def test_the_order_is_a_function_of_key_and_epoch_and_differs_in_both() -> None:
    orders = {
        (seed, epoch): tuple(
            batches.epoch_order(jax.random.key(seed), epoch, 97).tolist()
        )
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(set(orders.values())) == 16
    again = batches.epoch_order(jax.random.key(3), 2, 97)
    assert tuple(again.tolist()) == orders[3, 2]


def test_no_shuffle_has_the_key_of_a_step() -> None:
    key = jax.random.key(0)
    for number in range(3):
        of_step = jax.random.permutation(jax.random.fold_in(key, number), 97)
        assert any(batches.epoch_order(key, number, 97) != of_step)


def test_orders_are_spread_evenly() -> None:
    """Each example is as likely in each place (chi-squared of 10 x 10 cells)."""
    draws = 4000
    key = jax.random.key(0)
    orders = jax.vmap(lambda e: batches.epoch_order(key, e, 10))(np.arange(draws))
    counts = np.stack([np.bincount(column, minlength=10) for column in orders.T])
    chi2 = ((counts - draws / 10) ** 2 / (draws / 10)).sum()
    assert chi2 < 135  # 81 degrees of freedom: p = 0.0002


@given(layouts)
@settings(max_examples=200, deadline=None)
def test_devices_and_micro_batches_partition_the_batch(layout: Layout) -> None:
    size, micro, devices = layout
    positions = layout.positions
    assert positions.dtype == np.int32
    assert positions.shape == (devices, micro, size // (devices * micro))
    np.testing.assert_array_equal(np.sort(positions.ravel()), np.arange(size))


@given(layouts)
@settings(max_examples=200, deadline=None)
def test_a_micro_batch_is_the_same_examples_on_any_number_of_devices(
    layout: Layout,
) -> None:
    one = Layout(layout.batch_size, layout.micro_batches, 1).positions[0]
    together = layout.positions.transpose(1, 0, 2).reshape(layout.micro_batches, -1)
    np.testing.assert_array_equal(together, one)
    np.testing.assert_array_equal(one.ravel(), np.arange(layout.batch_size))


def split(size: int) -> Split:
    """Images and labels that tell where in the split they come from."""
    labels = np.arange(size, dtype=np.int32)
    images = np.stack([labels % 256, labels // 256], -1).astype(np.uint8)
    return Split(images.reshape(size, 1, 1, 2), labels)


@given(layouts, st.integers(1, 4), st.data())
@settings(max_examples=60, deadline=None)
def test_chunks_hold_exactly_the_steps_asked_for(layout, steps, data) -> None:
    counts = data.draw(st.lists(st.integers(1, steps), min_size=1, max_size=5))
    start = data.draw(st.integers(0, 3))
    firsts = start + np.cumsum([0, *counts[:-1]])
    pieces = [(int(first), count) for first, count in zip(firsts, counts, strict=True)]
    size = (start + sum(counts)) * layout.batch_size + data.draw(st.integers(0, 3))
    order = np.random.default_rng(0).permutation(size)
    examples = split(size)

    chunks = list(batches.chunks(examples, order, pieces, layout, steps))

    assert len(chunks) == len(pieces)
    each = layout.batch_size // (layout.devices * layout.micro_batches)
    for (first, count), (images, labels) in zip(pieces, chunks, strict=True):
        shape = (layout.devices, steps, layout.micro_batches, each)
        assert labels.shape == shape and labels.dtype == np.int32
        assert images.shape == (*shape, 1, 1, 2) and images.dtype == np.uint8
        for s in range(count):  # what pads a short chunk is never used
            expected = order[(first + s) * layout.batch_size + layout.positions]
            np.testing.assert_array_equal(labels[:, s], expected)
            of_image = images[:, s, ..., 0, 0, :].astype(np.int64) @ [1, 256]
            np.testing.assert_array_equal(of_image, expected)


def test_chunks_are_gathered_ahead_and_only_one_ahead() -> None:
    gathered = []
    ready = threading.Event()

    class Watched(np.ndarray):
        def __getitem__(self, index):
            gathered.append(threading.current_thread().name)
            if len(gathered) == 2:
                ready.set()
            return np.asarray(self)[index]

    plain = split(12)
    watched = Split(plain.images, plain.labels.view(Watched))
    layout = Layout(2, 1, 1)
    pieces = [(step, 1) for step in range(6)]
    chunks = batches.chunks(watched, np.arange(12), pieces, layout, 1)
    next(chunks)
    assert ready.wait(10), "the second chunk was not gathered before it was asked for"
    assert len(gathered) == 2
    assert threading.current_thread().name not in gathered
    chunks.close()
    assert len(gathered) == 2


def test_a_failure_to_gather_reaches_the_caller() -> None:
    chunks = batches.chunks(split(4), np.arange(2), [(0, 1)], Layout(4, 1, 1), 1)
    with pytest.raises(IndexError):
        list(chunks)


def test_data_fits_by_a_quarter_of_the_memory_that_the_devices_share() -> None:
    device = jax.devices("cpu")[0]
    assert batches.fits(1, device, 8)
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        pytest.skip("no /proc/meminfo to compare with")
    total = 1024 * int(meminfo.read_text().split()[1])
    assert batches.fits(total // 5, device, 1)
    assert not batches.fits(total // 5, device, 2)
    assert not batches.fits(total, device, 1)


@pytest.mark.parametrize(
    ("stats", "expected"),
    [({"bytes_limit": 400}, True), ({"bytes_limit": 399}, False), (None, True)],
)
def test_an_accelerator_has_memory_of_its_own(stats, expected) -> None:
    class Accelerator:
        platform = "gpu"

        def memory_stats(self):
            return stats

    assert batches.fits(100, Accelerator(), 8) is expected

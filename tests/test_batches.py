import jax.numpy as jnp
import numpy as np
import pytest

from linear_cifar.batches import fold_batches, group_passes, take_rows


@pytest.mark.parametrize("unroll", [1, 2, 8])
@pytest.mark.parametrize(("n", "size"), [(12, 4), (13, 4), (3, 3), (5, 1), (7, 6), (3, 8)])
def test_every_row_is_seen_once_in_order_in_batches_of_the_size(n, size, unroll):
    values = jnp.arange(n, dtype=jnp.float64)

    def step(carry, start, size):
        total, sizes = carry
        # The order of the batches and of the rows in them decides the digits of the total.
        return total * 31.0 + jnp.dot(
            take_rows(values, start, size), jnp.arange(1.0, size + 1)
        ), sizes + 10.0**size

    total, sizes = fold_batches(step, (jnp.array(0.0), jnp.array(0.0)), n, size, unroll)
    expected_total, expected_sizes = 0.0, 0.0
    for start in range(0, n, size):
        batch = np.arange(start, min(start + size, n))
        expected_total = expected_total * 31 + batch @ np.arange(1, len(batch) + 1)
        expected_sizes += 10.0 ** len(batch)
    assert total == expected_total
    assert sizes == expected_sizes


@pytest.mark.parametrize(
    ("sizes", "passes"),
    [
        ((50, 100, 200, 400), [(1_600, (50, 100, 200, 400))]),
        ((64, 50), [(1_600, (50, 64))]),
        ((50, 64, 999, 49_000), [(1_600, (50, 64)), (999, (999,)), (49_000, (49_000,))]),
        ((7, 11, 13, 17), [(1_001, (7, 11, 13)), (1_598, (17,))]),
    ],
)
def test_passes_share_chunks_that_are_multiples_of_their_sizes(sizes, passes):
    assert group_passes(sizes, max_chunk=1_600) == passes

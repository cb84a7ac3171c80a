"""Creates a file for each object in each worker."""

import pytest


@pytest.mark.parametrize("number", range(8))
def test_it(shop, number, tmp_path_factory, worker_id):
    (tmp_path_factory.getbasetemp().parent / f"{worker_id}-{id(shop)}").touch()

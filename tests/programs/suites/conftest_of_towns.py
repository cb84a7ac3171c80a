"""A pooled fixture that needs one of the same name in each module."""

from aiopool.testing import pooled_fixture


@pooled_fixture
async def shared(town):
    print(f"<made {town}>")
    yield town
    print(f"<torn down {town}>")

"""A pooled fixture that needs a fixture which each module defines under the same name."""

from aiopool.testing import pooled_fixture


@pooled_fixture
async def shared(town):
    print(f"<created {town}>")
    yield town
    print(f"<torn down {town}>")

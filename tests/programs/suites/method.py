"""A factory that takes an instance, named $NAME; loop-bound, if $BOUND is set."""

import os

from aiopool.testing import pooled_fixture

decorate = pooled_fixture(loop_bound=True) if "BOUND" in os.environ else pooled_fixture


class TestShop:
    if os.environ["NAME"] == "self":

        @decorate
        async def shop(self, town):
            """Is rejected."""

    else:

        @decorate
        async def shop(cls, town):  # noqa: N805 - the mistake
            """Is rejected."""

    def test_one(self, shop):
        """Does not run."""

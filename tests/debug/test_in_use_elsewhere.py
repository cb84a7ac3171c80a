"""Debug mode: objects that no get returned and that other code still refers to; correct puts are not reported."""

import asyncio
import warnings
import weakref

import pytest
from observed import place
from shared import Thing


def test_an_outside_object_that_is_in_use_elsewhere_is_reported(debugging, said):
    pool = debugging.Pool(name="things")
    registry = {"main": Thing()}
    pool.put(registry["main"])  # put
    assert said.all() == []  # it is not shared yet
    thing = pool.get()  # got
    text = said.one()
    test = test_an_outside_object_that_is_in_use_elsewhere_is_reported
    assert "a dict refers to it" in text
    assert f"put at {place(test, '# put')}" in text
    assert f"at {place(test, '# got')}" in text
    pool.put(thing)
    assert pool.get() is thing  # from here on it is the pool's
    assert len(said.all()) == 1


class RefersToItself:
    """An object whose parts refer to it."""

    def __init__(self):
        self.parts = [{"whole": self}]
        self.method = self.hello

    def hello(self):
        """A bound method refers to its object."""


def in_a_local_variable(pool):
    thing = Thing()
    pool.put(thing)
    pool.get()


def in_a_suspended_coroutine(pool):
    async def put():
        thing = Thing()
        pool.put(thing)
        await asyncio.sleep(0)
        pool.get()

    asyncio.run(put())


def from_a_list_that_is_gone(pool):
    for thing in [Thing(), Thing()]:
        pool.put(thing)
    pool.get()


def referred_to_by_its_parts(pool):
    pool.put(RefersToItself())
    pool.get()


def referred_to_weakly(pool):
    thing = Thing()
    seen.add(thing)
    pool.put(thing)
    pool.get()


seen = weakref.WeakSet()


@pytest.mark.parametrize(
    "use",
    [
        in_a_local_variable,
        in_a_suspended_coroutine,
        from_a_list_that_is_gone,
        referred_to_by_its_parts,
        referred_to_weakly,
    ],
)
def test_correct_puts_are_not_reported(debugging, said, use):
    use(debugging.Pool())
    assert [text for text in said.all() if "in use elsewhere" in text] == []


def test_a_check_that_raises_in_get_does_not_lose_the_object(debugging):
    pool = debugging.Pool()
    keep = [Thing()]
    pool.put(keep[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ResourceWarning, match="a list refers to it"):
            pool.get()
        assert not debugging._debug._records.checked_out
        assert pool.stats().idle == 1
        with pytest.raises(ValueError, match="was put already and is idle"):
            pool.put(keep[0])
        assert pool.get() is keep[0]  # reported only once
    pool.put(keep[0])
    assert pool.stats().idle == 1


def test_a_check_that_raises_in_get_does_not_lose_the_object_of_an_async_pool(debugging):
    keep = [Thing()]

    async def main():
        pool = debugging.AsyncPool(Thing)
        await pool.put(keep[0])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ResourceWarning, match="a list refers to it"):
                await pool.get()
            assert pool.stats().idle == 1
            async with pool.borrow() as thing:
                assert thing is keep[0]
        assert pool.stats().idle == 1

    asyncio.run(main())

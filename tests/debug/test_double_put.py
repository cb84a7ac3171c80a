"""Debug mode: a double put is found wherever the object lies, and the error names both places."""

import asyncio

import pytest
from loops import in_thread, loop_thread
from observed import KINDS, Bare, place
from shared import FREE_THREADED, NO_GIL, Thing


def test_a_double_put_into_the_private_slot_names_both_places(debugging):
    pool = debugging.Pool(Thing, name="things")

    async def main():
        thing = pool.get()
        pool.put(thing)  # first
        with pytest.raises(ValueError, match=r"was put already and is idle in <aiopool\.Pool 'things'>") as caught:
            pool.put(thing)  # second
        return str(caught.value)

    text = asyncio.run(main())
    assert f"put at {place(main, '# first')}, and once more at {place(main, '# second')};" in text
    assert f"it was got at {place(main, 'thing = pool.get()')}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_a_double_put_is_found_wherever_the_object_lies(debugging, kind):
    pool = debugging.Pool(kind)
    things = [pool.get() for _ in range(3)]

    async def put_all():
        for thing in things:
            pool.put(thing)

    with loop_thread() as other:
        other.run(put_all())  # one is private there, two are in a shared list
        if NO_GIL and debugging.implementation == "native":
            del things[0]  # only the owner can read a private slot
        for thing in things:
            with pytest.raises(ValueError, match="was put already") as caught:
                pool.put(thing)
            assert f"put at {place(put_all, 'pool.put(thing)')}, and once more at " in str(caught.value)
        debugging.cleanup()
        for thing in things:
            with pytest.raises(ValueError, match="was put already"):  # now it is the victim's
                pool.put(thing)
    assert pool.stats().idle == 3


def test_a_double_put_into_another_pool_is_found(debugging):
    one, other = debugging.Pool(Thing, name="one"), debugging.Pool(Thing, name="other")
    thing = one.get()
    one.put(thing)
    with pytest.raises(ValueError, match=r"idle in <aiopool\.Pool 'one'>"):
        other.put(thing)


def test_an_early_put_is_reported_to_the_next_user_of_the_object(debugging):
    pool = debugging.Pool(Thing)

    def puts_too_early():
        thing = pool.get()
        pool.put(thing)
        yield
        pool.put(thing)  # the mistake
        yield

    running = puts_too_early()
    next(running)
    got_by_another = pool.get()  # of another
    next(running)
    with pytest.raises(ValueError, match="was put already") as caught:
        pool.put(got_by_another)
    assert f"put at {place(puts_too_early, '# the mistake')}" in str(caught.value)
    test = test_an_early_put_is_reported_to_the_next_user_of_the_object
    assert f"it was got at {place(test, '# of another')}" in str(caught.value)


def test_a_double_put_does_not_change_the_pool(debugging, said):
    resets = []
    pool = debugging.Pool(Thing, reset=resets.append)
    thing = pool.get()
    pool.put(thing)
    with pytest.raises(ValueError, match="was put already"):
        pool.put(thing)
    assert (resets, pool.stats().puts, pool.stats().idle) == ([thing], 1, 1)
    assert pool.get() is thing


@pytest.mark.parametrize("kind", KINDS)
def test_putting_once_for_each_get_is_not_reported(debugging, said, kind):
    pool = debugging.Pool(kind)
    for _ in range(3):
        thing = pool.get()
        pool.put(thing)
        with pool.borrow() as thing:
            pass
    pool.fill(2)
    in_thread(lambda: pool.put(pool.get()))
    assert said.all() == []


def test_an_object_that_was_not_kept_can_be_put_again(debugging):
    def reject(thing):
        raise RuntimeError("not now")

    pool = debugging.Pool(Thing, reset=reject)
    thing = pool.get()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"):
            pool.put(thing)


def test_an_object_that_the_pool_dropped_may_be_put_by_its_finalizer(debugging, said):
    class PutsItselfBack:
        def __del__(self):
            pool.put(self)

    pool = debugging.Pool(PutsItselfBack)
    phoenix = pool.get()
    pool.put(phoenix)
    del phoenix
    pool.clear()
    assert pool.stats().idle == 1
    assert said.all() == []
    PutsItselfBack.__del__ = lambda self: None


def test_a_double_put_error_names_type_and_address_and_not_the_content(debugging):
    pool = debugging.Pool()
    buffer = bytearray(b"secret")
    pool.put(buffer)
    with pytest.raises(ValueError, match="Put each object once") as caught:
        pool.put(buffer)
    assert str(caught.value).startswith(f"<bytearray object at {id(buffer):#x}> was put already")
    assert "secret" not in str(caught.value)


def test_the_next_object_at_the_same_address_does_not_inherit_the_record(debugging, said):
    pool = debugging.Pool()
    ids = set()
    for bare in [Bare() for _ in range(100)]:
        pool.put(bare)
        ids.add(id(bare))
    del bare
    pool.clear()
    debugging._debug._records.sweep()
    fresh = [Bare() for _ in range(100)]
    if not FREE_THREADED:  # which are slower to reuse an address
        # The negative control, which uses only the address, mistakes some of these for idle objects.
        assert any(id(bare) in ids for bare in fresh)
    assert not any(debugging._debug._records.record_of(bare) for bare in fresh)

"""Debug mode: an object that is collected while it is checked out is reported, with the place of its get."""

import asyncio
import gc
import sys
import warnings
from contextlib import ExitStack

import pytest
from observed import KINDS, line, place
from shared import Thing


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_collected_while_checked_out_is_reported_with_the_place(debugging, said, kind):
    pool = debugging.Pool(kind, name="things")

    def loses_an_object():
        pool.get()  # and gone

    loses_an_object()
    debugging._debug._records.sweep()
    text = said.one()
    assert f"{kind.__qualname__} of <aiopool.Pool 'things'>, got at {place(loses_an_object, '# and gone')}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_in_use_is_not_reported(debugging, said, kind):
    pool = debugging.Pool(kind)
    held = [pool.get() for _ in range(50)]
    debugging._debug._records.sweep()
    gc.collect()
    assert said.all() == []
    for thing in held:
        pool.put(thing)


def test_sweeps_run_automatically_and_limit_the_records(debugging, said):
    pool = debugging.Pool(lambda: bytearray(1))
    held = [pool.get() for _ in range(10)]
    for _ in range(100):
        pool.get()
        assert len(debugging._debug._records._records) <= 2 * (len(held) + 1) + 1
    assert 100 - 2 * (len(held) + 1) <= len(said.all()) <= 100


def test_idle_objects_that_are_dropped_are_forgotten(debugging, said):
    pool = debugging.Pool(lambda: bytearray(1))
    held = [pool.get() for _ in range(10)]
    for buffer in held:
        pool.put(buffer)
    del held, buffer
    pool.clear()
    debugging._debug._records.sweep()
    assert not debugging._debug._records._records
    assert said.all() == []


def test_a_finalizer_may_put_back_an_object_of_a_collected_cycle(debugging, said, monkeypatch):
    class Session:
        def __init__(self):
            self.thing = pool.get()
            self.itself = self

        def __del__(self):
            pool.put(self.thing)

    class Watched:
        pass

    pool = debugging.Pool(Watched)
    Session()
    gc.collect()
    assert pool.stats().idle == 1
    assert said.all() == []

    # Negative control: a weak reference reports the object as dead before the finalizers run.
    monkeypatch.setattr(debugging._debug._records, "on_gc", None)
    gc.callbacks[:] = [each for each in gc.callbacks if getattr(each, "__module__", "") != "aiopool._debug._records"]
    Session()
    gc.collect()
    assert "Watched" in said.one()
    monkeypatch.undo()
    debugging._debug._records.listen()


def test_an_object_dropped_by_a_failed_borrow_is_no_longer_checked_out(debugging, said):
    pool = debugging.Pool(Thing)
    with pytest.raises(ZeroDivisionError), pool.borrow():
        raise ZeroDivisionError
    gc.collect()
    assert said.all() == []
    assert not debugging._debug._records.checked_out


def test_a_borrow_names_the_line_of_its_block(debugging):
    pool = debugging.Pool(Thing)

    async def main():
        async with pool.borrow():  # async with
            yield
        with pool.borrow():  # with
            yield
        with ExitStack() as stack:
            stack.enter_context(pool.borrow())  # stack
            yield

    async def lines():
        return [record.got.line async for _ in main() for record in debugging._debug._records.checked_out]

    assert asyncio.run(lines()) == [line(main, text) for text in ("# async with", "# with", "# stack")]


def test_a_warning_that_is_an_error_is_not_raised_in_an_unrelated_get(debugging, monkeypatch):
    unraisable = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: unraisable.append(args.exc_value))
    pool = debugging.Pool(lambda: bytearray(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(5):
            assert pool.get() == bytearray(1)
    assert {type(each) for each in unraisable} == {ResourceWarning}

"""One interface for all loops: callbacks, timers and cancellation, and a clear answer once a loop has ended."""

import asyncio
import contextlib
import gc

import anyio
import pytest
import trio
from loops import PATIENCE


async def own_loop(aiopool):
    return aiopool.current_processor().loop


@pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning")
def test_a_loop_that_has_ended_takes_no_callback(aiopool, run):
    loop = run(own_loop, aiopool)
    assert not loop.call_soon(print)
    loop.hold(object())
    gc.collect()  # from here on it is gone too
    assert not loop.is_running()
    assert not loop.call_soon(print)


def test_a_run_of_trio_that_has_ended_takes_no_callback_even_if_its_token_lives(aiopool):
    async def main():
        return await own_loop(aiopool), trio.lowlevel.current_trio_token()

    loop, token = trio.run(main)
    assert loop.is_loop(token)
    assert not loop.call_soon(print)


def test_a_loop_that_is_closed_after_the_check_takes_no_callback(aiopool, monkeypatch):
    with contextlib.closing(asyncio.new_event_loop()) as closed:
        loop = closed.run_until_complete(own_loop(aiopool))
    monkeypatch.setattr(type(loop), "is_running", lambda self: True)
    assert not loop.call_soon(print)


def test_a_timer_that_was_set_on_a_loop_that_is_gone_can_be_cancelled(aiopool):
    loop = asyncio.run(own_loop(aiopool))
    gc.collect()
    loop.call_later(0, print)()


def test_a_timer_fires_after_its_time_unless_it_is_cancelled(aiopool, run):
    async def main():
        loop, fired, order = aiopool.current_processor().loop, anyio.Event(), []

        def set_timers():
            loop.call_later(600.0, lambda: order.append("late"))
            loop.call_later(0.01, lambda: order.append("cancelled"))()
            loop.call_later(0.02, lambda: (order.append("in time"), fired.set()))

        assert loop.call_soon(set_timers)
        with anyio.fail_after(PATIENCE):
            await fired.wait()
        return order

    assert run(main) == ["in time"]

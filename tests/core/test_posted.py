"""At most one callback of a kind waits on a loop, and a loop that drops it loses nothing."""

import asyncio

import anyio
import anyio.lowlevel
import pytest
from loops import PATIENCE, RunsAtOnce, all_freed, in_thread, loop_thread
from shared import Thing


def put_and_clear(pool):
    for _ in range(2):
        pool.put(Thing())
    pool.clear()


def count_posts(package, monkeypatch, loop):
    """A list that grows with each callback posted to `loop`."""
    posts = []

    def counted(call_soon):
        return lambda self, callback: (self is loop and posts.append(callback)) or call_soon(self, callback)

    for kind in (package._core.loops.AsyncioLoop, package._core.loops.TrioLoop):
        monkeypatch.setattr(kind, "call_soon", counted(kind.call_soon))
    return posts


@pytest.mark.anyio
@pytest.mark.parametrize("where", ["off-loop", "on another loop"])
@pytest.mark.parametrize("idle", [0, 1], ids=["nothing idle", "a timer is set"])
async def test_callbacks_do_not_accumulate_on_a_blocked_loop(alone, monkeypatch, where, idle):
    """While it is blocked, pools are cleared elsewhere: each clear adjusts timers, and frees objects."""
    monkeypatch.setattr(alone._core.freeing, "PATIENCE", 0.0)  # others take over at once
    pool, kept = alone.Pool(Thing), alone.Pool(Thing)
    alone.current_processor()
    for _ in range(idle):
        kept.put(Thing())
    await all_freed(alone)
    posts = count_posts(alone, monkeypatch, alone.current_processor().loop)
    with loop_thread() as other:
        other.call(alone.current_processor)
        for _ in range(50):
            if where == "off-loop":
                in_thread(put_and_clear, pool)
            else:
                other.call(put_and_clear, pool)
    assert len(posts) <= 2, "one for the timer, and one to free"
    await all_freed(alone)
    assert (kept.stats().idle, pool.stats().idle) == (idle, 0)


@pytest.mark.anyio
async def test_what_others_want_while_a_callback_runs_is_not_lost(alone, monkeypatch):
    """The loop has looked at what is due, and then another thread puts an object: one more callback is posted."""
    timers = alone._core.timers
    next_due = timers.next_due
    pool = alone.Pool(Thing)

    def put_after_the_look():
        due = next_due()
        monkeypatch.setattr(timers, "next_due", next_due)
        in_thread(pool.put, Thing())
        return due

    processor = alone.current_processor()
    monkeypatch.setattr(timers, "next_due", put_after_the_look)
    posts = count_posts(alone, monkeypatch, processor.loop)
    for _ in range(2):
        assert timers._adjust_soon(processor, processor.loop)
    assert len(posts) == 1
    with anyio.fail_after(PATIENCE):
        while processor.timer is None:
            await anyio.lowlevel.checkpoint()
    assert len(posts) == 2


@pytest.mark.parametrize("end", ["closed", "stopped"])
def test_a_callback_on_a_loop_that_has_ended_does_not_wait_for_ever(alone, end):
    """It is neither waited for by other loops, nor by the next loop of the same thread."""
    ended = asyncio.new_event_loop()

    async def last():
        alone.current_processor()
        put_and_clear(alone.Pool(Thing))  # posts, and then the loop stops

    ended.run_until_complete(last())
    if end == "closed":
        ended.close()
    pool = alone.Pool(Thing)
    pool.put(Thing())

    async def main():
        put_and_clear(pool)
        async with asyncio.timeout(PATIENCE):
            await all_freed(alone)
        pool.put(Thing())
        await asyncio.sleep(0)
        return alone.current_processor().timer is not None

    assert asyncio.run(main())
    ended.close()


def test_a_callback_that_a_running_loop_drops_is_posted_again(alone, monkeypatch):
    """A signal handler raised before its first line, for example. The rest is freed without another clear."""

    class DropsOne(RunsAtOnce):
        dropped = 0

        def call_soon(self, callback):
            if not self.dropped:
                self.dropped += 1
                return True
            return self._loop.call_soon(callback)

    async def main():
        processor = alone.current_processor()
        pool = alone.Pool(Thing)
        pool.put(Thing())
        await asyncio.sleep(0)  # the timer is set
        loop = DropsOne(processor.loop)
        monkeypatch.setattr(processor, "loop", loop)
        pool.clear()
        assert loop.dropped == 1
        await asyncio.sleep(0)
        assert not alone._core.freeing._queue

    asyncio.run(main())


@pytest.mark.parametrize("set_late", [False, True], ids=["as it is", "negative control"])
def test_a_loop_that_runs_a_callback_before_the_post_returns_is_not_parked(alone, set_late, monkeypatch):
    """The negative control marks the callback as unfinished only after the post, when it has already run."""
    timers, posted = alone._core.timers, alone._core.posted

    def post_and_mark(self):
        self._unfinished = self.loop.call_soon(self)
        return self._unfinished

    if set_late:
        monkeypatch.setattr(posted.Posted, "post", post_and_mark)

    async def main():
        processor = alone.current_processor()
        loop = RunsAtOnce(processor.loop)
        monkeypatch.setattr(processor, "loop", loop)
        assert timers._adjust_soon(processor, loop)
        return processor.thread_id

    assert (asyncio.run(main()) is None) == set_late

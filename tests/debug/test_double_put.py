"""The debug mode: what it finds, what it must not take for a mistake, and that off it is not there."""

import asyncio
import gc
import io
import os
import socket
import subprocess
import sys
import threading
import warnings
import weakref
from contextlib import ExitStack, contextmanager

import pytest
from loops import in_thread, loop_thread
from shared import FREE_THREADED, NO_GIL, PROGRAMS, Thing

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")


class Bare:
    """Can't, as a bytearray can't."""

    __slots__ = ("other",)


KINDS = [Thing, Bare, bytearray, list]


@pytest.fixture
def debugging(aiopool):
    """The package in debug mode."""
    aiopool._debug.turn_on()
    yield aiopool
    aiopool._debug.turn_off()


@contextmanager
def debug_mode(aiopool):
    """In debug mode for a block, as a pool that is older sees it."""
    aiopool._debug.turn_on()
    try:
        yield
    finally:
        aiopool._debug.turn_off()


@pytest.fixture
def said():
    """The texts of the warnings so far, and whatever could not be raised."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield Texts(caught)


class Texts:
    def __init__(self, caught):
        self._caught = caught

    def all(self):
        assert all(each.category is ResourceWarning for each in self._caught)
        return [str(each.message) for each in self._caught]

    def one(self):
        (text,) = self.all()
        return text


def line(function, text):
    """The number of the line of `function` that has `text`."""
    code = function.__code__
    with open(__file__, encoding="utf-8") as source:
        lines = source.read().splitlines()
    return next(number for number in range(code.co_firstlineno, len(lines)) if text in lines[number - 1])


def place(function, text):
    """How messages name that line."""
    return f"{__file__}:{line(function, text)}, in {function.__qualname__}"


# --- putting twice ---


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
            del things[0]  # nobody but the owner can look into a private slot
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

    def hasty():
        thing = pool.get()
        pool.put(thing)
        yield
        pool.put(thing)  # the mistake
        yield

    running = hasty()
    next(running)
    got_by_another = pool.get()  # of another
    next(running)
    with pytest.raises(ValueError, match="was put already") as caught:
        pool.put(got_by_another)
    assert f"put at {place(hasty, '# the mistake')}" in str(caught.value)
    test = test_an_early_put_is_reported_to_the_next_user_of_the_object
    assert f"it was got at {place(test, '# of another')}" in str(caught.value)


def test_nothing_of_the_pool_changes_by_a_double_put(debugging, said):
    resets = []
    pool = debugging.Pool(Thing, reset=resets.append)
    thing = pool.get()
    pool.put(thing)
    with pytest.raises(ValueError, match="was put already"):
        pool.put(thing)
    assert (resets, pool.stats().puts, pool.stats().idle) == ([thing], 1, 1)
    assert pool.get() is thing


@pytest.mark.parametrize("kind", KINDS)
def test_putting_once_for_each_get_is_right(debugging, said, kind):
    pool = debugging.Pool(kind)
    for _ in range(3):
        thing = pool.get()
        pool.put(thing)
        with pool.borrow() as thing:
            pass
    pool.fill(2)
    in_thread(lambda: pool.put(pool.get()))
    assert said.all() == []


def test_what_was_not_kept_can_be_put_again(debugging):
    def refuse(thing):
        raise RuntimeError("not now")

    pool = debugging.Pool(Thing, reset=refuse)
    thing = pool.get()
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"):
            pool.put(thing)


def test_what_the_pool_dropped_may_be_put_by_its_finalizer(debugging, said):
    class Phoenix:
        def __del__(self):
            pool.put(self)

    pool = debugging.Pool(Phoenix)
    phoenix = pool.get()
    pool.put(phoenix)
    del phoenix
    pool.clear()
    assert pool.stats().idle == 1
    assert said.all() == []
    Phoenix.__del__ = lambda self: None


def test_a_double_put_error_names_type_and_address_and_not_the_content(debugging):
    pool = debugging.Pool()
    buffer = bytearray(b"secret")
    pool.put(buffer)
    with pytest.raises(ValueError, match="Put each object once") as caught:
        pool.put(buffer)
    assert str(caught.value).startswith(f"<bytearray object at {id(buffer):#x}> was put already")
    assert "secret" not in str(caught.value)


def test_the_next_object_at_the_same_address_is_another(debugging, said):
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
        # The negative control, which goes by the address alone, takes some of these for idle objects.
        assert any(id(bare) in ids for bare in fresh)
    assert not any(debugging._debug._records.record_of(bare) for bare in fresh)


# --- collected while checked out ---


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_that_is_collected_while_checked_out_is_reported_with_the_place(debugging, said, kind):
    pool = debugging.Pool(kind, name="things")

    def forgetful():
        pool.get()  # and gone

    forgetful()
    debugging._debug._records.sweep()
    text = said.one()
    assert f"{kind.__qualname__} of <aiopool.Pool 'things'>, got at {place(forgetful, '# and gone')}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_in_use_is_not_reported(debugging, said, kind):
    pool = debugging.Pool(kind)
    held = [pool.get() for _ in range(50)]
    debugging._debug._records.sweep()
    gc.collect()
    assert said.all() == []
    for thing in held:
        pool.put(thing)


def test_sweeps_happen_by_themselves_and_bound_the_records(debugging, said):
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

    # Negative control: this reports what is dead for a weak reference, before the finalizers run. (From 3.15 on, weak
    # references are told after the finalizers.)
    monkeypatch.setattr(debugging._debug._records, "on_gc", None)
    gc.callbacks[:] = [each for each in gc.callbacks if getattr(each, "__module__", "") != "aiopool._debug._records"]
    Session()
    gc.collect()
    if sys.version_info < (3, 14):
        assert "Watched" in said.one()
    monkeypatch.undo()
    debugging._debug._records.listen()


def test_what_a_failed_borrow_drops_is_not_checked_out_any_more(debugging, said):
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


# --- never got, and in use elsewhere ---


def test_what_comes_from_outside_and_is_in_use_there_is_reported(debugging, said):
    pool = debugging.Pool(name="things")
    registry = {"main": Thing()}
    pool.put(registry["main"])  # put
    assert said.all() == []  # as yet, nobody shares it
    thing = pool.get()  # got
    text = said.one()
    test = test_what_comes_from_outside_and_is_in_use_there_is_reported
    assert "a dict refers to it" in text
    assert f"put at {place(test, '# put')}" in text
    assert f"at {place(test, '# got')}" in text
    pool.put(thing)
    assert pool.get() is thing  # from here on it is the pool's
    assert len(said.all()) == 1


class Knot:
    """Its parts know it."""

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
    pool.put(Knot())
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
def test_what_is_right_to_put_is_not_reported(debugging, said, use):
    use(debugging.Pool())
    assert [text for text in said.all() if "in use elsewhere" in text] == []


def test_what_a_check_raises_in_get_does_not_lose_the_object(debugging):
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
        assert pool.get() is keep[0]  # it was said once
    pool.put(keep[0])
    assert pool.stats().idle == 1


def test_what_a_check_raises_in_get_does_not_lose_the_object_of_an_async_pool(debugging):
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


# --- what it does not touch ---


touched = []


class Lazy:
    """A proxy that creates what it stands for as soon as anything asks for its class."""

    target = None

    @property
    def __class__(self):
        touched.append("evaluated")
        return Thing

    def __eq__(self, other):
        touched.append("compared")
        return True

    def __hash__(self):
        touched.append("hashed")
        return 1

    def __bool__(self):
        touched.append("asked for its truth")
        return False

    def fileno(self):
        touched.append("asked for its descriptor")
        return 3


class Broken(Lazy):
    """What it stands for cannot be created."""

    @property
    def __class__(self):
        touched.append("evaluated")
        raise RuntimeError("not now")


class Small:
    """Another, that cannot be referenced weakly."""

    __slots__ = ("target",)
    __class__ = vars(Broken)["__class__"]
    __eq__ = Lazy.__eq__
    __hash__ = Lazy.__hash__
    __bool__ = Lazy.__bool__
    fileno = Lazy.fileno


@pytest.mark.parametrize("kind", [Lazy, Broken, Small])
def test_a_lazy_proxy_is_not_touched(debugging, said, kind):
    touched.clear()
    pool = debugging.Pool(kind)
    records = debugging._debug._records
    proxies = [kind()]
    pool.put(proxies[0])
    with pytest.raises(ValueError, match="was put already"):
        pool.put(proxies[0])
    pool.get()  # the list refers to it
    records.record_of(proxies[0]).process = 0  # as if it came over a fork
    pool.put(proxies[0])
    pool.clear()
    with pytest.raises(KeyError), pool.borrow():
        raise KeyError
    pool.get()  # and gone
    records.sweep()

    # And where it refers to what is pooled.
    proxies[0].target = thing = Thing()
    pool.put(thing)
    pool.get()

    assert touched == []
    elsewhere, lost, referred = said.all()
    assert "a list refers to it" in elsewhere
    assert "collected while it was checked out" in lost
    assert "is in use elsewhere" in referred


class Harmful:
    """Its `fileno` raises what no one expects."""

    def __init__(self, error):
        self.error = error

    def fileno(self):
        raise self.error


class HarmfulSocket(socket.socket):
    """Another, which has a descriptor."""

    def fileno(self):
        raise KeyboardInterrupt


class HarmfulFile(io.FileIO):
    """One more."""

    def fileno(self):
        raise SystemExit


class Wrapping:
    """Has one as an attribute."""

    def __init__(self, attribute):
        self.attribute = attribute


ERRORS = [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError]


@pytest.mark.parametrize("wrap", [lambda harmful: harmful, Wrapping], ids=["itself", "as an attribute"])
@pytest.mark.parametrize("error", ERRORS)
def test_a_fileno_that_raises_does_no_harm(debugging, said, error, wrap):
    over_a_fork(debugging, wrap(Harmful(error)))
    assert said.all() == []


@pytest.mark.parametrize("wrap", [lambda harmful: harmful, Wrapping], ids=["itself", "as an attribute"])
@pytest.mark.parametrize("kind", [HarmfulSocket, lambda: HarmfulFile(os.devnull)], ids=["socket", "file"])
def test_the_descriptor_is_found_without_a_fileno_of_the_users(debugging, said, kind, wrap):
    harmful = kind()
    over_a_fork(debugging, wrap(harmful))
    assert "came over a fork with open descriptor" in said.one()
    harmful.close()
    over_a_fork(debugging, wrap(harmful))
    assert len(said.all()) == 1


@pytest.mark.parametrize("mode", ["r", "w", "rb", "wb", "r+b"])
def test_the_descriptor_of_an_open_file_is_found(debugging, said, mode, tmp_path):
    path = tmp_path / "file"
    path.touch()
    with open(path, mode) as file:
        over_a_fork(debugging, Wrapping(file))
        assert f"open descriptor {file.fileno()}," in said.one()
    over_a_fork(debugging, Wrapping(file))
    assert len(said.all()) == 1


def over_a_fork(aiopool, obj):
    """Put `obj` in the parent of a fork, as it looks, and get it in the child."""
    pool = aiopool.Pool(lambda: obj)
    pool.put(pool.get())
    aiopool._debug._records.record_of(obj).process = 0
    assert pool.get() is obj
    pool.put(obj)


# --- fork ---


def in_child(work):
    """What `work()` returns, a string, in the child of a fork."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # pytest's plugins may have threads
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, work().encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text


class Connection:
    """Its descriptor is an attribute's."""

    def __init__(self):
        self.socket = socket.socket()


@needs_fork
def test_an_idle_connection_that_came_over_a_fork_is_reported(debugging, said):
    pool = debugging.Pool(Connection, name="connections")
    connection = pool.get()
    pool.put(connection)  # before
    number = connection.socket.fileno()

    def work():
        pool.get()  # after
        return said.one()

    text = in_child(work)
    test = test_an_idle_connection_that_came_over_a_fork_is_reported
    assert f"Connection of <aiopool.Pool 'connections'> came over a fork with open descriptor {number}" in text
    assert f"at {place(test, '# before')} before the fork, at {place(work, '# after')} after it" in text
    assert said.all() == []
    connection.socket.close()


@needs_fork
def test_a_checked_out_connection_that_is_put_in_the_child_is_reported(debugging, said):
    pool = debugging.Pool(Connection)

    def work():
        pool.put(connection)
        return said.one()

    connection = pool.get()
    assert "came over a fork" in in_child(work)
    connection.socket.close()
    pool.put(connection)


@needs_fork
def test_a_pool_that_is_cleared_in_the_child_and_plain_memory_are_right(debugging, said):
    connections, buffers = debugging.Pool(Connection), debugging.Pool(bytearray)
    connection = connections.get()
    connections.put(connection)
    checked_out = buffers.get()
    buffers.put(buffers.get())

    def work():
        connections.clear()
        fresh = connections.get()
        connections.put(fresh)
        fresh.socket.close()
        buffers.put(checked_out)
        buffers.put(buffers.get())
        return repr(said.all())

    assert in_child(work) == "[]"
    connection.socket.close()
    buffers.put(checked_out)


@needs_fork
def test_what_the_parent_checked_out_is_no_loss_of_the_child(debugging, said):
    pool = debugging.Pool(Thing)
    held = [pool.get()]

    def work():
        held.clear()
        return repr(said.all())

    assert in_child(work) == "[]"
    held.clear()
    assert "collected while it was checked out" in said.one()


# --- on and off ---


def test_the_fast_paths_find_the_primary_while_it_is_off_and_nothing_while_it_is_on(reference):
    pool = reference.Pool(Thing)
    pool.fill(1)
    store = pool._store
    assert store.fast_get is store.fast_put is store.primary
    reference._debug.turn_on()
    try:
        reference._debug.turn_on()  # twice does no harm
        reference.cleanup()  # the new primary is not published to the fast paths either
        pool.fill(1)
        newer = reference.Pool(Thing)
        newer.fill(1)
        for each in (store, newer._store):
            assert each.primary
            assert not each.fast_get
            assert not each.fast_put
    finally:
        reference._debug.turn_off()
    for each in (store, newer._store):
        assert each.fast_get is each.fast_put is each.primary


def test_no_method_is_replaced(aiopool):
    before = [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)]
    aiopool._debug.turn_on()
    assert aiopool._debug.is_on()
    assert [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)] == before
    aiopool._debug.turn_off()
    assert [dict(vars(cls)) for cls in (aiopool.Pool, aiopool.AsyncPool)] == before
    assert not aiopool._debug.is_on()
    assert aiopool._debug._records.on_gc not in gc.callbacks


def test_a_double_put_by_methods_bound_before_is_found(aiopool):
    pool = aiopool.Pool(Thing)
    get, put = pool.get, pool.put  # bound before the debug mode comes on

    async def main():
        put(get())  # from here on the fast path finds a shard
        with debug_mode(aiopool):
            thing = get()
            put(thing)  # first
            with pytest.raises(ValueError, match="was put already") as caught:
                put(thing)
        return str(caught.value)

    text = asyncio.run(main())
    assert f"put at {place(main, '# first')}, and once more at " in text
    assert f"it was got at {place(main, 'thing = get()')}" in text


@pytest.mark.parametrize("kind", KINDS)
def test_gets_and_puts_by_methods_bound_before_are_observed(aiopool, said, kind):
    pool = aiopool.Pool(kind)
    get, put = pool.get, pool.put  # bound before the debug mode comes on

    async def main():
        put(get())
        with debug_mode(aiopool):
            for _ in range(3):
                put(get())
            pool.clear()
            aiopool._debug._records.sweep()
            assert said.all() == []
            get()  # and gone
            aiopool._debug._records.sweep()

    asyncio.run(main())
    assert f"got at {place(main, '# and gone')}" in said.one()


def test_what_was_got_before_may_be_put_once(aiopool, said):
    pool = aiopool.Pool(Thing)
    held = [pool.get()]
    with debug_mode(aiopool):
        pool.put(held[0])
        with pytest.raises(ValueError, match="it was never got"):  # as far as was seen
            pool.put(held[0])
        pool.get()  # the list refers to it; but it may have come from the pool, so nothing is said
    assert said.all() == []


def test_off_everything_works_as_ever(aiopool):
    aiopool._debug.turn_on()
    aiopool._debug.turn_off()
    pool = aiopool.Pool(Thing)

    async def main():
        with pool.borrow() as thing:
            pass
        with pool.borrow() as same:
            assert same is thing
        pool.put(same)

    with pytest.raises(ValueError, match="put each object once for each get"):
        asyncio.run(main())
    assert not aiopool._debug._records._records


def test_subclasses_with_methods_of_their_own_are_observed(debugging):
    class Counting(debugging.Pool):
        gets = 0

        def get(self):
            Counting.gets += 1
            return super().get()

    pool = Counting(Thing)
    with pool.borrow() as thing:
        pass
    assert Counting.gets == 1
    with pytest.raises(ValueError, match="was put already"):
        pool.put(thing)


def test_many_threads(debugging, said):
    pool = debugging.Pool(lambda: bytearray(10))

    async def work():
        for _ in range(300):
            buffers = [pool.get() for _ in range(3)]
            for buffer in buffers:
                pool.put(buffer)
            del buffers, buffer
            await asyncio.sleep(0)

    threads = [threading.Thread(target=asyncio.run, args=(work(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said.all() == []
    assert not debugging._debug._records.checked_out


# --- as a user sees it ---


def run(child_env, program, *options, arguments=(), **variables):
    done = subprocess.run(
        [sys.executable, *options, "-c", program, *arguments],
        env={**child_env, **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


LOST = (PROGRAMS / "lost_object.py").read_text(encoding="utf-8")


def test_by_the_environment(child_env):
    assert run(child_env, LOST) == ""
    said = run(child_env, LOST, AIOPOOL_DEBUG="1")
    line = 1 + LOST.splitlines().index("    pool.get()")
    assert (
        f"<string>:{line}: ResourceWarning: aiopool: collected while it was checked out: bytearray of <aiopool.Pool 'fr"
        in said
    )
    assert said.count("ResourceWarning") == 1


def test_by_the_loop(child_env):
    said = run(child_env, LOST, arguments=["debug"])
    assert "ResourceWarning: aiopool: collected while it was checked out" in said
    said = run(child_env, LOST, "-X", "dev", "-W", "error")
    assert "ResourceWarning: aiopool: collected while it was checked out" in said


def test_objects_alive_at_exit_are_not_reported(child_env):
    program = "import aiopool; kept = [aiopool.Pool(kind).get() for kind in (bytearray, set)]"
    assert run(child_env, program, "-W", "error", AIOPOOL_DEBUG="1") == ""


def test_warning_filters_are_respected(child_env):
    assert run(child_env, LOST, "-W", "ignore", AIOPOOL_DEBUG="1") == ""


# --- async pools ---


def test_async_pools_are_observed_too(debugging, said):
    async def main():
        made = debugging.AsyncPool(Thing, reset=lambda thing: None, max_idle=1, name="things")
        first, second = await made.get(), await made.get()
        await made.put(first)
        with pytest.raises(ValueError, match=r"put at .*test_debug\.py:"):
            await made.put(first)
        await made.put(second)  # one too many: not kept, and so not lost
        async with made.borrow():
            pass
        with pytest.raises(KeyError):
            async with made.borrow():
                raise KeyError
        await made.aclose()
        del first, second
        assert said.all() == []
        lost = debugging.AsyncPool(Thing, name="lost")
        await lost.get()
        gc.collect()
        assert "'lost'" in said.one()

    asyncio.run(main())


def test_an_async_pool_from_before_is_observed(aiopool, said):
    async def main():
        pool = aiopool.AsyncPool(Thing)
        get, put = pool.get, pool.put  # bound before the debug mode comes on
        await put(await get())
        with debug_mode(aiopool):
            thing = await get()
            await put(thing)
            with pytest.raises(ValueError, match="was put already"):
                await put(thing)
            del thing
            async with pool.borrow():
                pass
            assert said.all() == []
            await get()  # and gone
            gc.collect()

    asyncio.run(main())
    assert f"got at {place(main, '# and gone')}" in said.one()


def test_buffers_are_not_observed(debugging, said):
    warnings.simplefilter("ignore", RuntimeWarning)  # in Python, on 3.11
    buffers = debugging.BufferPool()
    view = buffers.acquire(10)
    del view
    buffers.acquire(10)
    assert said.all() == []

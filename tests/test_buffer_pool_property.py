"""Random programs over one pool: no byte ever changes under a live view.

A model knows the bytes of each view: a write through one view shows through all views over the same bytes, and through
no other. After each step of the program every live view is compared with the model.
"""

import gc
import sys

import pytest
from control_buffers import PutByFinalizer, PutByHand
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from loops import LoopThread, in_thread

# The same programs each time, and nothing stored between runs.
EXAMPLES = settings(
    max_examples=40,
    stateful_step_count=40,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=list(HealthCheck),
)

SIZES = st.sampled_from([0, 1, 100, 1023, 1024, 1025, 5000, 9000])


@pytest.fixture(scope="module")
def threads():
    """Functions that run another function on one of two loops, in a thread without a loop, or here."""
    loops = [LoopThread(), LoopThread()]
    gc.collect()
    gc.freeze()  # otherwise each collection would go through all of hypothesis
    yield [lambda function, *args: function(*args), in_thread, *(loop.call for loop in loops)]
    gc.unfreeze()
    for loop in loops:
        loop.stop()


class Model:
    """The bytes that some views should have."""

    def __init__(self, content, start, stop):
        self.content, self.start, self.stop = content, start, stop

    def seen(self):
        """The bytes that a view must show."""
        return bytes(self.content[self.start : self.stop])

    def write(self, mark):
        """Fill these bytes."""
        self.content[self.start : self.stop] = bytes([mark]) * (self.stop - self.start)

    def narrowed(self, start, stop):
        """The model of the same bytes from `start` to `stop`."""
        start, stop, _ = slice(start, stop).indices(self.stop - self.start)
        return Model(self.content, self.start + start, self.start + max(start, stop))


class Holder(bytearray):
    """An object in a reference cycle with a view; its finalizer checks whether the view is still right.

    A bytearray, so that collectors that go by size finalize it among the buffers.
    """

    def __init__(self, program):
        super().__init__()
        self.program = program

    def hold(self, view, model, other):
        self.view, self.model, self.other = view, model, other

    def __del__(self):
        used = self.program.pool.acquire(len(self.view))
        used[:] = b"\xff" * len(used)
        if bytes(self.view) != self.model.seen():
            self.program.wrong.append(self.model)


class Program(RuleBasedStateMachine):
    """The operations of a pool's users, in any order and on any thread."""

    make_pool = threads = None

    @staticmethod
    def cleanup():
        """Run a cleanup cycle."""

    def done(self, view):
        """Give the view back by hand, if the pool needs that."""

    def __init__(self):
        super().__init__()
        self.pool = type(self).make_pool()
        self.live = []  # pairs of a view and its model
        self.marks = 0
        self.wrong = []

    def pick(self, index):
        return self.live[index % len(self.live)]

    def write(self, view, model):
        self.marks = self.marks % 250 + 1
        model.write(self.marks)
        view.cast("B")[:] = bytes([self.marks]) * view.nbytes

    def somewhere(self, where, function, *args):
        return self.threads[where](function, *args)

    @rule(n=SIZES, where=st.integers(0, 3))
    def acquire(self, n, where):
        # The view does not pass between the threads, because a reference might stay behind there for a moment.
        self.somewhere(where, self.acquire_here, n)

    def acquire_here(self, n):
        view, model = self.pool.acquire(n), Model(bytearray(n), 0, n)
        self.write(view, model)
        self.live.append([view, model])

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 50), where=st.integers(0, 3))
    def write_again(self, index, where):
        self.somewhere(where, lambda: self.write(*self.pick(index)))

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 50), start=st.integers(0, 600), stop=st.integers(400, 1200))
    def slice(self, index, start, stop):
        view, model = self.pick(index)
        self.live.append([view[start:stop], model.narrowed(start, stop)])

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 50), how=st.sampled_from(["b", "c", "numpy", "again"]))
    def look_otherwise(self, index, how):
        view, model = self.pick(index)
        if how == "numpy":
            numpy = pytest.importorskip("numpy")
            view = memoryview(numpy.frombuffer(view, "u1")) if view.nbytes else view[:]
        elif how == "again":
            view = memoryview(view)
        else:
            view = view.cast(how).cast("B")
        self.live.append([view, model])

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 50), where=st.integers(0, 3), early=st.booleans())
    def drop(self, index, where, early):
        held = self.live.pop(index % len(self.live))
        self.done(held[0])
        if early:
            try:
                held[0].release()
            except BufferError:  # an array still uses it
                pass
        self.somewhere(where, held.clear)

    @rule(n=SIZES)
    def make_garbage(self, n):
        older = Holder(self)
        view = self.pool.acquire(n)
        model = Model(bytearray(n), 0, n)
        self.write(view, model)
        newer = Holder(self)
        older.hold(view, model, newer)
        newer.hold(view[n // 2 :], model.narrowed(n // 2, n), older)

    @precondition(lambda self: self.live)
    @rule(index=st.integers(0, 50))
    def keep_by_garbage(self, index):
        view, model = self.pick(index)
        one, two = Holder(self), Holder(self)
        one.hold(view[:], model, two)
        two.hold(view[:10], model.narrowed(0, 10), one)

    @rule(where=st.integers(0, 3))
    def collect(self, where):
        self.somewhere(where, gc.collect)

    @rule(where=st.integers(0, 3))
    def clean_up(self, where):
        self.somewhere(where, type(self).cleanup)

    @invariant()
    def every_view_shows_what_was_written_to_it(self):
        for view, model in self.live:
            assert bytes(view) == model.seen()
        assert not self.wrong

    def teardown(self):
        self.live.clear()
        gc.collect()
        for thread in self.threads:
            thread(gc.collect)  # on a free-threaded build, an object is freed in the thread that created it
        assert not self.wrong
        self.at_end()

    def at_end(self):
        """Check the pool after all views are gone."""


def run(threads, **members):
    """Run random programs, each with a pool from `make_pool`."""
    for name in "make_pool", "cleanup":
        members[name] = staticmethod(members.get(name, getattr(Program, name)))
    run_state_machine_as_test(type("Program", (Program,), {"threads": threads, **members}), settings=EXAMPLES)


@pytest.mark.parametrize("wipe", [False, True], ids=["as it is", "wiping"])
def test_no_byte_changes_under_a_live_view(aiopool, threads, wipe):
    reused = []

    def at_end(self):
        stats = self.pool.stats()
        assert stats.bytes_in_use == 0
        reused.append(stats.served - stats.created)

    run(
        threads,
        make_pool=lambda: aiopool.BufferPool(max_idle_bytes=30_000, max_size=8192, wipe=wipe),
        cleanup=aiopool.cleanup,
        at_end=at_end,
    )
    if aiopool.implementation == "native" or sys.version_info >= (3, 12):
        assert sum(reused) > 100, "too few blocks were reused"


def test_a_pool_with_manual_puts_fails_this(threads):
    def done(self, view):
        self.pool.give_back(memoryview(view.obj))

    with pytest.raises(AssertionError):
        run(threads, make_pool=PutByHand, done=done)


def test_a_pool_that_puts_in_a_finalizer_fails_this(threads):
    # The collector's order of finalizers differs from run to run, which hypothesis reports.
    with pytest.raises((AssertionError, Flaky)):
        run(threads, make_pool=PutByFinalizer)

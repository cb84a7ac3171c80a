"""Debug mode across a fork: connections that two processes would use are reported, memory is not."""

import os
import socket
import warnings

import pytest
from observed import place
from shared import Thing

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def in_child(work):
    """Call `work()` in the child of a fork, and return its result, a string."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded")  # pytest's plugins may have threads
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
    """An object whose attribute has the descriptor."""

    def __init__(self):
        self.socket = socket.socket()


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


def test_a_checked_out_connection_that_is_put_in_the_child_is_reported(debugging, said):
    pool = debugging.Pool(Connection)

    def work():
        pool.put(connection)
        return said.one()

    connection = pool.get()
    assert "came over a fork" in in_child(work)
    connection.socket.close()
    pool.put(connection)


def test_a_pool_cleared_in_the_child_and_plain_memory_are_not_reported(debugging, said):
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


def test_objects_checked_out_by_the_parent_are_not_reported_in_the_child(debugging, said):
    pool = debugging.Pool(Thing)
    held = [pool.get()]

    def work():
        held.clear()
        return repr(said.all())

    assert in_child(work) == "[]"
    held.clear()
    assert "collected while it was checked out" in said.one()

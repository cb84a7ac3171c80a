"""Debug mode runs no code of the objects it inspects: proxies stay lazy, and a `fileno` that raises does no harm."""

import asyncio
import io
import os
import socket

import pytest
from shared import Thing

touched = []


class Lazy:
    """A proxy that creates its object as soon as its class is requested."""

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
        touched.append("truth value requested")
        return False

    def fileno(self):
        touched.append("descriptor requested")
        return 3


class Broken(Lazy):
    """A proxy whose object cannot be created."""

    @property
    def __class__(self):
        touched.append("evaluated")
        raise RuntimeError("not now")


class Small:
    """A lazy proxy that does not support weak references."""

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

    # Also if the proxy refers to the pooled object.
    proxies[0].target = thing = Thing()
    pool.put(thing)
    pool.get()

    assert touched == []
    elsewhere, lost, referred = said.all()
    assert "a list refers to it" in elsewhere
    assert "collected while it was checked out" in lost
    assert "is in use elsewhere" in referred


class Harmful:
    """An object whose `fileno` raises an unexpected exception."""

    def __init__(self, error):
        self.error = error

    def fileno(self):
        raise self.error


class HarmfulSocket(socket.socket):
    """A socket whose `fileno` raises."""

    def fileno(self):
        raise KeyboardInterrupt


class HarmfulFile(io.FileIO):
    """A file whose `fileno` raises."""

    def fileno(self):
        raise SystemExit


class Wrapping:
    """An object with an attribute like that."""

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
    """Put `obj` in what seems to be the parent of a fork, and get it in the child."""
    pool = aiopool.Pool(lambda: obj)
    pool.put(pool.get())
    aiopool._debug._records.record_of(obj).process = 0
    assert pool.get() is obj
    pool.put(obj)

"""Runs after tests that were isolated."""

from filled_frames import before, pool


def test_nothing_has_changed():
    after = pool.stats()
    # The fixture `runner` is not isolated: a get and a put for each loop, with a hit.
    assert after.idle == before.idle == 13
    assert (after.created, after.cycles, after.gets - before.gets) == (before.created, before.cycles, 2)

"""A pool that suites use."""

from aiopool import Pool

pool = Pool(lambda: bytearray(10), name="frames")

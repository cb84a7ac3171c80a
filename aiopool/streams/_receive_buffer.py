"""What a stream has received and nobody has read yet, and where its next bytes go. No input or output happens here.

asyncio's `StreamReader` copies each byte three times: out of the kernel into a new `bytes`, from there to the end of a
`bytearray`, and from its front into the result. Here the kernel writes into a chunk from a `BufferPool`, and what is
taken are views of that chunk. When somebody waits for more bytes in one piece than there are, the next chunk is made to
hold them all: the kernel writes the rest of a big message straight into what will be taken. Small messages come many to
a chunk. What arrives while nobody waits fills one chunk after another, and is not moved.

A chunk belongs to the stream from the moment when room is asked for until all that was received into it was taken. So
an idle connection holds no buffer. One exception needs care: some transports ask for room, and then find that there is
nothing to receive. `release_room` takes it back.

A view keeps its whole chunk from being used again. A small one would pin many times its size for as long as somebody
keeps it, in a queue or a cache, and to copy a few kilobytes costs less than to receive them. So what is smaller than a
sixteenth of its chunk is copied out of it: what one keeps takes at most sixteen times its size. (Of storage it may be
twice that, for sizes double from class to class.) So is the beginning of a message in a big chunk, when a reader has
to wait for the rest.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from .._buffer_pool import KIB, BufferPool
from .._native import in_c, native

PINNED = 16
"""What is taken is a view if it is no smaller than its chunk divided by this; else a copy."""

FIRST = 16 * KIB
"""A chunk to receive into without knowing what. A stream that fills it gets bigger ones."""

MOST = 512 * KIB
"""The biggest of those. A message that begins in one chunk and ends in the next has to be copied, so they are few."""

BIG = 128 * KIB
"""Messages from this size on get a chunk of their own: to copy one costs more than to receive it by itself."""

ROOM = 4 * KIB
"""To receive less than this at a time costs more than to copy as much."""


if native is not None:
    native.set_receive_sizes(PINNED, FIRST, MOST, BIG, ROOM)


@in_c
class ReceiveBuffer:
    """Received bytes, in order: `_chunk[_start:_end]`, then all of `_later`, whose last chunk is filled to `_filled`.

    `needed` is how many bytes somebody waits for in one piece, 0 if nobody does. The reader sets it; to take anything
    ends it.
    """

    __slots__ = ("_buffers", "_chunk", "_end", "_filled", "_later", "_offered", "_size", "_start", "needed", "unread")

    def __init__(self, buffers: BufferPool) -> None:
        self._buffers = buffers
        self._chunk: memoryview | None = None
        self._start = 0
        self._end = 0
        # None instead of an empty list, so that thousands of connections do not each have one.
        self._later: list[memoryview] | None = None
        self._filled = 0
        # What was given as room when there was no chunk. Held here, for not every transport does.
        self._offered: memoryview | None = None
        # Of the next chunk to receive into without knowing what.
        self._size = FIRST
        self.needed = 0
        # How many bytes there are. No `__len__`: a buffer with nothing in it is not to be false.
        self.unread = 0

    # --- receiving ---

    def room(self, known: int = 0) -> memoryview:
        """Where the next bytes are to be written. To be held by the caller until `received`.

        `known`: as many are there for certain; the caller has them and wants to write them all at once.
        """
        chunk = self._chunk
        if chunk is None:
            self._offered = self._acquire(max(self.needed, known))
            return self._offered
        if self.unread < self.needed:
            # All of it is to be in one piece.
            if self._later is not None or not self._has_room(chunk):
                chunk = self._grow()
            return chunk[self._end :]
        if self._later is not None:
            last, filled = self._later[-1], self._filled
        else:
            last, filled = chunk, self._end
        if len(last) - filled >= max(ROOM, known):
            return last[filled:]
        if self.unread <= ROOM and known <= ROOM:
            return self._grow()[self._end :]
        return self._begin_later(known)

    def release_room(self) -> None:
        """Nothing was written there, and nothing will be: an idle stream holds no buffer."""
        self._offered = None

    def received(self, nbytes: int) -> None:
        """So many were written."""
        self.unread += nbytes
        if self._later is not None:
            self._filled += nbytes
            is_full = self._filled == len(self._later[-1])
        else:
            if self._chunk is None:
                self._chunk = self._offered
                self._offered = None
            assert self._chunk is not None
            self._end += nbytes
            is_full = self._end == len(self._chunk)
        if is_full and self.needed < BIG:
            self._size = min(4 * self._size, MOST)

    def _has_room(self, chunk: memoryview) -> bool:
        room = len(chunk) - self._end
        if room >= ROOM:
            return self._start + self.needed <= len(chunk)
        # The last bytes of something big fit in exactly.
        return room > 0 and ROOM < self.unread < self.needed <= len(chunk) - self._start

    def _begin_later(self, known: int) -> memoryview:
        """All that anybody waits for is there, and too much to be moved: it stays where it is."""
        # Behind a big message comes another one, likely. It gets a chunk of its own when it is known how big it is, and
        # what was received before that has to be copied, so let it be little.
        begun = self._buffers.acquire(max(known, FIRST if self.needed >= BIG else self._size))
        if self._later is None:
            self._later = [begun]
        else:
            self._later[-1] = self._later[-1][: self._filled]
            self._later.append(begun)
        self._filled = 0
        return begun

    def _grow(self) -> memoryview:
        """Have all bytes lie in one chunk, with room for what is needed."""
        unread = self.unread
        # What grows without anybody saying how far doubles each time, so that a byte is moved once or twice at most.
        more = self.needed if self.needed > unread + 1 else unread + max(unread, self._size)
        return self._merge(len(self._later or ()), more)

    def _acquire(self, size: int) -> memoryview:
        """A chunk of `size` bytes or more."""
        if size < self._size:
            size = self._size
        elif size + ROOM <= self._buffers.max_size:
            # What comes right behind a big message is received with it: the next header, mostly.
            size += ROOM
        return self._buffers.acquire(size)

    def _merge(self, count: int, size: int) -> memoryview:
        """Have the first chunk and `count` of the later ones lie in one of `size` bytes or more."""
        assert self._chunk is not None
        later = self._later or []
        if not later and self.unread <= ROOM < len(self._chunk):
            # Let go of the chunk first: what is acquired next may be the same memory, and still in the caches.
            self._set_aside()
        if count == len(later) > 0:
            later[-1] = later[-1][: self._filled]
        parts = [self._chunk[self._start : self._end], *later[:count]]
        merged = self._acquire(max(size, sum(map(len, parts))))
        end = 0
        for part in parts:
            merged[end : end + len(part)] = part
            end += len(part)
        self._chunk, self._start, self._end = merged, 0, end
        self._later = later[count:] or None
        return merged

    def _set_aside(self) -> None:
        """Let go of all chunks, and keep what is unread in them."""
        self._chunk = memoryview(bytearray(self.peek()))
        self._start, self._end = 0, self.unread
        self._later = None

    def hold_little(self) -> None:
        """Somebody waits with the beginning of a message, for nobody knows how long: no time to hold a big chunk."""
        # From a small chunk, or for more bytes, it would cost too much where messages come in many pieces.
        if self._chunk is not None and self.unread <= ROOM and len(self._chunk) > PINNED * ROOM:
            self._set_aside()

    # --- taking ---

    def in_a_row(self) -> int:
        """How many bytes can be taken without a copy."""
        return self._end - self._start

    def take(self, n: int) -> memoryview:
        """The first `n` bytes, which are there."""
        chunk = self._chunk
        if chunk is None or n > self._end - self._start:
            return self._take_across(n)
        view = chunk[self._start : self._start + n]
        if n * PINNED < len(chunk):
            view = memoryview(bytearray(view))
        elif n >= BIG:
            # The next one may be as big: what is received before that is known would have to be copied.
            self._size = FIRST
        self.skip(n)
        return view

    def _take_across(self, n: int) -> memoryview:
        """A copy, which is in one piece."""
        taken = memoryview(bytearray(n)) if n < ROOM else self._buffers.acquire(n)
        end = 0
        for part in self._parts(n):
            taken[end : end + len(part)] = part
            end += len(part)
        self.skip(n)
        return taken

    def take_bytes(self, n: int) -> bytes:
        """A copy of the first `n` bytes, which are there."""
        if self._chunk is not None and n <= self._end - self._start:
            taken = bytes(self._chunk[self._start : self._start + n])
        else:
            taken = b"".join(self._parts(n))
        self.skip(n)
        return taken

    def peek(self) -> bytes:
        """A copy of all there is; it stays."""
        return b"".join(self._parts(self.unread))

    def _parts(self, n: int) -> list[memoryview]:
        """Where the first `n` bytes lie."""
        parts: list[memoryview] = []
        if self._chunk is not None:
            for part in (self._chunk[self._start : self._end], *(self._later or ())):
                parts.append(part[:n])
                n -= len(parts[-1])
                if n == 0:
                    break
        return parts

    def skip(self, n: int) -> None:
        """Have done with the first `n` bytes, which are there."""
        self.needed = 0
        self.unread -= n
        while n >= self._end - self._start and self._chunk is not None:
            n -= self._end - self._start
            self._next_chunk()
        self._start += n

    def _next_chunk(self) -> None:
        later = self._later
        self._start = 0
        if later is None:
            self._chunk, self._end = None, 0
            return
        self._chunk = later.pop(0)
        self._end = len(self._chunk)
        if not later:
            self._later, self._end = None, self._filled
            if self._filled == 0:
                self._chunk = None

    def find(self, separators: list[bytes], searched: int) -> tuple[int, int] | None:
        """From where to where the separator goes that ends first, looking from `searched` on."""
        while self._chunk is not None:
            best = None
            for separator in separators:
                match = _search_for(separator)(self._chunk, self._start + searched, self._end)
                if match is not None and (best is None or match.end() < best[1]):
                    best = match.span()
            if best is not None:
                return best[0] - self._start, best[1] - self._start
            if self._later is None:
                break
            # All but what may be the beginning of a separator.
            row = self._end - self._start
            searched = max(searched, row + 1 - len(separators[-1]))
            count = self._as_many(row)
            self._merge(count, 2 * self.unread if count == len(self._later) else 0)
        return None

    def _as_many(self, nbytes: int) -> int:
        """How many of the later chunks have as many bytes together; so that what is merged doubles each time."""
        later = self._later or []
        for count, chunk in enumerate(later):
            if nbytes <= 0:
                return count
            nbytes -= len(chunk)
        return len(later)

    def clear(self) -> None:
        """Let go of everything."""
        self._chunk = self._later = self._offered = None
        self._start = self._end = self._filled = self.needed = self.unread = 0


# A memoryview has no find().
@lru_cache(maxsize=64)
def _search_for(separator: bytes) -> Callable[[memoryview, int, int], "re.Match[bytes] | None"]:
    return re.compile(re.escape(separator), re.DOTALL).search

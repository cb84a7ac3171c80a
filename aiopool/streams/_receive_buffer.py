"""The receive buffer: the bytes that a stream has received and that were not read yet. It does no I/O.

asyncio's `StreamReader` copies each byte three times: out of the kernel into a new `bytes` object, from there to the
end of a `bytearray`, and from its front into the result. Here the kernel writes into a chunk from a `BufferPool`, and
reads return views of that chunk. If a read waits for more bytes in one piece than there are, the next chunk is large
enough for all of them, so the kernel writes the rest of a large message directly into the result. Many small messages
share a chunk. Bytes that arrive while no read waits fill one chunk after another, and are not moved.

A stream holds a chunk from the moment when room is requested until all bytes in it were taken, so an idle connection
holds no buffer. One case needs care: some transports request room and then find that there is nothing to receive.
`release_room` drops that chunk.

A view keeps its whole chunk from being reused. A small view would pin many times its size as long as the program keeps
it, in a queue or a cache, and copying a few kilobytes costs less than receiving them. So results that are smaller than
a sixteenth of their chunk are copied, and a result pins at most sixteen times its size (or somewhat more memory,
because a block may be larger than its chunk). The beginning of a message in a large chunk is also copied if a reader
has to wait for the rest.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from .._buffer_pool import KIB, BufferPool
from .._native import has_gil, in_c, native

PINNED = 16
"""A result is a view if it is at least as large as its chunk divided by this; otherwise a copy."""

FIRST = 16 * KIB
"""The size of the first chunk, when it is not known what will arrive. A stream that fills it gets larger ones."""

MOST = 512 * KIB
"""The largest size of such chunks. Large ones are better, because a message that spans two chunks has to be copied."""

BIG = 128 * KIB
"""Messages of at least this size get their own chunk, because copying one costs more than receiving it separately."""

ROOM = 4 * KIB
"""The least room for a receive: receiving fewer bytes at a time costs more than copying them."""

COPIES = not has_gil()
"""Whether each result is a copy. Without a GIL, CPython does not count the slices of one view atomically, and the loop
goes on slicing the chunk while another thread may slice or drop the result. (In C, each result can have a view of the
chunk that it shares with no other.)"""


if native is not None:
    native.set_receive_sizes(PINNED, FIRST, MOST, BIG, ROOM)


@in_c
class ReceiveBuffer:
    """Received bytes, in order: `_chunk[_start:_end]`, then all of `_later`, whose last chunk is filled to `_filled`.

    `needed` is how many bytes the reader waits for in one piece; 0 if it does not wait. The reader sets it, and taking
    any bytes resets it.
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
        # The chunk given as room when there was no chunk. Held here, because not every transport holds it.
        self._offered: memoryview | None = None
        # The size of the next chunk, when it is not known what will arrive.
        self._size = FIRST
        self.needed = 0
        # How many bytes there are. Not `__len__`, because an empty buffer would then be false.
        self.unread = 0

    # --- receiving ---

    def room(self, known: int = 0) -> memoryview:
        """Return a view to write the next bytes to. The caller holds it until it calls `received`.

        It has room for at least `known` bytes, which the caller already has and wants to write at once.
        """
        chunk = self._chunk
        if chunk is None:
            self._offered = self._acquire(max(self.needed, known))
            return self._offered
        if self.unread < self.needed:
            # All needed bytes must be in one piece.
            if self._later is not None or not self._has_room(chunk):
                del chunk  # so that it can be dropped before the next is acquired
                chunk = self._grow()
            return chunk[self._end :]
        if self._later is not None:
            last, filled = self._later[-1], self._filled
        else:
            last, filled = chunk, self._end
        if len(last) - filled >= max(ROOM, known):
            return last[filled:]
        if self.unread <= ROOM and known <= ROOM:
            del chunk, last  # so that it can be dropped before the next is acquired
            return self._grow()[self._end :]
        return self._begin_later(known)

    def release_room(self) -> None:
        """Drop the room, to which nothing was and will be written, so that an idle stream holds no buffer."""
        self._offered = None

    def received(self, nbytes: int) -> None:
        """Note that `nbytes` were written to the buffer."""
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
        # Less room is enough for the last bytes of a large message.
        return room > 0 and ROOM < self.unread < self.needed <= len(chunk) - self._start

    def _begin_later(self, known: int) -> memoryview:
        """Begin another chunk, because no read needs more bytes and those received are too many to be moved."""
        # After a large message another large one is likely. It gets its own chunk when its size is known, and the bytes
        # received before that have to be copied. So let them be few.
        begun = self._buffers.acquire(max(known, FIRST if self.needed >= BIG else self._size))
        if self._later is None:
            self._later = [begun]
        else:
            self._later[-1] = self._later[-1][: self._filled]
            self._later.append(begun)
        self._filled = 0
        return begun

    def _grow(self) -> memoryview:
        """Move all bytes into one chunk, with room for the needed ones."""
        unread = self.unread
        # If the final size is not known, it doubles each time, so that a byte is moved only once or twice on average.
        more = self.needed if self.needed > unread + 1 else unread + max(unread, self._size)
        return self._merge(len(self._later or ()), more)

    def _acquire(self, size: int) -> memoryview:
        """Acquire a chunk of at least `size` bytes."""
        if size < self._size:
            size = self._size
        elif size + ROOM <= self._buffers.max_size:
            # Room for bytes that follow a large message, usually the next header.
            size += ROOM
        return self._buffers.acquire(size)

    def _merge(self, count: int, size: int) -> memoryview:
        """Merge the first chunk and `count` of the later ones into one chunk of at least `size` bytes."""
        assert self._chunk is not None
        later = self._later or []
        if not later and self.unread <= ROOM < len(self._chunk):
            # Drop the chunk first: the next acquire may return the same memory, which is still in the CPU's caches.
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
        """Copy the unread bytes, and drop all chunks."""
        self._chunk = memoryview(bytearray(self.peek()))
        self._start, self._end = 0, self.unread
        self._later = None

    def hold_little(self) -> None:
        """Hold no large chunk for the beginning of a message, because a read may wait long for the rest."""
        # With a small chunk or more bytes, copying would cost too much when messages arrive in many pieces.
        if self._chunk is not None and self.unread <= ROOM and len(self._chunk) > PINNED * ROOM:
            self._set_aside()

    # --- taking ---

    def in_a_row(self) -> int:
        """How many bytes can be taken without a copy."""
        return self._end - self._start

    def take(self, n: int) -> memoryview:
        """Take the first `n` unread bytes, as a view."""
        chunk = self._chunk
        if chunk is None or n > self._end - self._start:
            return self._take_across(n)
        view = chunk[self._start : self._start + n]
        is_small = n * PINNED < len(chunk)
        if is_small or COPIES:
            view = memoryview(bytearray(view))
        if n >= BIG and not is_small:
            # The next message may be as large, and bytes received before its size is known would have to be copied.
            self._size = FIRST
        self.skip(n)
        return view

    def _take_across(self, n: int) -> memoryview:
        """Take bytes that span several chunks, as a copy in one piece."""
        taken = memoryview(bytearray(n)) if n < ROOM else self._buffers.acquire(n)
        end = 0
        for part in self._parts(n):
            taken[end : end + len(part)] = part
            end += len(part)
        self.skip(n)
        return taken

    def take_bytes(self, n: int) -> bytes:
        """Take the first `n` unread bytes, as a copy."""
        if self._chunk is not None and n <= self._end - self._start:
            taken = bytes(self._chunk[self._start : self._start + n])
        else:
            taken = b"".join(self._parts(n))
        self.skip(n)
        return taken

    def peek(self) -> bytes:
        """Return a copy of all unread bytes, without taking them."""
        return b"".join(self._parts(self.unread))

    def _parts(self, n: int) -> list[memoryview]:
        """Views of the first `n` bytes, one for each chunk."""
        parts: list[memoryview] = []
        if self._chunk is not None:
            for part in (self._chunk[self._start : self._end], *(self._later or ())):
                parts.append(part[:n])
                n -= len(parts[-1])
                if n == 0:
                    break
        return parts

    def skip(self, n: int) -> None:
        """Drop the first `n` unread bytes."""
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
        """Find the separator that ends first, from offset `searched` on. Returns the offsets of its start and end."""
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
            # Skip all bytes except those that may be the beginning of a separator.
            row = self._end - self._start
            searched = max(searched, row + 1 - len(separators[-1]))
            count = self._as_many(row)
            self._merge(count, 2 * self.unread if count == len(self._later) else 0)
        return None

    def _as_many(self, nbytes: int) -> int:
        """How many of the later chunks together have at least `nbytes`, so that the merged size doubles each time."""
        later = self._later or []
        for count, chunk in enumerate(later):
            if nbytes <= 0:
                return count
            nbytes -= len(chunk)
        return len(later)

    def clear(self) -> None:
        """Drop everything."""
        self._chunk = self._later = self._offered = None
        self._start = self._end = self._filled = self.needed = self.unread = 0


# A regular expression, because a memoryview has no find().
@lru_cache(maxsize=64)
def _search_for(separator: bytes) -> Callable[[memoryview, int, int], "re.Match[bytes] | None"]:
    return re.compile(re.escape(separator), re.DOTALL).search

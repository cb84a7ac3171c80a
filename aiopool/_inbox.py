"""What a stream has received and nobody has read yet, and where its next bytes go.

asyncio's `StreamReader` copies each byte three times: out of the kernel into a new `bytes`, from there to the end of a
`bytearray`, and from its front into the result. Here the kernel writes into a chunk from a `BufferPool`, and what is
taken are views of that chunk. When somebody waits for more bytes in one piece than there are, the next chunk is made to
hold them all: the kernel writes the rest of a big message straight into what will be taken. Small messages come many to
a chunk.

A chunk belongs to the stream from the moment when a transport asks for it until all that was received into it was
taken. So an idle connection holds no buffer. One exception needs care: over TLS a transport asks, and then finds that
there is nothing to decrypt yet.

A view keeps its whole chunk from being used again. A small one would pin many times its size for as long as somebody
keeps it, in a queue or a cache, and to copy a few kilobytes costs less than to receive them. So what is smaller than a
sixteenth of its chunk is copied out of it: what one keeps takes at most sixteen times its size. (Of storage it may be
twice that, for sizes double from class to class.) So is the beginning of a message in a big chunk, when a reader has
to wait for the rest.
"""

from ._buffer_pool import KIB, BufferPool

PINNED = 16
"""What is taken is a view if it is no smaller than its chunk divided by this; else a copy."""

FIRST = 16 * KIB
"""A chunk to receive into without knowing what. A stream that fills it gets bigger ones."""

MOST = 256 * KIB
"""The biggest of those: asyncio's own transports receive no more at a time either."""

BIG = 128 * KIB
"""Messages from this size on get a chunk of their own: to copy one costs more than to receive it by itself."""

AHEAD = 512 * KIB
"""Behind a message of up to this size a chunk for another one is begun before anybody asks for it."""

ROOM = 4 * KIB
"""To receive less than this at a time costs more than to copy as much."""


class Inbox:
    """Received bytes, in order: `_chunk[_start:_end]`, and on from there in `_next[:_next_end]`."""

    __slots__ = (
        "_buffers",
        "_chunk",
        "_end",
        "_may_be_in_vain",
        "_needed",
        "_next",
        "_next_end",
        "_offered",
        "_receive",
        "_start",
    )

    def __init__(self, buffers: BufferPool) -> None:
        self._buffers = buffers
        self._chunk: memoryview | None = None
        self._start = 0
        self._end = 0
        self._next: memoryview | None = None
        self._next_end = 0
        # What a transport asked for when there was no chunk. Held here, for not every transport does.
        self._offered: memoryview | None = None
        self._receive = FIRST
        # Whether a transport may ask for a chunk and then receive nothing.
        self._may_be_in_vain = False
        # How many bytes somebody waits for, in one piece.
        self._needed = 0

    def _unread(self) -> int:
        """How many bytes there are. No `__len__`: a reader with nothing to read must not be false."""
        return self._end - self._start + self._next_end

    # --- receiving ---

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes are to be written. To be held by the caller until `buffer_updated`."""
        chunk = self._chunk
        if chunk is None:
            self._offered = chunk = self._acquire(self._needed)
            if self._may_be_in_vain:
                self._withdraw_soon()
            return chunk
        if self._next is not None:
            if self._next_end < len(self._next):
                return self._next[self._next_end :]
            chunk = self._make_room()
        elif not self._has_room(chunk):
            if ROOM < self._end - self._start >= self._needed:
                return self._begin_next(chunk)
            chunk = self._make_room()
        return chunk[self._end :]

    def buffer_updated(self, nbytes: int) -> None:
        """So many were written."""
        if self._next is not None:
            self._next_end += nbytes
            return
        chunk = self._chunk
        if chunk is None:
            chunk = self._chunk = self._offered
            self._offered = None
            assert chunk is not None
        self._end += nbytes
        if self._end == len(chunk) and self._needed < BIG:
            self._receive = min(4 * self._receive, MOST)

    def _is_full(self) -> bool:
        """Whether more could only be received by moving what is there."""
        return self._next is not None and self._next_end == len(self._next)

    def _has_room(self, chunk: memoryview) -> bool:
        room = len(chunk) - self._end
        if room >= ROOM:
            return self._start + self._needed <= len(chunk)
        # The last bytes of something big fit in exactly.
        return room > 0 and ROOM < self._end - self._start < self._needed <= len(chunk) - self._start

    def _begin_next(self, chunk: memoryview) -> memoryview:
        """All that anybody waits for is there, and too much to be moved: it stays where it is."""
        extra = self._end - self._start - self._needed
        if BIG <= self._needed <= AHEAD and extra <= ROOM:
            # It is in a row of big messages, likely: then the next one can lie in one piece as well.
            self._next = self._acquire(self._needed)
            self._end -= extra
            self._next[:extra] = chunk[self._end : self._end + extra]
            self._next_end = extra
        else:
            self._next = self._buffers.acquire(FIRST)
        return self._next[self._next_end :]

    def _make_room(self) -> memoryview:
        unread = self._unread()
        # What grows without anybody saying how far doubles each time, so that a byte is moved once or twice at most.
        return self._gather(max(self._needed, unread + max(unread, self._receive)))

    def _acquire(self, size: int) -> memoryview:
        """A chunk of `size` bytes or more."""
        if size < self._receive:
            size = self._receive
        elif size + ROOM <= self._buffers.max_size:
            # What comes right behind a big message is received with it: the next header, mostly.
            size += ROOM
        return self._buffers.acquire(size)

    def _gather(self, size: int) -> memoryview:
        """Have all bytes lie in one chunk, of `size` or more."""
        assert self._chunk is not None
        unread = self._unread()
        rest = self._end - self._start
        if rest <= ROOM < len(self._chunk):
            # Let go of the chunk first: what is acquired next may be the same memory, and still in the caches.
            self._set_aside()
        gathered = self._acquire(max(size, unread))
        gathered[:rest] = self._chunk[self._start : self._end]
        if self._next is not None:
            gathered[rest:unread] = self._next[: self._next_end]
        self._chunk, self._start, self._end = gathered, 0, unread
        self._next, self._next_end = None, 0
        return gathered

    def _set_aside(self) -> None:
        """Let go of the chunk, and keep what is unread in it."""
        assert self._chunk is not None
        self._chunk = memoryview(bytearray(self._chunk[self._start : self._end]))
        self._start, self._end = 0, len(self._chunk)

    def _hold_little(self) -> None:
        """Somebody waits with the beginning of a message, for nobody knows how long: no time to hold a big chunk."""
        assert self._chunk is not None
        # From a small chunk, or for more bytes, it would cost too much where messages come in many pieces.
        if self._end - self._start <= ROOM and len(self._chunk) > PINNED * ROOM:
            self._set_aside()

    def _withdraw_soon(self) -> None:
        """Let go of `_offered` when the transport has done with it."""
        raise NotImplementedError

    # --- taking ---

    def _take(self, n: int) -> memoryview:
        """The first `n` bytes, which are there, and more than none."""
        chunk = self._gather(n) if n > self._end - self._start else self._chunk
        assert chunk is not None
        view = chunk[self._start : self._start + n]
        if n * PINNED < len(chunk):
            view = memoryview(bytearray(view))
        elif n >= BIG:
            # The next one may be as big: what is received before that is known would have to be copied.
            self._receive = FIRST
        self._skip(n)
        return view

    def _skip(self, n: int) -> None:
        """Have done with the first `n` bytes of the chunk."""
        self._needed = 0
        self._start += n
        if self._start == self._end:
            self._chunk = self._next if self._next_end else None
            self._start = 0
            self._end = self._next_end
            self._next = None
            self._next_end = 0

    def _discard(self) -> None:
        """Let go of everything."""
        self._chunk = self._next = self._offered = None
        self._start = self._end = self._next_end = self._needed = 0

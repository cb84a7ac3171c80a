"""asyncio's streams, with a reader that receives into pooled buffers.

`open_connection`, `start_server` and their Unix versions have the same arguments as asyncio's, plus `buffers=` and
`results=`. The reader returns memoryviews where asyncio's returns `bytes`, and otherwise behaves almost the same; with
`results=bytes` it returns `bytes`. `_receive_buffer` describes what this saves. The price: a view must be dropped
before its memory can be reused, and it does not have the methods of `bytes`.

    _receive_buffer    bytes that were received and not read yet; does no I/O
    _receive_now       non-blocking receives that bypass the loop
    _reader            asyncio's methods, on top of both
    _writer            asyncio's writer, with a start_tls that loses nothing
    _protocol          connects a transport to reader and writer
    _open              the functions
"""

from asyncio import IncompleteReadError, LimitOverrunError

from . import _open
from ._open import open_connection, start_server
from ._reader import StreamReader
from ._writer import StreamWriter

__all__ = [
    "IncompleteReadError",
    "LimitOverrunError",
    "StreamReader",
    "StreamWriter",
    "open_connection",
    "start_server",
]

if hasattr(_open, "start_unix_server"):
    from ._open import open_unix_connection, start_unix_server

    __all__ += ["open_unix_connection", "start_unix_server"]

"""asyncio's streams, with a reader that receives into pooled buffers.

`open_connection`, `start_server` and their Unix twins are asyncio's, with the same arguments plus `buffers=` and
`results=`. The reader gives memoryviews where asyncio's gives `bytes`, and is told apart by little else; with
`results=bytes` it gives `bytes`. What it saves is told in `_receive_buffer`; what it costs is that a view must be let
go of before its memory is used again, and that it has no methods of `bytes`.

    _receive_buffer    what was received and not read yet; no input or output
    _receive_now       receiving without waiting, past the loop
    _reader            asyncio's methods, on top of both
    _writer            asyncio's own, with a start_tls that loses nothing
    _protocol          between a transport and these two
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

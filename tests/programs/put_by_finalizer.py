"""Do finalizers in a cycle see another user's bytes, with a pool that puts in a finalizer? The argument: a generation.

It needs a new process: free-threaded builds finalize by address, which later no longer corresponds to age.
"""

import gc
import sys

from control_buffers import PutByFinalizer
from garbage import seen_by_finalizers

gc.disable()
print(any(b"B" in seen for seen in seen_by_finalizers(PutByFinalizer(), int(sys.argv[1]))))

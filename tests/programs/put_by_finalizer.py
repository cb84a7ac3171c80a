"""Whether finalizers in a cycle see another's bytes in a pool that puts in a finalizer. The argument: a generation.

In a new interpreter: free-threaded builds finalize by address, which in an old one says nothing about age.
"""

import gc
import sys

from control_buffers import PutByFinalizer
from garbage import seen_by_finalizers

gc.disable()
print(any(b"B" in seen for seen in seen_by_finalizers(PutByFinalizer(), int(sys.argv[1]))))

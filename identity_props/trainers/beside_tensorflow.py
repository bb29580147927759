"""What has to be done before TensorFlow is imported, as Keras does wherever it is there.

Triton, which torch imports where its first optimizer is made, ends the process if TensorFlow came before it, as both
bring an LLVM: tensorflow#124205.
"""

import os
from contextlib import suppress

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # else it tells how it was built

with suppress(ImportError):
    import triton

__all__ = ["triton"]

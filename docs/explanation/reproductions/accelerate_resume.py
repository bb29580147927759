"""Accelerate: after a resume within an epoch, the rest of it is read in another order: some examples twice, some never."""

import tempfile

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch.utils.data import DataLoader

set_seed(0)
accelerator, folder, read = Accelerator(cpu=True), tempfile.mkdtemp(), []
loader = accelerator.prepare(DataLoader(range(16), 2, shuffle=True))
for batch in loader:
    read += batch.tolist()
    if len(read) == 8:
        accelerator.save_state(folder)
accelerator.load_state(folder)
resumed = read[:8] + [one for batch in accelerator.skip_first_batches(loader, 4) for one in batch.tolist()]
print(sorted(read), sorted(resumed), sep="\n")
assert sorted(read) == list(range(16)) != sorted(resumed)

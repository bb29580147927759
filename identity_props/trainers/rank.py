"""One rank of a launcher: ``python -m torch.distributed.run ... -m identity_props.trainers.rank FOLDER``."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

from torch import distributed

from identity_props.trainers.protocol import attempted


def main(folder: Path) -> None:
    """Train what the folder's job asks, one after the other, and leave there what came of it."""
    trainer, asked, path = pickle.loads((folder / "job").read_bytes())
    sys.path[:] = path
    fit = trainer.fit()
    left = [attempted(fit, one) for one in asked]
    (folder / f"left-{os.environ['RANK']}").write_bytes(pickle.dumps(left))
    if distributed.is_initialized():
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

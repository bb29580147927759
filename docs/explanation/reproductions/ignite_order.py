"""Ignite: on two ranks each epoch of ``auto_dataloader(shuffle=True)`` has the same order, on one rank a new one."""

import ignite.distributed as idist
from ignite.engine import Engine


def training(rank):
    read = []
    loader = idist.auto_dataloader(range(32), batch_size=4, shuffle=True)
    Engine(lambda engine, batch: read.extend(batch.tolist())).run(loader, max_epochs=2)
    first, second = read[: len(read) // 2], read[len(read) // 2 :]
    print(rank, first, second)
    assert (first == second) == (idist.get_world_size() > 1)


if __name__ == "__main__":
    training(0)
    with idist.Parallel("gloo", nproc_per_node=2) as parallel:
        parallel.run(training)

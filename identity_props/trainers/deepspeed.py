"""DeepSpeed's engine, within the loop that its own pages show, on the CPU.

- https://www.deepspeed.ai/getting-started/: ``initialize``, the engine's ``backward`` and ``step``, checkpoints
- https://www.deepspeed.ai/docs/config-json/: batch size, accumulation, clipping, optimizer
- https://deepspeed.readthedocs.io/en/latest/schedulers.html: a scheduler of torch's, which the engine steps

Its first start compiles an operator, which takes a C++ compiler and a minute or two. It computes in float32. Not offered,
as those pages do not show them: evaluation, a reported loss, averages, tokens; nor mixed precision, which casts the
weights; nor ranks, which are its launcher's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from typing import Any
from unittest.mock import patch

os.environ.setdefault("DS_ACCELERATOR", "cpu")  # read as it is imported

import deepspeed
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from identity_props.trainers.ddp import grouped, loader
from identity_props.trainers.protocol import Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

ALONE = {"LOCAL_RANK": "0"}  # which its launcher sets
DESIGNS = {
    "unequal": ("means", "https://www.deepspeed.ai/docs/config-json/#batch-size-related-parameters"),
}


def _settings(asked: Asked) -> dict[str, Any]:
    """Those of its config-json."""
    arguments = {"lr": asked.lr, "momentum": asked.momentum, "weight_decay": asked.decay}
    return {
        "train_micro_batch_size_per_gpu": asked.batch_size,
        "gradient_accumulation_steps": asked.accumulate,
        "gradient_clipping": asked.clip or 0.0,
        "optimizer": {"type": "SGD", "params": arguments},
        "steps_per_print": None,
    }


def _engine(asked: Asked, batches: int) -> Any:
    total = asked.epochs * math.ceil(batches / asked.accumulate)

    def schedule(optimizer: Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, lambda step: 1 - step / total if asked.schedule == "linear" else 1.0)

    network = asked.network()
    parameters = [p for p in network.parameters() if p.requires_grad]
    engine, *_ = deepspeed.initialize(
        model=network, model_parameters=parameters, config=_settings(asked), lr_scheduler=schedule
    )
    return engine


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    refused = {"tokens": asked.tokens, "held": asked.held, "average": asked.average}
    for option in (name for name, value in refused.items() if value is not None):
        raise NotOffered(option)
    if asked.precision != "full":
        raise NotOffered("precision")
    if asked.ranks > 1:
        raise NotOffered("ranks")
    with quiet("DeepSpeed"), redirect_stdout(StringIO()), patch.dict(os.environ, ALONE):
        grouped(1)
        batches, sampler = loader(asked)
        engine = _engine(asked, len(batches))
        _run(asked, engine, batches, sampler)
    return Trained(weights_of(engine.module), engine.global_steps)


def _run(asked: Asked, engine: Any, batches: Any, sampler: Any) -> None:
    """From the start, or from its checkpoint, to the end, or to where it is to stop."""
    done = 0
    if asked.resume:
        _, saved = engine.load_checkpoint(str(asked.folder))
        done = saved["done"]
    for number, x in enumerate(_batches(asked, batches, sampler), start=1):
        if number <= done:
            continue
        engine.backward(mse_loss(engine(x), x))
        engine.step()
        if number == asked.stop:
            engine.save_checkpoint(str(asked.folder), client_state={"done": number})
            return


def _batches(asked: Asked, batches: Any, sampler: Any) -> Iterator[Tensor]:
    for epoch in range(asked.epochs):
        sampler.set_epoch(epoch)
        for (x,) in batches:
            yield x

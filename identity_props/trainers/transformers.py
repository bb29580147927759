"""Hugging Face's Trainer, as its own pages show it.

- https://huggingface.co/docs/transformers/main_classes/trainer: a model of one's own, its arguments, resuming
- https://huggingface.co/docs/transformers/main/trainer_callbacks: a callback that saves and stops
- https://huggingface.co/blog/gradient_accumulation: a model that takes ``num_items_in_batch``

Not offered: float16 on the CPU, averages of the weights, a stop within a window: it saves at optimizer steps alone.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.loss.loss_utils import fixed_cross_entropy

from identity_props.trainers.protocol import IGNORED, Asked, NotOffered, Trained, weights_of
from identity_props.trainers.quiet import quiet

DESIGNS = {
    "unequal": (
        "means",
        "https://huggingface.co/docs/transformers/main_classes/trainer, compute_loss: loss_is_scaled_for_ga",
    ),
    "ranks-uneven": (
        "wrapped",
        "https://huggingface.co/docs/transformers/main_classes/trainer, accelerator_config: even_batches",
    ),
}
Example = dict[str, Tensor]


class Regression(nn.Module):
    """Loss and output of the network."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        outputs = self.network(inputs)
        return {"loss": mse_loss(outputs, labels), "outputs": outputs}


class LanguageModel(Regression):
    """As a causal language model that takes the number of tokens to divide by, labels at their own places."""

    def forward(self, inputs: Tensor, labels: Tensor, **kwargs: Any) -> dict[str, Tensor]:
        logits = self.network(inputs)
        loss = fixed_cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, **kwargs)
        return {"loss": loss, "logits": logits}


def padded(group: list[Example]) -> Example:
    """Sequences [batch, longest]; the padding's label is IGNORED."""
    inputs, labels = ([one[name] for one in group] for name in ("inputs", "labels"))
    return {
        "inputs": pad_sequence(inputs, batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
    }


class Stop(TrainerCallback):
    """Saves after so many optimizer steps, and stops."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.steps:
            control.should_save = control.should_training_stop = True


def stopping(asked: Asked) -> list[TrainerCallback]:
    """What stops it, where it is to stop."""
    return [] if asked.stop is None else [Stop(steps_at(asked, asked.stop))]


def steps_at(asked: Asked, stop: int) -> int:
    """Optimizer steps after so many micro-batches of a rank; raises NotOffered within a window."""
    count = len(asked.examples if asked.tokens is None else asked.tokens.ids)
    share = count / (asked.batch_size * asked.ranks)
    batches = math.floor(share) if asked.drop_last else math.ceil(share)
    epochs, left = divmod(stop, batches)
    if left % asked.accumulate:
        raise NotOffered("stop")
    return epochs * math.ceil(batches / asked.accumulate) + left // asked.accumulate


def arguments(asked: Asked) -> dict[str, Any]:
    """Those of TrainingArguments."""
    if asked.precision == "float16":
        raise NotOffered("precision")
    return {
        "output_dir": str(asked.folder),
        "per_device_train_batch_size": asked.batch_size,
        "per_device_eval_batch_size": asked.batch_size,
        "gradient_accumulation_steps": asked.accumulate,
        "num_train_epochs": asked.epochs,
        "learning_rate": asked.lr,
        "lr_scheduler_type": asked.schedule,
        "optim": "sgd",
        "optim_args": f"momentum={asked.momentum}",
        "weight_decay": asked.decay,
        "max_grad_norm": asked.clip or 0.0,
        "bf16": asked.precision == "bfloat16",
        "train_sampling_strategy": "random" if asked.shuffle else "sequential",
        "seed": asked.seed,
        "dataloader_drop_last": asked.drop_last,
        "eval_strategy": "no" if asked.held is None else "epoch",
        "logging_strategy": "epoch",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
    }


def _trainer(asked: Asked) -> Trainer:
    language = asked.tokens is not None
    model = (LanguageModel if language else Regression)(asked.network())
    runs = Trainer(
        model,
        TrainingArguments(**arguments(asked)),
        data_collator=padded if language else None,
        train_dataset=_sequences(asked) if language else _pairs(asked.examples),
        eval_dataset=None if asked.held is None else _pairs(asked.held),
        callbacks=stopping(asked),
    )
    runs.remove_callback(PrinterCallback)
    if runs.args.world_size != asked.ranks:  # it has those of its launcher
        raise NotOffered("ranks")
    return runs


def _pairs(examples: Tensor) -> list[Example]:
    return [{"inputs": one, "labels": one} for one in examples]


def _sequences(asked: Asked) -> list[Example]:
    assert asked.tokens is not None
    both = zip(asked.tokens.ids, asked.tokens.labels, strict=True)
    return [{"inputs": ids, "labels": labels} for ids, labels in both]


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.average is not None:
        raise NotOffered("average")
    with quiet("transformers", "accelerate"):
        runs = _trainer(asked)
        runs.train(resume_from_checkpoint=asked.resume)
    return Trained(
        weights_of(runs.model.network), runs.state.global_step, last(runs, "loss"), last(runs, "eval_loss")
    )


def last(runs: Trainer, name: str) -> float | None:
    """Of what it logged."""
    logged = [one[name] for one in runs.state.log_history if name in one]
    return logged[-1] if logged else None

"""TRL's SFTTrainer on tokens, as its own pages show it.

- https://huggingface.co/docs/trl/sft_trainer: a data set that is tokenized already, with labels; packing
- https://huggingface.co/docs/transformers/main/custom_models: a causal language model of one's own

Its model shifts labels by itself, so that a sequence is its tokens and an end, and each label stands one place later.
The first label is its own token, as where labels are the input. The loop beneath is that of ``transformers``. Not
offered: examples, as it trains language models alone; and what transformers does not offer either.
"""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor, nn
from torch.nn.functional import one_hot
from transformers import (
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    PrinterCallback,
)
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput
from trl import SFTConfig, SFTTrainer

from identity_props.trainers.protocol import Asked, NotOffered, Tokens, Trained
from identity_props.trainers.quiet import quiet
from identity_props.trainers.transformers import arguments, last, stopping

disable_progress_bars()


class Table(PreTrainedModel):
    """The backbone: a token's state is its own direction."""

    config_class = PreTrainedConfig

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.post_init()

    def forward(self, input_ids: Tensor, **_: Any) -> BaseModelOutput:
        states = one_hot(input_ids, self.config.vocab_size)
        return BaseModelOutput(last_hidden_state=states.to(self.config.dtype))


class TableForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal language model whose head [V, V] is the table of logits, transposed."""

    config_class = PreTrainedConfig
    base_model_prefix = "model"

    def __init__(self, config: PreTrainedConfig) -> None:
        super().__init__(config)
        self.model = Table(config)
        self.lm_head = nn.Linear(config.vocab_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **kwargs: Any) -> CausalLMOutput:
        logits = self.lm_head(self.model(input_ids).last_hidden_state)
        loss = None if labels is None else self.loss_function(logits, labels, len(logits[0, 0]), **kwargs)
        return CausalLMOutput(loss=loss, logits=logits)


def _model(table: Tensor) -> TableForCausalLM:
    model = TableForCausalLM(
        PreTrainedConfig(vocab_size=len(table), tie_word_embeddings=False, dtype=table.dtype)
    )
    model.lm_head.weight = nn.Parameter(table.T.clone())
    return model


def _tokenizer(size: int) -> PreTrainedTokenizerFast:
    words = {f"t{k}": k for k in range(size)}
    end = f"t{size - 1}"
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token=end)), eos_token=end)


def _end(tokens: Tokens, size: int) -> int:
    """A token that no sequence has."""
    return min({*range(size)} - {*torch.cat(tokens.ids).tolist()})


def _sequences(tokens: Tokens, end: int) -> Dataset:
    """Each with an end, its labels a place later, the first its own."""
    rows = []
    for ids, labels in zip(tokens.ids, tokens.labels, strict=True):
        rows.append({"input_ids": [*ids.tolist(), end], "labels": [ids[0].item(), *labels.tolist()]})
    return Dataset.from_list(rows)


def _trainer(asked: Asked, tokens: Tokens) -> SFTTrainer:
    table = asked.start[0]
    packing = {} if asked.packing is None else {"packing": True, "max_length": asked.packing}
    given = {**arguments(asked), **packing, "gradient_checkpointing": False}
    runs = SFTTrainer(
        _model(table),
        SFTConfig(**given),
        train_dataset=_sequences(tokens, _end(tokens, len(table))),
        processing_class=_tokenizer(len(table)),
        callbacks=stopping(asked),
    )
    runs.remove_callback(PrinterCallback)
    if runs.args.world_size != asked.ranks:
        raise NotOffered("ranks")
    return runs


def fit(asked: Asked) -> Trained:
    """Train as asked."""
    if asked.tokens is None:
        raise NotOffered("examples")
    for option in ("average", "held"):
        if getattr(asked, option) is not None:
            raise NotOffered(option)
    with quiet("transformers", "accelerate", "trl", "datasets"):
        runs = _trainer(asked, asked.tokens)
        runs.train(resume_from_checkpoint=asked.resume)
    table = runs.model.lm_head.weight.detach().T
    return Trained(table.clone(), runs.state.global_step, last(runs, "loss"))

"""transformers: the loss that is logged is a mean of batch means, the one that is evaluated a mean over examples."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Linear):
    def forward(self, labels):
        return {"loss": labels.mean() + 0 * self.weight.sum()}


data = [{"labels": value} for value in (0.0, 0.0, 0.0, 4.0)]  # in batches of 3 and 1
sizes = {"per_device_train_batch_size": 3, "per_device_eval_batch_size": 3, "num_train_epochs": 1}
given = {"train_sampling_strategy": "sequential", "save_strategy": "no", "report_to": "none"}
asked = TrainingArguments(tempfile.mkdtemp(), use_cpu=True, **sizes, **given)
trainer = Trainer(Model(1, 1), asked, train_dataset=data, eval_dataset=data)
losses = [trainer.train().training_loss, trainer.evaluate()["eval_loss"]]
assert losses == [2.0, 1.0], losses

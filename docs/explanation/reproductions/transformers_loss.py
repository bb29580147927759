"""transformers: the loss that is logged is a mean of batch means, the one that is evaluated a mean over examples."""

import tempfile

import torch
from transformers import Trainer, TrainingArguments


class Model(torch.nn.Linear):
    def forward(self, labels):
        return {"loss": labels.mean() + 0 * self.weight.sum()}


data = [{"labels": value} for value in (0.0, 0.0, 0.0, 4.0)]  # in batches of 3 and 1
size = {
    "per_device_train_batch_size": 3,
    "per_device_eval_batch_size": 3,
    "train_sampling_strategy": "sequential",
}
quiet = {"report_to": "none", "disable_tqdm": True, "save_strategy": "no", "use_cpu": True}
asked = TrainingArguments(tempfile.mkdtemp(), num_train_epochs=1, **size, **quiet)
trainer = Trainer(Model(1, 1), asked, train_dataset=data, eval_dataset=data)
print(losses := [trainer.train().training_loss, trainer.evaluate()["eval_loss"]])
assert losses == [2.0, 1.0]

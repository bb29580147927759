"""skorch: a schedule that steps every batch goes on, after a resume, from the number of epochs, not of batches."""

import torch
from skorch import NeuralNet
from skorch.callbacks import LRScheduler
from torch.optim.lr_scheduler import LambdaLR

x = torch.ones(8, 2)
schedule = LRScheduler(LambdaLR, lr_lambda=lambda batch: 1 - batch / 8, step_every="batch", event_name="rate")
given = {"lr": 1.0, "batch_size": 2, "max_epochs": 1, "train_split": None, "verbose": 0}
net = NeuralNet(torch.nn.Linear(2, 2), torch.nn.MSELoss, callbacks=[schedule], **given)
net.fit(x, x).partial_fit(x, x)  # two epochs of four batches
rates = net.history[:, "batches", :, "rate"]
print(rates)  # the second epoch should begin at 0.5
assert rates[0] == [1, 0.875, 0.75, 0.625], rates
assert rates[1] == [0.875, 0.75, 0.625, 0.5], rates

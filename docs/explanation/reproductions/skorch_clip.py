"""skorch: with the accumulation of its FAQ, GradientNormClipping does nothing, as its event is never sent."""

import torch
from skorch import NeuralNet
from skorch.callbacks import GradientNormClipping


class GradAccNet(NeuralNet):  # the class of the FAQ, its train_step
    def train_step(self, *args, **kwargs):
        step = self.train_step_single(*args, **kwargs)
        self.optimizer_.step()
        self.optimizer_.zero_grad()
        return step


moved, given = [], {"max_epochs": 1, "lr": 1.0, "train_split": None, "verbose": 0}
for net in (NeuralNet, GradAccNet):
    torch.nn.init.zeros_((layer := torch.nn.Linear(2, 2, bias=False)).weight)
    fitted = net(layer, torch.nn.MSELoss, callbacks=[GradientNormClipping(1e-3)], **given)
    moved.append(fitted.fit(torch.ones(8, 2), torch.ones(8, 2)).module_.weight.norm().item())
assert moved[0] < 1.1e-3 < 1 < moved[1], moved  # 0.001 and 2.0

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


for net in (NeuralNet, GradAccNet):
    torch.nn.init.zeros_((layer := torch.nn.Linear(2, 2, bias=False)).weight)
    clip = GradientNormClipping(1e-3)
    net(
        layer, criterion=torch.nn.MSELoss, lr=1.0, max_epochs=1, train_split=None, callbacks=[clip], verbose=0
    ).fit(torch.ones(8, 2), torch.ones(8, 2))
    print(net.__name__, "moved by", layer.weight.norm().item())
assert layer.weight.norm() > 1  # of the last, that of the FAQ

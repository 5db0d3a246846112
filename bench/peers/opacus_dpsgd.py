"""DP-SGD of Opacus on the CPU, asked by bench/compute/engines.ts like pytorch.py, whose models it takes.

    python bench/peers/opacus_dpsgd.py hooks|ghost [threads]

`private MODEL BATCH BUDGET_MS`: a step of DP-SGD with Adam, clipping norm 1, noise multiplier 1, on Poisson batches of BATCH
examples expected out of 2048. `hooks` keeps every example's gradient (Opacus's default), `ghost` computes their norms only
and goes back a second time. Batches are cut here as in pytorch.py instead of by a DataLoader, which is slower. Noise
comes from PyTorch's ordinary generator (`secure_mode=False`). Needs `pip install torch numpy opacus`.
"""

import sys
import warnings

import torch
from opacus import GradSampleModule
from opacus.grad_sample import GradSampleModuleFastGradientClipping
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer_fast_gradient_clipping import DPOptimizerFastGradientClipping
from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping
from pytorch import EXAMPLES, MODELS, serve
from torch import nn

warnings.filterwarnings("ignore")
CLIPPING_NORM = 1.0
NOISE_MULTIPLIER = 1.0


def private_training(mode):
    def prepare(model_name, batch_size):
        examples = torch.randn(EXAMPLES, 1, 28, 28)
        labels = torch.arange(EXAMPLES) % 10
        rate = batch_size / EXAMPLES
        noise = {"noise_multiplier": NOISE_MULTIPLIER, "max_grad_norm": CLIPPING_NORM, "expected_batch_size": batch_size}
        model = MODELS[model_name]()
        adam = torch.optim.Adam(model.parameters(), lr=0.001)
        if mode == "ghost":
            module = GradSampleModuleFastGradientClipping(model, max_grad_norm=CLIPPING_NORM, use_ghost_clipping=True)
            optimizer = DPOptimizerFastGradientClipping(adam, **noise)
            loss_function = DPLossFastGradientClipping(module, optimizer, nn.CrossEntropyLoss(reduction="mean"))
        else:
            module = GradSampleModule(model)
            optimizer = DPOptimizer(adam, **noise)
            loss_function = nn.CrossEntropyLoss()

        def train(steps):
            for _ in range(steps):
                batch = (torch.rand(EXAMPLES) < rate).nonzero().squeeze(1)
                optimizer.zero_grad()
                loss_function(module(examples[batch]), labels[batch]).backward()
                optimizer.step()

        return train

    return prepare


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    serve({"private": private_training(sys.argv[1])})

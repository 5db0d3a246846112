"""One measurement of PyTorch for bench/compute/engines.ts: prints milliseconds a step, elapsed and of the processor.

    python bench/peers/pytorch.py MLP|CNN batch_size [threads]

Needs PyTorch alone (a virtual environment with `pip install torch numpy`). The work is that of the engines: Adam on
cross-entropy, shuffled batches of 2048 examples of 28x28, float32, on the CPU.
"""

import sys
import time

import torch
from torch import nn

BUDGET_SECONDS = 0.4
EXAMPLES = 2048

model_name, batch_size = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 1)
torch.manual_seed(1)

MODELS = {
    "MLP": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    "CNN": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
    ),
}

model = MODELS[model_name]()
optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
loss_function = nn.CrossEntropyLoss()
examples = torch.randn(EXAMPLES, 1, 28, 28)
labels = torch.arange(EXAMPLES) % 10


def train(steps: int) -> tuple[float, float]:
    """Seconds that this many steps take: elapsed, and of the processor."""
    start, processor_start = time.perf_counter(), time.process_time()
    done = 0
    while done < steps:
        order = torch.randperm(EXAMPLES)
        for first in range(0, EXAMPLES, batch_size):
            batch = order[first : first + batch_size]
            optimizer.zero_grad(set_to_none=True)
            loss_function(model(examples[batch]), labels[batch]).backward()
            optimizer.step()
            done += 1
            if done == steps:
                break
    return time.perf_counter() - start, time.process_time() - processor_start


train(8)
steps = max(1, int(BUDGET_SECONDS / (train(8)[0] / 8)))
print(*(1000 * seconds / steps for seconds in train(steps)))

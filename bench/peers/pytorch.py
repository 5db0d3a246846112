"""PyTorch on the CPU, asked by bench/compute/engines.ts for one measurement after the other.

    python bench/peers/pytorch.py [threads]

Reads lines `KIND MODEL BATCH BUDGET_MS` and answers each with milliseconds of one step or prediction, elapsed and of the
processor, or with `none`. The work is that of the engines: Adam on cross-entropy, shuffled batches of 2048 examples of
28x28; predictions in batches of 256 without gradients; float32. Needs PyTorch alone (`pip install torch numpy`).
"""

import sys
import time

import torch
from torch import nn

EXAMPLES = 2048
# Of 64, 256, 1024 and all rows at a time, the fastest for the CNN; for the MLP they are a tie.
PREDICTION_BATCH = 256

MODELS = {
    "MLP": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    "CNN": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 10)
    ),
}


def training(model_name, batch_size):
    """A function that makes this many steps."""
    model = MODELS[model_name]()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    loss_function = nn.CrossEntropyLoss()
    examples = torch.randn(EXAMPLES, 1, 28, 28)
    labels = torch.arange(EXAMPLES) % 10

    def train(steps):
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

    return train


def prediction(model_name, rows):
    """A function that predicts all rows this many times."""
    model = MODELS[model_name]().eval()
    examples = torch.randn(rows, 1, 28, 28)

    def predict(repetitions):
        with torch.inference_mode():
            for _ in range(repetitions):
                torch.cat([model(batch) for batch in examples.split(PREDICTION_BATCH)])

    return predict


def timed(work, repetitions):
    """Milliseconds of one repetition: elapsed, and of the processor."""
    start, processor_start = time.perf_counter(), time.process_time()
    work(repetitions)
    return 1000 * (time.perf_counter() - start) / repetitions, 1000 * (time.process_time() - processor_start) / repetitions


def serve(kinds):
    """`kinds`: for each kind of work a function from model and batch size to a function of repetitions. Answers until the input ends."""
    torch.manual_seed(1)
    prepared = {}
    for line in sys.stdin:
        kind, model_name, size, budget = line.split()
        if kind not in kinds or model_name not in MODELS:
            print("none", flush=True)
            continue
        key = (kind, model_name, size)
        if key not in prepared:
            work = kinds[kind](model_name, int(size))
            repetitions = 2
            for _ in range(3):
                repetitions = max(1, round(float(budget) / timed(work, repetitions)[0]))
            prepared[key] = (work, repetitions)
        print(*timed(*prepared[key]), flush=True)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    serve({"train": training, "predict": prediction})

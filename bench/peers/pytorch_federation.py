"""The trainings of a simulated federation as a plain loop over its clients in PyTorch, on the CPU, for bench/simulations/scale.ts.

    python bench/peers/pytorch_federation.py WORKLOAD.json [threads]

WORKLOAD.json names the clients' models, numbers of epochs and rounds, and files with examples. One JSON line comes out: seconds, processor seconds,
the largest resident set in MiB, training steps, and the teacher's accuracy. What it does is what the clients of simulations/scenarios/thousand-clients.yaml
do: pretraining; in each round distilling the teacher's labels (from the second round on), training on the own records, predicting the transfer set; the mean
of the predictions, on which the teacher learns; at the end one more distillation. Adam, shuffled batches, float32. There are no messages, no noise, and no
cryptography at all. Needs `pip install torch numpy`.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

MODELS = {
    "softmax-regression": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 10)),
    "mlp-small": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10)),
    "mlp-medium": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
    "cnn-small": lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(784, 10)
    ),
}


def images(path):
    return torch.from_numpy(np.fromfile(path, dtype=np.uint8).reshape(-1, 1, 28, 28)).float() / 255


def labels(path):
    return torch.from_numpy(np.fromfile(path, dtype=np.uint8)).long()


class Trainer:
    def __init__(self, learning_rate, batch_size):
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.steps = 0

    def fit(self, model, examples, targets, epochs, loss_function):
        """A fresh Adam for every training, as the clients have."""
        optimizer = torch.optim.Adam(model.parameters(), lr=self.learning_rate)
        for _ in range(epochs):
            order = torch.randperm(len(examples))
            for first in range(0, len(examples), self.batch_size):
                batch = order[first : first + self.batch_size]
                optimizer.zero_grad(set_to_none=True)
                loss_function(model(examples[batch]), targets[batch]).backward()
                optimizer.step()
                self.steps += 1


def distillation(temperature):
    """Targets are softened once, before the loop over batches."""
    return lambda logits, soft: F.kl_div(F.log_softmax(logits / temperature, 1), soft, reduction="batchmean") * temperature**2


def soft_cross_entropy(logits, soft):
    return -(soft * F.log_softmax(logits, 1)).sum(1).mean()


def federation(workload):
    records, classes = images(workload["records"]), labels(workload["recordLabels"])
    transfer = images(workload["transfer"])
    test, test_classes = images(workload["test"]), labels(workload["testLabels"])
    trainer = Trainer(workload["learningRate"], workload["batchSize"])
    temperature = workload["temperature"]
    per_client = len(records) // len(workload["models"])
    clients = [
        (MODELS[name](), records[i * per_client : (i + 1) * per_client], classes[i * per_client : (i + 1) * per_client])
        for i, name in enumerate(workload["models"])
    ]
    teacher = MODELS[workload["teacher"]]()
    hard = nn.CrossEntropyLoss()
    for model, examples, own in clients:
        trainer.fit(model, examples, own, workload["pretrainEpochs"], hard)
    accuracy, soft = None, None
    for _ in range(workload["rounds"]):
        total = torch.zeros(len(transfer), 10)
        for model, examples, own in clients:
            if soft is not None:
                trainer.fit(model, transfer, soft, workload["digestEpochs"], distillation(temperature))
            trainer.fit(model, examples, own, workload["revisitEpochs"], hard)
            with torch.inference_mode():
                total += F.softmax(model(transfer), 1)
        trainer.fit(teacher, transfer, total / len(clients), workload["teacherEpochs"], soft_cross_entropy)
        with torch.inference_mode():
            soft = F.softmax(teacher(transfer) / temperature, 1)
            accuracy = (teacher(test).argmax(1) == test_classes).float().mean().item()
        soft = soft.clone()
    for model, _, _ in clients:
        trainer.fit(model, transfer, soft, workload["digestEpochs"], distillation(temperature))
    return accuracy, trainer.steps


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]) if len(sys.argv) > 2 else 1)
    torch.manual_seed(1)
    with open(sys.argv[1], encoding="utf-8") as file:
        workload = json.load(file)
    start, processor_start = time.perf_counter(), time.process_time()
    accuracy, steps = federation(workload)
    print(
        json.dumps(
            {
                "seconds": time.perf_counter() - start,
                "processorSeconds": time.process_time() - processor_start,
                "peakMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "steps": steps,
                "accuracy": accuracy,
            }
        )
    )

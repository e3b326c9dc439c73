"""Train the demo network on scikit-learn's digits and write the files that `infold demo` ships.

    python engine/demo/train_lenet.py [--epochs 40] [--out engine/demo]

Needs torch, onnxscript and scikit-learn. Writes OUT/lenet.onnx (BatchNormalization nodes left in, dynamic batch axis)
and OUT/digits.npz (the held-out images and labels, never seen in training). One thread and fixed seeds: the same
versions of the packages give the same network again.
"""
from __future__ import annotations

import argparse
import os
import tempfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


def lenet() -> nn.Sequential:
    """LeNet-5 with batch normalisation (Zhang et al., Dive into Deep Learning, 8.5.4): [N,1,28,28] -> logits [N,10]."""
    return nn.Sequential(OrderedDict(
        conv1=nn.Conv2d(1, 6, 5, padding=2), bn1=nn.BatchNorm2d(6), sigmoid1=nn.Sigmoid(), pool1=nn.AvgPool2d(2),
        conv2=nn.Conv2d(6, 16, 5), bn2=nn.BatchNorm2d(16), sigmoid2=nn.Sigmoid(), pool2=nn.AvgPool2d(2),
        flatten=nn.Flatten(),
        dense3=nn.Linear(16 * 5 * 5, 120), bn3=nn.BatchNorm1d(120), sigmoid3=nn.Sigmoid(),
        dense4=nn.Linear(120, 84), bn4=nn.BatchNorm1d(84), sigmoid4=nn.Sigmoid(),
        dense5=nn.Linear(84, 10)))


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Train images, test images (uint8 [N,1,28,28]), train labels, test labels (uint8 [N]); one fifth is held out.

    The 8x8 originals (0..16) are enlarged to 24x24 bilinearly and framed by 2 pixels of background, like MNIST's.
    """
    images, labels = load_digits(return_X_y=True)
    small = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    large = nn.functional.pad(nn.functional.interpolate(small, size=24, mode="bilinear"), (2, 2, 2, 2))
    pixels = (large * 255).round().to(torch.uint8).numpy()
    return train_test_split(pixels, labels.astype(np.uint8), test_size=0.2, stratify=labels, random_state=0)


def train(model: nn.Module, images: np.ndarray, labels: np.ndarray, epochs: int, batch: int = 64) -> None:
    """Adam with a one-cycle learning rate; every batch shifted by up to two pixels. Leaves the model in eval mode."""
    x = torch.tensor(images, dtype=torch.float32) / 255
    y = torch.tensor(labels, dtype=torch.long)
    steps = -(-len(x) // batch)
    optimizer = torch.optim.Adam(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.02, total_steps=epochs * steps)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for chosen in torch.randperm(len(x)).split(batch):
            shift = torch.randint(-2, 3, (2,)).tolist()
            loss = nn.functional.cross_entropy(model(x[chosen].roll(shift, (2, 3))), y[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{epochs}: loss {total / steps:.4f}", flush=True)
    model.eval()


def accuracy(model: nn.Module, images: np.ndarray, labels: np.ndarray) -> float:
    """Share of images classified right."""
    with torch.no_grad():
        logits = model(torch.tensor(images, dtype=torch.float32) / 255)
    return float((logits.argmax(1).numpy() == labels).mean())


def export(model: nn.Module, path: Path) -> None:
    """Write the model as ONNX without any optimisation, so that folding its BatchNorms is left to infold."""
    program = torch.onnx.export(model, (torch.zeros(2, 1, 28, 28),), dynamo=True, optimize=False, verbose=False,
                                input_names=["image"], output_names=["logits"],
                                dynamic_shapes=({0: torch.export.Dim("batch")},))
    for node in program.model.graph:
        node.metadata_props.clear()                 # the exporter's notes are the stack traces of the exporting machine
        if len(node.inputs) > 1 and node.inputs[1].name.endswith(".weight"):
            node.name = node.inputs[1].name.removesuffix(".weight")         # conv1, bn1, ... as in the module
    program.model.metadata_props.clear()
    program.model.graph.metadata_props.clear()
    program.model.graph.name = "lenet"
    program.save(path, external_data=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_images, test_images, train_labels, test_labels = digits()
    model = lenet()
    train(model, train_images, train_labels, args.epochs)
    print(f"test accuracy: {accuracy(model, test_images, test_labels):.4f} on {len(test_labels)} held-out images")

    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out) as folder:          # all or nothing: each file is moved when whole
        export(model, Path(folder, "lenet.onnx"))
        np.savez_compressed(Path(folder, "digits.npz"), images=test_images, labels=test_labels)
        for name in ("lenet.onnx", "digits.npz"):
            os.replace(Path(folder, name), args.out / name)


if __name__ == "__main__":
    main()

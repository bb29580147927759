"""A whole training program in numpy, as one for --command may look: one linear layer without bias, plain SGD."""

import argparse
from pathlib import Path

import numpy as np

parser = argparse.ArgumentParser()
for name in ("data", "start", "out"):
    parser.add_argument(name, type=Path)
for name in ("--lr", "--clip", "--momentum"):
    parser.add_argument(name, type=float, default=0.0)
for name in ("--batch-size", "--epochs", "--accumulate"):
    parser.add_argument(name, type=int, default=1)
parser.add_argument("--schedule", choices=["constant", "linear"], default="constant")
parser.add_argument("--stop", type=int, default=0)  # after so many micro-batches; 0 for never
parser.add_argument("--resume", type=int, default=0)
parser.add_argument("--folder", type=Path)
asked = parser.parse_args()

x, weights = np.load(asked.data), np.load(asked.start)
batches = [x[at : at + asked.batch_size] for at in range(0, len(x), asked.batch_size)]
windows = [batches[at : at + asked.accumulate] for at in range(0, len(batches), asked.accumulate)]
total = asked.epochs * len(windows)
velocity, gradient, read = np.zeros_like(weights), np.zeros_like(weights), 0
if asked.resume:
    saved = np.load(asked.folder / "saved.npz")
    weights, velocity, gradient, read = (saved[name] for name in ("weights", "velocity", "gradient", "read"))

plan = [(step, batch, step % len(windows)) for step in range(total) for batch in windows[step % len(windows)]]
for step, batch, place in plan[read:]:
    whole = sum(map(len, windows[place]))
    gradient = gradient + 2 / (whole * x.shape[1]) * (batch @ weights.T - batch).T @ batch
    read += 1
    if batch is windows[place][-1]:
        norm = np.linalg.norm(gradient)
        if asked.clip and norm > asked.clip:
            gradient *= asked.clip / norm
        velocity = asked.momentum * velocity + gradient
        weights = weights - asked.lr * (1 - step / total if asked.schedule == "linear" else 1) * velocity
        gradient = np.zeros_like(weights)
    if read == asked.stop:
        kept = {"weights": weights, "velocity": velocity, "gradient": gradient, "read": read}
        np.savez(asked.folder / "saved.npz", **kept)
        break
np.save(asked.out, weights)

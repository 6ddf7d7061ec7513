"""Trains a member's part of a federation with scikit-learn, as docs/bring-your-own-trainer.md describes.

    cohort join TOKEN --data my-share --exec "python train.py"

The model is "linear" and the method one of the fedavg family. Classes are learned by LogisticRegression, which goes on from the
weights that were sent and makes as many L-BFGS iterations as the task has epochs; a quantity by SGDRegressor. Data are a
member's folder as "cohort partition --export" writes it; to train on something else, replace read_data.
"""

import csv
import json
import os
import pathlib
import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, SGDRegressor
from sklearn.metrics import log_loss, mean_squared_error

TYPES = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_safetensors(path):
    """Returns the tensors of a file as a dict of arrays. (The package safetensors does the same.)"""
    raw = pathlib.Path(path).read_bytes()
    size = int.from_bytes(raw[:8], "little")
    tensors = {}
    for name, t in json.loads(raw[8 : 8 + size]).items():
        if name != "__metadata__":
            begin, end = t["data_offsets"]
            flat = np.frombuffer(raw[8 + size + begin : 8 + size + end], TYPES[t["dtype"]])
            tensors[name] = flat.reshape(t["shape"]).copy()
    return tensors


def write_safetensors(path, tensors):
    header, parts, at = {}, [], 0
    for name, t in tensors.items():
        part = np.ascontiguousarray(t, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + len(part)]}
        parts.append(part)
        at += len(part)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    pathlib.Path(path).write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def read_idx(path):
    raw = path.read_bytes()
    kind, dims = raw[2], raw[3]
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(dims)]
    return np.frombuffer(raw[4 + 4 * dims :], IDX_TYPES[kind]).reshape(shape)


def read_data(task):
    """Returns rows of features, normalised as agreed, and their labels or targets."""
    folder = pathlib.Path(task["data"])
    shape = task["input"]["shape"]
    if (folder / "train.csv").exists():  # a table: the features, then label or target
        with open(folder / "train.csv", newline="") as f:
            cells = np.array(list(csv.reader(f))[1:], np.float64)
        x, y = cells[:, :-1], cells[:, -1]
    elif (folder / "train-images.idx").exists():
        x = read_idx(folder / "train-images.idx")
        x = x.astype(np.float64) / (255 if x.dtype == np.uint8 else 1)
        y = read_idx(folder / "train-labels.idx")
    else:
        raise SystemExit(f"{folder} is no member's share (train.csv or train-images.idx); replace read_data")
    x = x.reshape(len(x), *shape)
    if "mean" in task["input"]:
        x = (x - np.array(task["input"]["mean"])) / np.array(task["input"]["std"])
    if len(shape) == 3:  # flattened in PyTorch's order: channel, row, column
        x = x.transpose(0, 3, 1, 2)
    return x.reshape(len(x), -1), y


def classify(task, weight, bias, x, y):
    """Goes on from weight and bias with the classes that are here. Rows of others stay as they are."""
    y = y.astype(np.int64)
    here = np.unique(y)
    if len(here) == 1:  # there is nothing to tell apart
        return weight, bias, 0.0
    model = LogisticRegression(warm_start=True, max_iter=task["epochs"] or task["steps"], C=100)
    model.classes_ = here
    # Of two classes scikit-learn has one row of weights: the difference of ours.
    two = len(here) == 2
    model.coef_ = weight[here[1:]] - weight[here[:1]] if two else weight[here]
    model.intercept_ = bias[here[1:]] - bias[here[:1]] if two else bias[here]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few iterations are meant
        model.fit(x, y)
    if two:
        for t, d in ((weight, model.coef_[0]), (bias, model.intercept_[0])):
            middle = (t[here[0]] + t[here[1]]) / 2
            t[here[0]], t[here[1]] = middle - d / 2, middle + d / 2
    else:
        weight[here], bias[here] = model.coef_, model.intercept_
    return weight, bias, log_loss(y, model.predict_proba(x), labels=here)


def regress(task, weight, bias, x, y):
    # Its loss is half the squared error, so that twice the rate makes the same step.
    model = SGDRegressor(penalty=None, learning_rate="constant", eta0=2 * task["rate"], max_iter=task["epochs"] or 1, tol=None,
                         random_state=task["seed"] % 2**32)
    model.fit(x, y, coef_init=weight[0], intercept_init=bias)
    return model.coef_.reshape(1, -1), model.intercept_, mean_squared_error(y, model.predict(x))


def main():
    task = json.loads(pathlib.Path(os.environ["COHORT_TASK"]).read_text())
    if task["version"] != 1:
        raise SystemExit(f"this program knows version 1 of the contract, not {task['version']}")
    if task["model"]["architecture"] != "linear" or task["mask"] != "none":
        raise SystemExit(f"this program trains the model linear by a method of the fedavg family, not {task['model']['architecture']} by {task['method']}")
    w = {name: t.astype(np.float64) for name, t in read_safetensors(task["weights"]).items()}
    x, y = read_data(task)
    fit = classify if task["loss"] == "cross-entropy" else regress
    weight, bias, loss = fit(task, w["linear.weight"], w["linear.bias"], x, y)
    write_safetensors(task["update"], {"linear.weight": weight, "linear.bias": bias})
    pathlib.Path(task["result"]).write_text(json.dumps({"examples": len(x), "loss": float(loss)}))
    print(f"round {task['round']}, {task['member']}: {len(x)} examples, loss {loss:.4f}")


if __name__ == "__main__":
    main()

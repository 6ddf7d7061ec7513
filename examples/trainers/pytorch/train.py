"""Trains a member's part of a federation with PyTorch, as docs/bring-your-own-trainer.md describes.

    cohort join TOKEN --data my-share --exec "python train.py"

It trains the convolutional network "cnn" of any width: the layers follow from the names and shapes of the tensors that the
coordinator sends. It understands the methods of the fedavg family (with FedProx's proximal term) and of HeteroFL (levels, the
Scaler, masked outputs). Data are a member's folder as "cohort partition --export" writes it; to train on something else,
replace read_data.
"""

import json
import os
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

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
    """Returns images [n, channels, height, width], normalised as agreed, the value of a zero pixel by channel, and labels."""
    folder = pathlib.Path(task["data"])
    if not (folder / "train-images.idx").exists():
        raise SystemExit(f"{folder} is no share with images (train-images.idx, train-labels.idx); replace read_data")
    x = read_idx(folder / "train-images.idx")
    x = x.astype(np.float32) / np.float32(255 if x.dtype == np.uint8 else 1)
    x = x.reshape(len(x), *task["input"]["shape"])  # height, width, channels
    zero = np.zeros(x.shape[-1], np.float32)
    if "mean" in task["input"]:
        mean, std = (np.float32(task["input"][k]) for k in ("mean", "std"))
        x, zero = (x - mean) / std, (zero - mean) / std
    y = read_idx(folder / "train-labels.idx").astype(np.int64)
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), torch.from_numpy(zero), torch.from_numpy(y)


def normalise(x, w, name, kind):
    if kind == "none":
        return x
    weight, bias = w[name + ".weight"], w[name + ".bias"]
    if kind == "sbn":  # static batch norm: the statistics of the batch, and nothing kept
        return F.batch_norm(x, None, None, weight, bias, training=True)
    if kind == "bn":
        return F.batch_norm(x, w[name + ".running_mean"], w[name + ".running_var"], weight, bias, training=True, momentum=0.1)
    return F.group_norm(x, {"in": x.shape[1], "ln": 1, "gn": 4}[kind], weight, bias)


def forward(w, x, model):
    """The network of HeteroFL, from its tensors: conv, Scaler, norm, activation and pooling; the mean over positions; linear."""
    config = model["config"]
    act = {"relu": F.relu, "gelu": F.gelu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}[config.get("activation", "relu")]
    i = 1
    while f"conv{i}.weight" in w:
        kernel = w[f"conv{i}.weight"]
        x = F.conv2d(x, kernel, w[f"conv{i}.bias"], padding=kernel.shape[-1] // 2)
        x = x / model["scale"]
        x = act(normalise(x, w, f"norm{i}", config.get("norm", "sbn")))
        i += 1
        if f"conv{i}.weight" in w:
            x = F.max_pool2d(x, 2)
    return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])


def augment(x, zero, task, rng):
    """Crops at random after padding with black pixels, and mirrors half of the images."""
    p, (n, _, height, width) = task["crop"], x.shape
    if p:
        wide = zero.view(1, -1, 1, 1).expand(n, -1, height + 2 * p, width + 2 * p).clone()
        wide[:, :, p : p + height, p : p + width] = x
        corners = rng.integers(0, 2 * p + 1, (n, 2))
        x = torch.stack([image[:, a : a + height, b : b + width] for image, (a, b) in zip(wide, corners)])
    if task["flip"]:
        mirrored = torch.from_numpy(rng.integers(0, 2, n).astype(bool)).view(-1, 1, 1, 1)
        x = torch.where(mirrored, x.flip(3), x)
    return x


def make_optimizer(task, trained):
    o = task["optimizer"]
    if o["name"] == "sgd":
        return torch.optim.SGD(trained, task["rate"], momentum=o["momentum"], nesterov=o["nesterov"], weight_decay=o["decay"])
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[o["name"]]
    return kind(trained, task["rate"], betas=tuple(o["betas"]), eps=o["epsilon"], weight_decay=o["decay"])


def main():
    task = json.loads(pathlib.Path(os.environ["COHORT_TASK"]).read_text())
    if task["version"] != 1:
        raise SystemExit(f"this program knows version 1 of the contract, not {task['version']}")
    if task["model"]["architecture"] != "cnn" or task["loss"] != "cross-entropy":
        raise SystemExit(f"this program trains a cnn that classifies, not a {task['model']['architecture']} with {task['loss']}")
    torch.manual_seed(task["seed"])
    rng = np.random.default_rng(task["seed"])

    w = {name: torch.from_numpy(t) for name, t in read_safetensors(task["weights"]).items()}
    trained = {name: t.requires_grad_() for name, t in w.items() if "running_" not in name}
    received = {name: t.detach().clone() for name, t in trained.items()}
    x, zero, y = read_data(task)
    present = torch.unique(y)
    absent = torch.ones(w["linear.bias"].shape[0], dtype=torch.bool)
    absent[present] = False

    optimizer = make_optimizer(task, list(trained.values()))
    batch = task["batch"] or len(x)
    total, seen, steps, epochs = 0.0, 0, 0, 0
    while (not task["epochs"] or epochs < task["epochs"]) and (not task["steps"] or steps < task["steps"]):
        for rows in np.array_split(rng.permutation(len(x)), range(batch, len(x), batch)):
            if task["steps"] and steps == task["steps"]:
                break
            if len(rows) == 1 and task["skip_singles"]:
                continue
            z = forward(w, augment(x[rows], zero, task, rng), task["model"])
            if task["mask"] == "zero":  # outputs of classes that are not here count as 0
                z = z.masked_fill(absent, 0)
            elif task["mask"] == "exclude":
                z = z.masked_fill(absent, -torch.inf)
            loss = F.cross_entropy(z, y[rows])
            optimizer.zero_grad()
            loss.backward()
            if task["proximal"]:
                for name, t in trained.items():
                    t.grad += task["proximal"] * (t.detach() - received[name])
            if task["clip"]:
                torch.nn.utils.clip_grad_norm_(trained.values(), task["clip"])
            optimizer.step()
            total += loss.item() * len(rows)
            seen += len(rows)
            steps += 1
        epochs += 1

    write_safetensors(task["update"], {name: t.detach().numpy() for name, t in w.items()})
    result = {"examples": len(x), "loss": total / max(1, seen), "seen": seen, "steps": steps, "labels": present.tolist()}
    pathlib.Path(task["result"]).write_text(json.dumps(result))
    print(f"round {task['round']}, {task['member']}: {steps} steps, loss {result['loss']:.4f}")


if __name__ == "__main__":
    main()

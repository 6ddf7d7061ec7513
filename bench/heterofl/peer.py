"""HeteroFL (arXiv 2010.01264) as a plain PyTorch loop: what Cohort's federated/heterofl is checked against.

    python3 peer.py replay DIR      compute again what "heterofl -trace DIR" recorded, and compare
    python3 peer.py logits DIR      load the exported model of that folder and compare its outputs
    python3 peer.py train ...       run the method with draws of its own, a JSON line a measured round

It needs torch alone, reads MNIST and CIFAR-10 from the folder in COHORT_DATA, and shares no code with the Go side: a
trace brings numbers (initial weights, who trains, levels, order of batches, crops), never gradients or sums.
"""

import argparse
import bz2
import gzip
import json
import math
import os
import struct
import sys
import time
from pathlib import Path

import torch
from torch.nn import functional as F

LEVELS = {"a": 1, "b": 1 / 2, "c": 1 / 4, "d": 1 / 8, "e": 1 / 16}
LETTERS = {v: k for k, v in LEVELS.items()}


# ---- data --------------------------------------------------------------------------------------


def read_idx(path):
    raw = gzip.open(path).read()
    dims = [struct.unpack(">i", raw[4 + 4 * i : 8 + 4 * i])[0] for i in range(raw[3])]
    return torch.frombuffer(bytearray(raw[4 + 4 * len(dims) :]), dtype=torch.uint8).view(*dims)


def read_cifar(paths):
    raw = torch.cat([torch.frombuffer(bytearray(bz2.open(p).read()), dtype=torch.uint8) for p in paths]).view(-1, 3073)
    return raw[:, 1:].reshape(-1, 3, 32, 32).contiguous(), raw[:, 0].long()


class Images:
    """Bytes [N, C, H, W] with labels, and how they are normalised."""

    def __init__(self, x, y, mean, std):
        self.x, self.y = x, y
        self.mean, self.std = (torch.as_tensor(v, dtype=torch.float32).view(1, -1, 1, 1) for v in (mean, std))
        self.padded, self.pad = None, 0

    def rows(self, rows):
        rows = torch.as_tensor(rows, dtype=torch.long)
        return Images(self.x[rows], self.y[rows], self.mean, self.std)

    def __len__(self):
        return len(self.y)

    def batch(self, rows, windows=None, pad=0):
        """Images of the given rows, cropped at (pad+dy, pad+dx) of the zero-padded image and then mirrored."""
        if windows is None:
            x = self.x[rows]
        else:
            if self.padded is None or self.pad != pad:
                self.padded, self.pad = F.pad(self.x, (pad,) * 4), pad
            h, w = self.x.shape[2:]
            cut = []
            for r, (dy, dx, flip) in zip(rows, windows):
                one = self.padded[r, :, pad + dy : pad + dy + h, pad + dx : pad + dx + w]
                cut.append(one.flip(2) if flip else one)
            x = torch.stack(cut)
        x = (x.float() / 255 - self.mean) / self.std
        return x.to(torch.get_default_dtype()), self.y[rows]


def load(name, folder):
    folder = Path(folder) / name
    if name == "mnist":
        stats = [0.1307], [0.3081]
        parts = [(read_idx(folder / f"{p}-images-idx3-ubyte.gz")[:, None], read_idx(folder / f"{p}-labels-idx1-ubyte.gz").long())
                 for p in ("train", "t10k")]
    else:
        stats = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
        parts = [read_cifar(sorted(folder.glob(g))) for g in ("data_batch_*.bin.bz2", "test_batch.bin.bz2")]
    return [Images(x, y, *stats) for x, y in parts]


def read_safetensors(path):
    raw = bytearray(Path(path).read_bytes())
    n = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, t in json.loads(raw[8 : 8 + n]).items():
        if name == "__metadata__":
            continue
        dtype = {"F32": torch.float32, "F64": torch.float64}[t["dtype"]]
        a, b = t["data_offsets"]
        out[name] = torch.frombuffer(raw[8 + n + a : 8 + n + b], dtype=dtype).view(t["shape"])
    return out


def write_safetensors(path, tensors):
    head, at = {}, 0
    for name, t in tensors.items():
        head[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [at, at + 4 * t.numel()]}
        at += 4 * t.numel()
    head = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(head)) + head)
        for t in tensors.values():
            f.write(t.contiguous().numpy().tobytes())


# ---- networks ----------------------------------------------------------------------------------


def width(n, rate):
    return math.ceil(n * rate - 1e-9)


class Net:
    """An architecture: shapes of its parameters at a rate, and its forward pass as a function of them."""

    def __init__(self, model, widths, blocks, norm, channels, classes=10):
        self.model, self.widths, self.blocks, self.norm = model, widths, blocks, norm
        self.channels, self.classes = channels, classes

    def shapes(self, rate):
        w = [width(n, rate) for n in self.widths]
        s = {}

        def norm(name, n):
            if self.norm != "none":
                s[name + ".weight"], s[name + ".bias"] = (n,), (n,)

        if self.model == "cnn":
            n = self.channels
            for i, k in enumerate(w, 1):
                s[f"conv{i}.weight"], s[f"conv{i}.bias"] = (k, n, 3, 3), (k,)
                norm(f"norm{i}", k)
                n = k
        else:
            n = w[0]
            s["conv1.weight"] = (n, self.channels, 3, 3)
            for i, (k, count) in enumerate(zip(w, self.blocks), 1):
                for j in range(count):
                    name = f"layer{i}.{j}"
                    norm(name + ".norm1", n)
                    s[name + ".conv1.weight"] = (k, n, 3, 3)
                    norm(name + ".norm2", k)
                    s[name + ".conv2.weight"] = (k, k, 3, 3)
                    if j == 0 and i > 1 or n != k:
                        s[name + ".shortcut.weight"] = (k, n, 1, 1)
                    n = k
            norm("norm", n)
        s["linear.weight"], s["linear.bias"] = (self.classes, n), (self.classes,)
        return s

    def initial(self, generator):
        """torch's defaults: U(-1/sqrt(fan), 1/sqrt(fan)) for kernels and convolution biases; linear bias 0, norms 1 and 0."""
        w, fan = {}, 1
        for name, shape in self.shapes(1).items():
            if len(shape) > 1:
                fan = math.prod(shape[1:])
            if "norm" in name:
                w[name] = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
            elif name == "linear.bias":
                w[name] = torch.zeros(shape)
            else:
                w[name] = (torch.rand(shape, generator=generator) * 2 - 1) / math.sqrt(fan)
        return w

    def forward(self, w, x, rho=1, stats=None, seen=None):
        """Outputs. With stats (evaluation) norms use them, else those of the batch, which are appended to seen."""

        def norm(name, x):
            if rho != 1 and stats is None:
                x = x / rho  # the Scaler
            if self.norm == "none":
                return x
            gamma, beta = w[name + ".weight"], w[name + ".bias"]
            if stats is not None:
                return F.batch_norm(x, stats[name + ".running_mean"], stats[name + ".running_var"], gamma, beta, False, 0, 1e-5)
            if seen is not None:
                seen[name + ".running_mean"] = x.mean((0, 2, 3), dtype=torch.float64)
                seen[name + ".running_var"] = x.double().var((0, 2, 3), unbiased=True)
            return F.batch_norm(x, None, None, gamma, beta, True, 0, 1e-5)

        if self.model == "cnn":
            for i in range(1, len(self.widths) + 1):
                x = F.conv2d(x, w[f"conv{i}.weight"], w[f"conv{i}.bias"], padding=1)
                x = F.relu(norm(f"norm{i}", x))
                if i < len(self.widths):
                    x = F.max_pool2d(x, 2)
        else:
            x = F.conv2d(x, w["conv1.weight"], padding=1)
            for i, count in enumerate(self.blocks, 1):
                for j in range(count):
                    name, stride = f"layer{i}.{j}", 2 if i > 1 and j == 0 else 1
                    y = F.relu(norm(name + ".norm1", x))
                    side = w.get(name + ".shortcut.weight")
                    side = x if side is None else F.conv2d(y, side, stride=stride)
                    y = F.conv2d(y, w[name + ".conv1.weight"], stride=stride, padding=1)
                    x = F.conv2d(F.relu(norm(name + ".norm2", y)), w[name + ".conv2.weight"], padding=1) + side
            x = F.relu(norm("norm", x))
        return F.linear(x.mean((2, 3)), w["linear.weight"], w["linear.bias"])


# ---- the method --------------------------------------------------------------------------------


class HeteroFL:
    def __init__(self, net, s, train, test, parts, test_parts):
        self.net, self.s, self.train, self.test, self.parts, self.test_parts = net, s, train, test, parts, test_parts
        self.labels = [sorted(set(train.y[torch.as_tensor(p)].tolist())) for p in parts]

    def mask(self, client):
        m = torch.zeros(self.net.classes, dtype=torch.float32)
        m[self.labels[client]] = 1
        return m

    def cut(self, w, rate):
        """The leading positions of every axis: what a client of that rate holds."""
        return {k: w[k][tuple(slice(0, d) for d in shape)].clone() for k, shape in self.net.shapes(rate).items()}

    def local(self, w, client, rate, lr, batches):
        """A client's training: its thin weights after all batches, which are pairs of rows and windows."""
        w = {k: v.requires_grad_() for k, v in w.items()}
        params, mask = list(w.values()), self.mask(client)
        s = self.s
        opt = torch.optim.SGD(params, lr, momentum=s["momentum"], weight_decay=s["decay"])
        rho = rate if s["scaler"] else 1
        for rows, windows in batches:
            x, y = self.train.batch(rows, windows, s["crop"])
            z = self.net.forward(w, x, rho)
            if s["mask"] == "zero":
                z = torch.where(mask > 0, z, 0.0)
            loss = F.cross_entropy(z, y)
            opt.zero_grad(set_to_none=True)
            loss.backward()
            if s["clip"]:
                torch.nn.utils.clip_grad_norm_(params, s["clip"])
            opt.step()
        return {k: v.detach() for k, v in w.items()}

    def aggregate(self, w, trained):
        """The mean of every coordinate over the clients that hold it; output rows only over clients with that label."""
        out = {}
        for k, old in w.items():
            total, count = torch.zeros(old.shape, dtype=torch.float64), torch.zeros(old.shape, dtype=torch.float64)
            for client, part in trained:
                at = tuple(slice(0, d) for d in part[k].shape)
                one = torch.ones(part[k].shape, dtype=torch.float64)
                if k.startswith("linear.") and self.s.get("label_rule", True):
                    one *= self.mask(client).double().view(-1, *[1] * (one.dim() - 1))
                total[at] += one * part[k].double()
                count[at] += one
            out[k] = torch.where(count > 0, total / count.clamp(min=1), old.double()).to(old.dtype)
        return out

    @torch.no_grad()
    def statistics(self, w, batches):
        """Static batch norm: the mean over batches of their means and unbiased variances."""
        total, n = None, 0
        for rows, windows in batches:
            seen = {}
            self.net.forward(w, self.train.batch(rows, windows, self.s["crop"])[0], seen=seen)
            total = seen if total is None else {k: v + seen[k] for k, v in total.items()}
            n += 1
        return {k: (v / n).to(torch.get_default_dtype()) for k, v in (total or {}).items()}

    @torch.no_grad()
    def outputs(self, w, stats):
        return torch.cat([self.net.forward(w, self.test.batch(torch.arange(i, min(i + 500, len(self.test))))[0], stats=stats)
                          for i in range(0, len(self.test), 500)])

    def accuracies(self, z):
        """Global accuracy, and that of all clients' own test images under their masks."""
        correct = n = 0
        for k, rows in enumerate(self.test_parts):
            rows = torch.as_tensor(rows, dtype=torch.long)
            out = z[rows]
            if self.s["mask"] == "zero":
                out = torch.where(self.mask(k) > 0, out, 0.0)
            correct += (out.argmax(1) == self.test.y[rows]).sum().item()
            n += len(rows)
        return (z.argmax(1) == self.test.y).float().mean().item(), correct / max(1, n)


# ---- replay of a trace -------------------------------------------------------------------------


def batches(run, size):
    for e, rows in enumerate(run["rows"]):
        windows = run["windows"][e] if run.get("windows") else None
        for i in range(0, len(rows), size):
            yield torch.tensor(rows[i : i + size]), windows and windows[i : i + size]


def relative(a, b):
    """Distance of two sets of tensors, relative to the norm of the second, and their largest single difference."""
    d = sum(((a[k].double() - b[k].double()) ** 2).sum().item() for k in b)
    n = sum((b[k].double() ** 2).sum().item() for k in b)
    return math.sqrt(d / n), max((a[k].double() - b[k].double()).abs().max().item() for k in b)


def from_trace(folder, data):
    t = json.loads((Path(folder) / "trace.json").read_text())
    train, test = load(t["data"], data)
    train, test = train.rows(t["train_rows"]), test.rows(t["test_rows"])
    net = Net(t["model"], t["widths"], t.get("blocks"), t["norm"], train.x.shape[1])
    return t, HeteroFL(net, t, train, test, t["train"], t["test"])


def replay(a):
    folder = Path(a.dir)
    t, h = from_trace(folder, a.data)
    w = read_safetensors(folder / "weights-0.safetensors")
    assert {k: tuple(v.shape) for k, v in w.items()} == h.net.shapes(1)
    torch.set_default_dtype(w["linear.weight"].dtype)
    print(f"{'round':>5} {'clients':>12} {'weights rel':>12} {'max abs':>9} {'stats rel':>10} {'logits':>9} {'of max':>7}  "
          "global (ours)     local (ours)")
    for r, d in enumerate(t["rounds"], 1):
        trained = [(k["client"], h.local(h.cut(w, k["width"]), k["client"], k["width"], d["rate"], batches(k, t["batch"])))
                   for k in d["tasks"]]
        w = h.aggregate(w, trained)
        ours = read_safetensors(folder / f"weights-{r}.safetensors")
        own = {k: v for k, v in ours.items() if "running" not in k}
        print(f"{r:5} {''.join(k['level'] for k in d['tasks']):>12} {'%12.2e %9.2e' % relative(w, own)}", end="")
        if d["stats"]:
            stats = h.statistics(w, (b for run in d["stats"] for b in batches(run, t["batch"])))
            z = h.outputs(w, stats)
            theirs = read_safetensors(folder / f"logits-{r}.safetensors")["logits"]
            acc, local = h.accuracies(z)
            print(f" {relative(stats, {k: ours[k] for k in stats})[0]:10.2e} {(z[t['logits']] - theirs).abs().max():9.2e} "
                  f"{theirs.abs().max():7.2f}  {100 * acc:.2f} ({100 * d['global']:.2f})  {100 * local:.2f} ({100 * d.get('local', math.nan):.2f})", end="")
        print(flush=True)
        if a.each:
            w = own  # every round from our weights, so that rounding does not add up


def logits(a):
    folder = Path(a.dir)
    t, h = from_trace(folder, a.data)
    model = read_safetensors(folder / "model.safetensors")
    w = {k: v for k, v in model.items() if "running" not in k}
    stats = {k: v for k, v in model.items() if "running" in k}
    theirs = read_safetensors(folder / f"logits-{len(t['rounds'])}.safetensors")["logits"]
    z = h.outputs(w, stats)[t["logits"]]
    d, m = (z - theirs).abs().max().item(), theirs.abs().max().item()
    same = (z.argmax(1) == theirs.argmax(1)).sum().item()
    print(f"{t['model']} {t['widths']}: {len(z)} images, largest difference {d:.2e}, largest logit {m:.3f}, "
          f"relative {d / m:.2e}, same class {same}")


# ---- runs with draws of their own --------------------------------------------------------------


def deal_iid(n, clients, g):
    perm = torch.randperm(n, generator=g)
    each = n // clients
    return [perm[k * each : (k + 1) * each].tolist() for k in range(clients)]


def deal_classes(y, lists, shards, g):
    """Every class in equal shards, left-overs one each to the first; a client takes a random unused shard of each class."""
    left = {}
    for c in range(10):
        rows = (y == c).nonzero().flatten().tolist()
        size, over = divmod(len(rows), shards)
        cut = [rows[i * size : (i + 1) * size] for i in range(shards)]
        for i in range(over):
            cut[i].append(rows[shards * size + i])
        left[c] = [cut[i] for i in torch.randperm(shards, generator=g).tolist()]
    return [[r for c in classes for r in left[c].pop()] for classes in lists]


def rounds_of_levels(mode, clients, dynamic, g):
    """Yields every client's rate, round by round."""
    names, shares = [p[0] for p in mode.split("-")], [int(p[1:]) for p in mode.split("-")]
    unit = clients // sum(shares)
    fixed = [LEVELS[n] for n, s in zip(names, shares) for _ in range(unit * s)]
    fixed += [LEVELS[names[-1]]] * (clients - len(fixed))
    while True:
        if not dynamic:
            yield fixed
        else:
            drawn = torch.multinomial(torch.tensor(shares, dtype=torch.float), clients, replacement=True, generator=g)
            yield [LEVELS[names[i]] for i in drawn]


def train(a):
    g = torch.Generator().manual_seed(a.seed)
    drawn = {"seed": a.seed, "selected": [], "levels": []}

    def some(images, n, name):
        rows = torch.arange(len(images))
        if n:
            rows = torch.randperm(len(images), generator=g)[:n].sort().values
        drawn[name] = rows.tolist()
        return images.rows(rows)

    full, test = load(a.dataset, a.data)
    full, test = some(full, a.images, "train_rows"), some(test, a.test_images, "test_rows")
    if a.classes:
        shards = a.classes * a.clients // 10
        dealt = (torch.arange(a.classes * a.clients) % 10)[torch.randperm(a.classes * a.clients, generator=g)].view(-1, a.classes)
        lists = [row if a.keep_duplicates else sorted(set(row)) for row in dealt.tolist()]
        parts, test_parts = deal_classes(full.y, lists, shards, g), deal_classes(test.y, lists, shards, g)
    else:
        parts, test_parts = deal_iid(len(full), a.clients, g), deal_iid(len(test), a.clients, g)
    s = {"momentum": 0.9, "decay": 5e-4, "clip": a.clip, "crop": a.crop, "mask": a.mask, "scaler": True, "label_rule": not a.no_label_rule}
    top = LEVELS[a.mode[0]]  # the global model's level
    net = Net(a.model, [width(n, top) for n in a.widths], a.blocks, a.norm, full.x.shape[1])
    h = HeteroFL(net, s, full, test, parts, test_parts)

    def walk(rows, epochs):
        rows = torch.as_tensor(rows)
        for _ in range(epochs):
            order = rows[torch.randperm(len(rows), generator=g)]
            for b in order.split(a.batch):
                windows = None
                if a.crop or a.flip:
                    draw = torch.randint(2 * a.crop + 1, (len(b), 3), generator=g) - a.crop
                    draw[:, 2] = torch.randint(2, (len(b),), generator=g) * a.flip
                    windows = draw.tolist()
                yield b, windows

    drawn |= {"train": [sorted(p) for p in parts], "test": [sorted(p) for p in test_parts]}
    w = net.initial(g)
    if a.write_draws:
        os.makedirs(a.write_draws)
        write_safetensors(Path(a.write_draws) / "weights.safetensors", w)
    levels = rounds_of_levels(a.mode, a.clients, a.levels == "dynamic", g)
    begin, training = time.perf_counter(), 0
    for r in range(a.rounds):
        lr = a.rate * 0.1 ** sum(r >= m for m in a.drops)
        rates = next(levels)
        chosen = sorted(torch.randperm(a.clients, generator=g)[: math.ceil(a.fraction * a.clients - 1e-9)].tolist())
        drawn["selected"].append(chosen)
        drawn["levels"].append([LETTERS[rates[k]] for k in chosen])
        began = time.perf_counter()
        w = h.aggregate(w, [(k, h.local(h.cut(w, rates[k] / top), k, rates[k] / top, lr, walk(parts[k], a.epochs))) for k in chosen])
        training += time.perf_counter() - began
        if (r + 1) % a.every and r + 1 < a.rounds:
            continue
        line = {"round": r + 1}
        for how in a.statistics.split(","):
            passes = [range(len(full))] if how == "pooled" else parts
            acc, local = h.accuracies(h.outputs(w, h.statistics(w, (b for p in passes for b in walk(p, 1)))))
            suffix = " " + how if "," in a.statistics else ""
            line |= {"global" + suffix: round(100 * acc, 2), "local" + suffix: round(100 * local, 2)}
        print(json.dumps(line | {"seconds": round(time.perf_counter() - begin, 2)}), flush=True)
    if a.write_draws:
        (Path(a.write_draws) / "draws.json").write_text(json.dumps(drawn))
    print(json.dumps({"seconds": round(time.perf_counter() - begin, 2), "train_seconds": round(training, 2)}))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", default=os.environ.get("COHORT_DATA"), help="folder of real data sets")
    p.add_argument("--threads", type=int, default=2)
    sub = p.add_subparsers(required=True)
    for name, do in (("replay", replay), ("logits", logits)):
        q = sub.add_parser(name)
        q.add_argument("dir")
        q.set_defaults(do=do)
        if name == "replay":
            q.add_argument("--each", action="store_true", help="start every round from the recorded weights")
    q = sub.add_parser("train")
    q.set_defaults(do=train)
    integers = lambda s: [int(v) for v in s.split(",") if v]
    for name, kind, default in (
        ("seed", int, 0), ("dataset", str, "mnist"), ("images", int, 0), ("test-images", int, 0), ("clients", int, 20),
        ("classes", int, 0), ("model", str, "cnn"), ("widths", integers, [16, 32, 64, 128]), ("blocks", integers, [1, 1, 1, 2]),
        ("norm", str, "sbn"), ("mode", str, "a1"), ("levels", str, "dynamic"), ("mask", str, "zero"), ("fraction", float, 0.25),
        ("epochs", int, 2), ("batch", int, 10), ("rate", float, 0.01), ("drops", integers, [7]), ("rounds", int, 15),
        ("clip", float, 1.0), ("crop", int, 0), ("statistics", str, "clients"), ("every", int, 15),
    ):
        q.add_argument("--" + name, type=kind, default=default)
    q.add_argument("--write-draws", metavar="DIR", help="new folder for what was drawn, for heterofl -draws DIR")
    q.add_argument("--flip", action="store_true", help="mirror half of the images")
    q.add_argument("--keep-duplicates", action="store_true", help="a class dealt twice gives two shards instead of one")
    q.add_argument("--no-label-rule", action="store_true", help="output rows are averaged over all clients")
    a = p.parse_args()
    if not a.data:
        sys.exit("peer.py: set COHORT_DATA, or give --data, the folder that holds mnist/ and cifar10/")
    torch.set_num_threads(a.threads)
    a.do(a)


if __name__ == "__main__":
    main()

"""The peer of bench/compare: PyTorch behind the line protocol that package compare describes.

Requests and replies are JSON objects, one a line, on standard input and output. Every case is
built in both memory formats, and the faster one is measured.
"""

import ctypes
import gc
import json
import math
import os
import sys
import time

import torch
from torch import nn
from torch.nn import functional as F

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


# ---- models, as the Go side builds them -------------------------------------------------------


class Scaler(nn.Module):
    """Divides by the width rate in training (HeteroFL)."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        return x if self.rate == 1 else x / self.rate


def batch_norm(n):
    return nn.BatchNorm2d(n, track_running_stats=False)


def width(n, rate):
    return math.ceil(n * rate - 1e-9)


class Head(nn.Module):
    def __init__(self, n, classes=10):
        super().__init__()
        self.linear = nn.Linear(n, classes)

    def forward(self, x):
        return self.linear(x.mean(dim=(2, 3)))


def mlp(rate):
    return nn.Sequential(nn.Linear(784, 200), nn.ReLU(), nn.Linear(200, 10))


def cnn(rate):
    layers, n = [], 1
    widths = [width(w, rate) for w in (64, 128, 256, 512)]
    for i, w in enumerate(widths):
        layers += [nn.Conv2d(n, w, 3, padding=1), Scaler(rate), batch_norm(w), nn.ReLU()]
        if i < len(widths) - 1:
            layers.append(nn.MaxPool2d(2))
        n = w
    return nn.Sequential(*layers, Head(n))


class Residual(nn.Module):
    """A pre-activation block; the shortcut is a 1x1 convolution where the shape changes."""

    def __init__(self, cin, cout, stride, rate=1.0):
        super().__init__()
        self.scaler = Scaler(rate)
        self.norm1, self.norm2 = batch_norm(cin), batch_norm(cout)
        self.conv1 = nn.Conv2d(cin, cout, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.shortcut = None
        if stride != 1 or cin != cout:
            self.shortcut = nn.Conv2d(cin, cout, 1, stride=stride, bias=False)

    def forward(self, x):
        y = F.relu(self.norm1(self.scaler(x)))
        side = x if self.shortcut is None else self.shortcut(y)
        y = self.conv1(y)
        return self.conv2(F.relu(self.norm2(self.scaler(y)))) + side


def residual_net(stem, widths, blocks, rate=1.0):
    layers, n = [nn.Conv2d(3, stem, 3, padding=1, bias=False)], stem
    for i, (w, count) in enumerate(zip(widths, blocks)):
        for j in range(count):
            layers.append(Residual(n, w, 2 if i > 0 and j == 0 else 1, rate))
            n = w
    return nn.Sequential(*layers, Scaler(rate), batch_norm(n), nn.ReLU(), Head(n))


def resnet(rate):
    widths = [width(w, rate) for w in (64, 128, 256, 512)]
    return residual_net(widths[0], widths, (1, 1, 1, 2), rate)


def wrn(rate):
    return residual_net(16, (32, 64, 128), (4, 4, 4))


class Lstm(nn.Module):
    def __init__(self, vocabulary=10000, n=650, layers=2):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, n)
        self.lstm = nn.LSTM(n, n, layers, batch_first=True)
        self.decoder = nn.Linear(n, vocabulary)

    def forward(self, x):
        return self.decoder(self.lstm(self.embedding(x))[0]).flatten(0, 1)


MODELS = {
    "mlp": (mlp, (784,)),
    "cnn": (cnn, (1, 28, 28)),
    "resnet": (resnet, (3, 32, 32)),
    "wrn": (wrn, (3, 32, 32)),
    "lstm": (lambda rate: Lstm(), None),
}


# ---- cases: a function that runs one step, for each way of running it --------------------------


def gemm(c, layout):
    def operand(rows, cols, transposed):
        return torch.randn(cols, rows).t() if transposed else torch.randn(rows, cols)

    a, b = operand(c["m"], c["k"], c["ta"]), operand(c["k"], c["n"], c["tb"])
    return lambda: torch.mm(a, b), 0


def conv(c, layout):
    fmt = LAYOUTS[layout]
    x = torch.randn(c["n"], c["cin"], c["h"], c["w"]).to(memory_format=fmt)
    w = torch.randn(c["cout"], c["cin"] // c["groups"], c["kh"], c["kw"]).to(memory_format=fmt)
    opts = dict(stride=c["stride"], padding=c["pad"], dilation=c["dil"], groups=c["groups"])
    if not c["backward"]:

        def forward():
            with torch.no_grad():
                return F.conv2d(x, w, **opts)

        return forward, 0
    x.requires_grad_()
    w.requires_grad_()
    dy = torch.randn_like(F.conv2d(x, w, **opts))

    def both():
        y = F.conv2d(x, w, **opts)
        return torch.autograd.grad(y, (x, w), dy)

    return both, 0


def train(c, layout):
    build, shape = MODELS[c["model"]]
    model = build(c["rate"])
    if shape is None:
        x = torch.randint(0, 10000, (c["batch"], 35))
        y = torch.randint(0, 10000, (c["batch"] * 35,))
    else:
        x = torch.randn(c["batch"], *shape)
        y = torch.randint(0, 10, (c["batch"],))
    if len(x.shape) == 4:
        model, x = model.to(memory_format=LAYOUTS[layout]), x.to(memory_format=LAYOUTS[layout])
    params = list(model.parameters())
    opt = torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=5e-4, foreach=True)

    def step():
        opt.zero_grad(set_to_none=True)
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        opt.step()
        return loss.item()

    return step, sum(p.numel() for p in params)


KINDS = {"gemm": gemm, "conv": conv, "train": train}


def has_layouts(c):
    return c["kind"] == "conv" or c["kind"] == "train" and c["model"] in ("cnn", "resnet", "wrn")


# ---- the protocol ------------------------------------------------------------------------------


def timed(step, seconds):
    """Runs step for at least that long, and at least once: (steps, seconds, fastest step)."""
    n, spent, best, start = 0, 0.0, math.inf, time.perf_counter()
    while True:
        step()
        n += 1
        now = time.perf_counter() - start
        best, spent = min(best, now - spent), now
        if spent >= seconds:
            return n, spent, best


def status(key):
    with open("/proc/self/status") as f:
        for line in f:
            if line.startswith(key + ":"):
                return int(line.split()[1]) / 1024
    return 0.0


def trim():
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as f:
            f.write("5")  # the peak of resident memory begins anew
    except OSError:
        pass


class Server:
    def __init__(self):
        self.step = None

    def hello(self, r):
        torch.set_num_threads(r["threads"])
        # What PyTorch does once in a process is not part of any case's first step.
        tiny = {"kind": "train", "model": "mlp", "rate": 1.0, "batch": 2}
        train(tiny, "contiguous")[0]()
        blas = [l.strip(" -") for l in torch.__config__.show().splitlines() if "Math Kernel" in l or "MKL-DNN" in l]
        if not blas:
            blas = [p for p in torch.__config__.show().replace(",", " ").split() if p.startswith("BLAS_INFO")]
        return {
            "name": "PyTorch " + torch.__version__,
            "details": {
                "python": sys.version.split()[0],
                "BLAS": "; ".join(blas),
                "CPU capability": torch.backends.cpu.get_cpu_capability(),
                "threads": str(torch.get_num_threads()),
            },
        }

    def setup(self, r):
        c = r["case"]
        self.step = None
        trim()
        torch.manual_seed(0)
        best = None
        for layout in LAYOUTS if has_layouts(c) else ["contiguous"]:
            step, params = KINDS[c["kind"]](c, layout)
            start = time.perf_counter()  # with weights and data in memory
            step()
            first = time.perf_counter() - start
            step()
            fastest = timed(step, r["seconds"])[2]
            if best is None or fastest < best[0]:
                best = (fastest, step, params, first, layout)
        _, self.step, params, first, layout = best
        del best, step
        trim()
        return {"params": params, "first_ms": first * 1e3, "note": layout}

    def run(self, r):
        n, spent, best = timed(self.step, r["seconds"])
        return {"steps": n, "spent": spent, "best": best}

    def memory(self, r):
        """Resident memory: the peak since the faster layout of the case was chosen, and now."""
        return {"peak_mib": status("VmHWM"), "rss_mib": status("VmRSS")}

    def drop(self, r):
        self.step = None
        trim()
        return {}


def main():
    server = Server()
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else may write between the replies
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = getattr(server, request["op"])(request)
        except Exception as e:  # the other side reports it and goes on with the next case
            reply = {"error": f"{type(e).__name__}: {e}"}
        out.write(json.dumps(reply) + "\n")
        out.flush()


main()

"""The peer of bench/semifl: one round of SemiFL as a plain PyTorch loop, written from the method's description.

For every line on standard input it computes a round on one thread and answers with the seconds.
Images are random bytes: time does not depend on them, since the threshold is 0 and every label is accepted.
"""

import copy
import sys
import time

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import nn
from torch.nn import functional as F

CLIENTS, ACTIVE, EACH, LABELLED = 20, 5, 150, 100
EPOCHS, SERVER_EPOCHS, BATCH, STAT_BATCH, PAD, RATE = 2, 5, 10, 250, 2, 0.03

rng = np.random.default_rng(0)
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        layers, n = [], 1
        for i, w in enumerate((16, 32, 64)):
            layers += [nn.Conv2d(n, w, 3, padding=1), nn.BatchNorm2d(w, momentum=None, track_running_stats=False), nn.ReLU()]
            if i < 2:
                layers.append(nn.MaxPool2d(2))
            n = w
        self.features, self.linear = nn.Sequential(*layers), nn.Linear(n, 10)

    def forward(self, x):
        return self.linear(self.features(x).mean(dim=(2, 3)))


def tracking(m, on):
    for b in m.modules():
        if isinstance(b, nn.BatchNorm2d):
            b.track_running_stats = on
            b.register_buffer("running_mean", torch.zeros(b.num_features) if on else None)
            b.register_buffer("running_var", torch.ones(b.num_features) if on else None)
            b.register_buffer("num_batches_tracked", torch.tensor(0) if on else None)


def crop(x):
    """A random crop of a padded image of bytes."""
    dy, dx = rng.integers(0, 2 * PAD + 1, 2)
    return np.pad(x, PAD)[dy : dy + 28, dx : dx + 28]


def normal(images):
    return ((torch.from_numpy(np.stack(images)).float() / 255 - 0.1307) / 0.3081).unsqueeze(1)


def sign(v):
    return -v if rng.random() > 0.5 else v


def cutout(im):
    a = np.array(im)
    y, x = (int(max(0, v - 7)) for v in rng.uniform(0, 28, 2))
    a[y : y + 15, x : x + 15] = 127
    return Image.fromarray(a)


def shift(im, a, b, c, d, e, f, how=Image.NEAREST):
    return im.transform(im.size, Image.AFFINE, (a, b, c, d, e, f), how)


OPS = [
    ImageOps.autocontrast,
    lambda im: ImageEnhance.Brightness(im).enhance(1.9),
    lambda im: ImageEnhance.Contrast(im).enhance(1.9),
    cutout,
    lambda im: ImageOps.posterize(im, 4),
    lambda im: im.rotate(sign(30)),
    lambda im: ImageEnhance.Sharpness(im).enhance(1.9),
    lambda im: shift(im, 1, sign(0.3), 0, 0, 1, 0, Image.BILINEAR),
    lambda im: shift(im, 1, 0, 0, sign(0.3), 1, 0, Image.BILINEAR),
    lambda im: shift(im, 1, 0, sign(4), 0, 1, 0),
    lambda im: shift(im, 1, 0, 0, 0, 1, sign(4)),
]


def strong(x):
    im = Image.fromarray(crop(x))
    for k in rng.integers(0, len(OPS), 2):
        if rng.random() + rng.uniform(0.2, 0.8) >= 1:
            im = OPS[k](im)
    return np.asarray(im)


def optimizer(m, state):
    o = torch.optim.SGD(m.parameters(), RATE, 0.9, weight_decay=5e-4, nesterov=True)
    if state is not None:
        o.load_state_dict(state)
    return o


def descend(m, o, loss):
    o.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(m.parameters(), 1)
    o.step()


class World:
    def __init__(self):
        draw = lambda n: rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        self.clients, self.labelled = [draw(EACH) for _ in range(CLIENTS)], draw(LABELLED)
        self.labels = torch.from_numpy(rng.integers(0, 10, LABELLED))
        self.model, self.states, self.server, self.v = Net(), {}, None, None

    def statistics(self):
        m = copy.deepcopy(self.model)
        tracking(m, True)
        m.train()
        with torch.no_grad():
            for data in [self.labelled] + self.clients:
                for i in range(0, len(data), STAT_BATCH):
                    m(normal(data[i : i + STAT_BATCH]))
        return m.eval()

    def client(self, k, known):
        data = self.clients[k]
        with torch.no_grad():
            y = known(normal([crop(x) for x in data])).softmax(1).argmax(1)
        mixed = rng.integers(0, len(data), len(data))
        m = copy.deepcopy(self.model).train()
        o = optimizer(m, self.states.get(k))
        for _ in range(EPOCHS):
            fix, mix = rng.permutation(len(data)), rng.permutation(mixed)
            for i in range(0, len(data), BATCH):
                f, g = fix[i : i + BATCH], mix[i : i + BATCH]
                lam = float(rng.beta(0.75, 0.75))
                a = normal([strong(data[j]) for j in f])
                b = lam * normal([crop(data[j]) for j in f]) + (1 - lam) * normal([crop(data[j]) for j in g])
                z = m(b)
                loss = F.cross_entropy(m(a), y[f]) + lam * F.cross_entropy(z, y[f]) + (1 - lam) * F.cross_entropy(z, y[g])
                descend(m, o, loss)
        self.states[k] = o.state_dict()
        return [p.detach() for p in m.parameters()]

    def round(self):
        known = self.statistics()
        trained = [self.client(k, known) for k in rng.choice(CLIENTS, ACTIVE, replace=False)]
        with torch.no_grad():
            g = [w - sum(t) / len(t) for w, *t in zip(self.model.parameters(), *trained)]
            self.v = g if self.v is None else [0.5 * v + d for v, d in zip(self.v, g)]
            for w, v in zip(self.model.parameters(), self.v):
                w -= v
        m = self.model.train()
        o = optimizer(m, self.server)
        for _ in range(SERVER_EPOCHS):
            order = rng.permutation(LABELLED)
            for i in range(0, LABELLED, BATCH):
                b = order[i : i + BATCH]
                descend(m, o, F.cross_entropy(m(normal([crop(self.labelled[j]) for j in b])), self.labels[b]))
        self.server = o.state_dict()


world = World()
print("torch", torch.__version__, flush=True)
torch.set_num_threads(1)
for _ in sys.stdin:
    began = time.perf_counter()
    world.round()
    print(time.perf_counter() - began, flush=True)

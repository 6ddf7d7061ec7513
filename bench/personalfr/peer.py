"""The peer of bench/personalfr: one round of PersonalFR as a plain PyTorch loop, written from the method's description.

The first line on standard input has the ratings of every client. For every further line it computes a round on one thread and
answers with the seconds: "dense" has a column and a row for every item, "active" for the client's own items alone.
"""

import json
import math
import random
import sys
import time

import torch
from torch import nn

ACTIVE, EPOCHS, BATCH, RATE = 0.1, 5, 10, 0.1


def encoder(items):
    return nn.Sequential(nn.Linear(items, 256), nn.GroupNorm(1, 256), nn.Tanh(), nn.Linear(256, 128), nn.GroupNorm(1, 128), nn.Tanh())


def decoder(items):
    return nn.Sequential(nn.Linear(128, 256), nn.GroupNorm(1, 256), nn.Tanh(), nn.Linear(256, items))


def start(m):
    for layer in m.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
    return m


class Client:
    """What a client keeps: its encoder, its momentum, and room for the decoder that it is sent."""

    def __init__(self, users, items, own, first):
        self.own, n = own, items if own is None else len(own)
        at = {j: k for k, j in enumerate(range(items) if own is None else own.tolist())}
        self.x, self.rated = torch.zeros(len(users), n), torch.zeros(len(users), n, dtype=torch.bool)
        for u, (which, values) in enumerate(users):
            for j, v in zip(which, values):
                self.x[u, at[j]], self.rated[u, at[j]] = v, True
        self.encoder, self.decoder = encoder(n), decoder(n)
        weights = {k: v.clone() for k, v in first.state_dict().items()}
        if own is not None:
            weights["0.weight"] = weights["0.weight"][:, own]
        self.encoder.load_state_dict(weights)
        self.params = list(self.encoder.parameters()) + list(self.decoder.parameters())
        self.optimizer = torch.optim.SGD(self.params, lr=RATE, momentum=0.9, nesterov=True, weight_decay=5e-4)

    def train(self, shared):
        with torch.no_grad():
            for name, p in self.decoder.named_parameters():
                whole = shared[name]
                p.copy_(whole if self.own is None or not name.startswith("3.") else whole[self.own])
        for _ in range(EPOCHS):
            order = torch.randperm(len(self.x))
            for i in range(0, len(order), BATCH):
                b = order[i : i + BATCH]
                x, rated = self.x[b], self.rated[b]
                code = nn.functional.dropout(self.encoder(x), 0.5)
                loss = (self.decoder(code) - x)[rated].square().mean()
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.params, 1)
                self.optimizer.step()
        return self.decoder


class World:
    def __init__(self, given):
        self.items, self.given = given["items"], given["clients"]
        self.first, self.shared = start(encoder(self.items)), dict(start(decoder(self.items)).state_dict())
        self.clients = {"dense": {}, "active": {}}

    def client(self, way, k):
        if k not in self.clients[way]:
            own = None
            if way == "active":
                own = torch.tensor(sorted({j for which, _ in self.given[k] for j in which}))
            self.clients[way][k] = Client(self.given[k], self.items, own, self.first)
        return self.clients[way][k]

    def round(self, clients):
        total = {name: torch.zeros_like(t) for name, t in self.shared.items()}
        for c in clients:
            d = c.train(self.shared)
            with torch.no_grad():
                for name, p in d.named_parameters():
                    if c.own is None or not name.startswith("3."):
                        total[name] += p - self.shared[name]
                    else:
                        total[name].index_add_(0, c.own, p - self.shared[name][c.own])
        for name in total:
            self.shared[name] = self.shared[name] + total[name] / len(clients)


def main():
    print("torch", torch.__version__, flush=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    world = World(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        way = line.strip()
        drawn = random.sample(range(len(world.given)), math.floor(ACTIVE * len(world.given)))
        clients = [world.client(way, k) for k in drawn]  # what clients keep is made outside the time
        began = time.perf_counter()
        world.round(clients)
        print(time.perf_counter() - began, flush=True)


if __name__ == "__main__":
    main()

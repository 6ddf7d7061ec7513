"""Trains PersonalFR with the loop of peer.py on MovieLens 100K and prints the RMSE of all held-out ratings every 20 rounds: to see
how far seeds differ. A tenth of the ratings is held out at random; the learning rate falls along a cosine over --schedule rounds.

    python spread.py u.data --clients 0 --rounds 40 --seed 1       # 0 clients: one user each
"""

import argparse
import math
import random

import torch

from peer import ACTIVE, RATE, World, decoder


def load(path, clients):
    """Returns the number of items, by client the users' ratings, and by client their held-out ones."""
    rows = [tuple(int(v) for v in line.split()[:3]) for line in open(path)]
    users = {u: k for k, u in enumerate(sorted({r[0] for r in rows}))}
    items = {i: k for k, i in enumerate(sorted({r[1] for r in rows}))}
    random.shuffle(rows)
    cut = len(rows) - len(rows) // 10
    parts = []
    for part in (rows[:cut], rows[cut:]):
        by_user = [([], []) for _ in users]
        for u, i, r in part:
            by_user[users[u]][0].append(items[i])
            by_user[users[u]][1].append(float(r))
        parts.append(by_user)
    order = list(range(len(users)))
    random.shuffle(order)
    deal = [order[k :: clients or len(users)] for k in range(clients or len(users))]
    return len(items), *[[[by_user[u] for u in d] for d in deal] for by_user in parts]


def rmse(world, held):
    squares = count = 0
    shared = decoder(world.items)
    shared.load_state_dict(world.shared)
    with torch.no_grad():
        for k, users in enumerate(held):
            client = world.clients["active"].get(k)
            for (which, values), (items, truth) in zip(world.given[k], users):
                if not items:
                    continue
                x = torch.zeros(1, world.items)
                x[0, which] = torch.tensor(values)
                code = world.first(x) if client is None else client.encoder(x[:, client.own])
                wrong = shared(code)[0, items] - torch.tensor(truth)
                squares, count = squares + float(wrong.square().sum()), count + len(items)
    return math.sqrt(squares / count)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("path")
    p.add_argument("--clients", type=int, default=100)
    p.add_argument("--rounds", type=int, default=100)
    p.add_argument("--schedule", type=int, default=0, help="rounds of the cosine; 0: as many as there are")
    p.add_argument("--seed", type=int, default=0)
    o = p.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(o.seed)
    random.seed(o.seed)
    items, given, held = load(o.path, o.clients)
    world = World({"items": items, "clients": given})
    for t in range(o.rounds):
        rate = RATE / 2 * (1 + math.cos(math.pi * t / (o.schedule or o.rounds)))
        drawn = [world.client("active", k) for k in random.sample(range(len(given)), math.floor(ACTIVE * len(given)))]
        for client in drawn:
            for group in client.optimizer.param_groups:
                group["lr"] = rate
        world.round(drawn)
        if (t + 1) % 20 == 0:
            print(f"round {t + 1}: RMSE {rmse(world, held):.4f}", flush=True)


if __name__ == "__main__":
    main()

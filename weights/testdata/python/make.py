"""Writes the files of this folder with the Python package safetensors, an implementation that shares no code with ours.

    python3 make.py        # needs numpy, torch and safetensors

For every NAME.safetensors there is a NAME.json with what a reader must find: per tensor its shape and its values as
float64 in C99 hexadecimal notation, which is exact.
"""
import json

import numpy as np
import torch
from safetensors.numpy import save_file as save_numpy
from safetensors.torch import save_file as save_torch


def write(name, tensors, save, meta=None):
    save(tensors, name + ".safetensors", metadata=meta)
    want = {}
    for k, t in tensors.items():
        a = t.double().numpy() if isinstance(t, torch.Tensor) else t.astype(np.float64)
        want[k] = {"shape": list(a.shape), "values": [v.hex() for v in a.reshape(-1).tolist()]}
    with open(name + ".json", "w") as f:
        json.dump({"meta": meta or {}, "tensors": want}, f, indent=1, sort_keys=True)
        f.write("\n")


r = np.random.default_rng(7)
write(
    "numpy",
    {
        "conv.weight": r.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "double": r.standard_normal((2, 5)),
        "half": np.array([0, -0.0, 1, -2, 6e-8, 6.1e-5, 65504, np.inf, -np.inf], np.float16),
        "i8": np.array([-128, 0, 127], np.int8),
        "u8": np.array([0, 255], np.uint8),
        "i16": np.array([-32768, 32767], np.int16),
        "u16": np.array([65535], np.uint16),
        "i32": np.array([[-(2**31), 2**31 - 1]], np.int32),
        "u32": np.array([2**32 - 1], np.uint32),
        "i64": np.array([-(2**53), 2**53], np.int64),
        "u64": np.array([2**53], np.uint64),
        "bool": np.array([[True, False], [False, True]]),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "größe \"'<&\\\n": np.array([1.5], np.float32),
    },
    save_numpy,
    {"format": "np", "ключ": "значение <&>"},
)
g = torch.Generator().manual_seed(7)
write(
    "torch",
    {
        "linear.weight": torch.randn(3, 4, generator=g),
        "linear.bias": torch.randn(3, generator=g),
        "bfloat": torch.randn(9, generator=g).bfloat16(),
        "half": torch.randn(9, generator=g).half(),
        "tiny": torch.tensor([1e-45, 1e-38, 3.4028235e38]),
        "num_batches_tracked": torch.tensor(12345),
    },
    save_torch,
    {"format": "pt"},
)
write("nothing", {}, save_numpy)

"""``python weaver_peer.py CONFIG FETCH_STEP FILE ...``: jets per CPU second of weaver-core's loader.

This is a separate script without imports of jetscale, because another interpreter may run it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"

import sys
import time

import torch
from torch.utils.data import DataLoader
from weaver.utils.dataset import SimpleIterDataset

BATCH = 128
WARM_UP = 5  # batches: its kernels are compiled at the first


def main(config: str, fetch_step: str, files: list[str]) -> None:
    torch.set_num_threads(1)
    data = SimpleIterDataset({"_": files}, config, for_training=True, fetch_step=float(fetch_step))
    n_jets = 0
    start = time.process_time()
    for number, (inputs, _, _) in enumerate(DataLoader(data, batch_size=BATCH, drop_last=True)):
        if number == WARM_UP:
            start, n_jets = time.process_time(), 0
        n_jets += len(inputs["pf_features"])
    print(n_jets / (time.process_time() - start))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])

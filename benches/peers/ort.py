#!/usr/bin/env python3
"""ONNX Runtime for `bench peers`: ort.py MODEL.onnx THREADS RUNS, one line of JSON.

Reads the input beside the model (NAME.in.npy) and, if there is one, the reference output (NAME.ref.npy)."""
import json
import os
import sys
import time

ENTRY = time.time()
STARTED = float(os.environ.get("T0", ENTRY))


def status(field):
    """MiB of a field of /proc/self/status."""
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return None


def main():
    import numpy as np
    import onnxruntime as ort

    imported = time.time()
    model, threads, runs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    base = model.removesuffix(".onnx")
    x = np.load(base + ".in.npy")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {session.get_inputs()[0].name: x}
    y = session.run(None, feed)[0]
    cold, hwm = time.time() - STARTED, status("VmHWM")
    reference = base + ".ref.npy"
    maxdiff = float(np.abs(y - np.load(reference)).max()) if os.path.exists(reference) else None
    begin, warm = time.perf_counter(), 0
    while warm < 5 or time.perf_counter() - begin < 0.5:
        session.run(None, feed)
        warm += 1
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, feed)
        times.append((time.perf_counter() - begin) * 1e3)
    times.sort()
    print(
        json.dumps(
            {
                "median_ms": times[(len(times) - 1) // 2],
                "min_ms": times[0],
                "hwm": hwm,
                "cold_s": cold,
                "import_s": imported - STARTED,
                "maxdiff": maxdiff,
            }
        )
    )


main()

#!/usr/bin/env python3
"""Sizes and decoding speed beside MPEG NNC (ISO/IEC 15938-17), by the C++ core of the PyPI package nncodec.

    scripts/compare_nnc.py setup VENV            # download nncodec (pinned) and build its core; needs a C++ compiler, no torch
    VENV/bin/python scripts/compare_nnc.py integers FILE.dcz [--dcz DCZ] [--bench BENCH] [--json]
    VENV/bin/python scripts/compare_nnc.py sweep MODEL.onnx FILE.dcz --pairs P --images D --preprocess T ... (see --help)

integers: the codes of every layer of FILE that is on a grid, coded by DeepCABAC without loss; per layer with or
without row skipping, whichever is smaller, with optimised parameters as nncodec does by default (its scans in blocks are larger
and need entry points). Ours: the layer's tiles as in the file, and the
code tables. Decoding: all those layers, best of some runs, one thread each; on a busy machine only with real-time priority on a core
of one's own (chrt -f 50 taskset -c 1), else the slower program loses most.

sweep: weights given to NNC's own quantiser, with dependent (trellis-coded) quantisation off and on, over steps: multiples of the
steps that FILE has per layer or channel, so that NNC gets our division of the error (steps are counted as FILE stores them). First
the weights that FILE decodes to, then MODEL's float weights. NNC's bytes are its streams and whatever FILE holds besides grids. Each
result is measured with `dcz evaluate`; one line of JSON per row.
"""
import argparse
import glob
import importlib.util
import json
import math
import os
import subprocess
import sys
import tarfile
import tempfile
import time

VERSION = "2.1.3"
# As nncodec's defaults: unary part of a value, density of quantisation parameters, weight of rate in the trellis.
UNARY, QP_DENSITY, LAMBDA = 10, 2, 0.0


def setup(venv):
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    pip = [python, "-m", "pip", "install", "-q"]
    subprocess.run(pip + ["numpy", "setuptools", "wheel", "pybind11"], check=True)
    source = os.path.join(venv, "src")
    # Without dependencies: only the core is built, which needs neither torch nor the rest.
    subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "--no-build-isolation", "--no-binary", ":all:",
                    f"nncodec=={VERSION}", "-d", source], check=True)
    with tarfile.open(os.path.join(source, f"nncodec-{VERSION}.tar.gz")) as archive:
        archive.extractall(source, filter="data")
    folder = os.path.join(source, f"nncodec-{VERSION}")
    subprocess.run([os.path.abspath(python), "setup.py", "-q", "build_ext", "--inplace"], cwd=folder, check=True)
    print(core_path(venv))


def core_path(venv):
    found = glob.glob(os.path.join(venv, "src", f"nncodec-{VERSION}", "src", "nncodec", "extensions", "deepCABAC*.so"))
    if not found:
        sys.exit(f"no core of nncodec {VERSION} under {venv}; run: compare_nnc.py setup {venv}")
    return found[0]


def load_core():
    """The extension alone: nncodec's own __init__ would want torch."""
    spec = importlib.util.spec_from_file_location("deepCABAC", core_path(sys.prefix))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def off(core):
    import numpy as np
    return core.HdspMode.AlwaysOff, np.array((0, 0), dtype=np.int8)


def encode(core, codes, dq, profile):
    """Bytes of one layer [outputs, k], as nncodec codes it; profile 1 skips rows of zeros."""
    import numpy as np
    skip = np.zeros(codes.shape[0], dtype=np.int32)
    if profile == 1:
        skip = (~codes.any(axis=1)).astype(np.int32)
    encoder = core.Encoder()
    encoder.initCtxModels(UNARY + 1, 1)
    encoder.encodeLayer(codes, dq, 0, profile, 0, int(skip.any()), skip, *off(core), 0, 0)
    return encoder.finish()


def decode(core, stream, shape, dq, profile):
    import numpy as np
    out = np.zeros(shape, dtype=np.int32)
    decoder = core.Decoder()
    decoder.setStream(stream)
    decoder.initCtxModels(UNARY + 1)
    decoder.decodeLayer(out, dq, 0, profile, 0, *off(core), 0, 0)
    return out


def best_stream(core, codes, dq=0):
    """The smaller stream of the two profiles, and which it is; checked."""
    import numpy as np
    stream, profile = min(((encode(core, codes, dq, profile), profile) for profile in (0, 1)), key=lambda one: len(one[0]))
    if dq == 0 and not np.array_equal(decode(core, stream, codes.shape, dq, profile), codes):
        sys.exit("DeepCABAC did not give back what it was given")
    return stream, profile


def exported(dcz, file):
    """layers.json and the arrays of a .dcz file."""
    import numpy as np
    with tempfile.TemporaryDirectory() as folder:
        target = os.path.join(folder, "arrays")
        subprocess.run([dcz, "export", file, "-o", target], check=True, stderr=subprocess.DEVNULL)
        with open(os.path.join(target, "layers.json")) as text:
            index = json.load(text)
        for layer in index["layers"]:
            for key in ("weights", "codes"):
                if layer[key]:
                    layer[key] = np.load(os.path.join(target, layer[key]))
        for constant in index["constants"]:
            constant["values"] = np.load(os.path.join(target, constant["values"]))
    return index


def integers(arguments):
    import numpy as np
    core = load_core()
    layers = [layer for layer in exported(arguments.dcz, arguments.file)["layers"] if layer["values"] == "grid"]
    if not layers:
        sys.exit(f"{arguments.file}: no layer on a grid")
    rows, streams = [], []
    for layer in layers:
        codes = np.ascontiguousarray(layer["codes"].reshape(layer["shape"][0], -1).astype(np.int32))
        stream, profile = best_stream(core, codes)
        streams.append((stream, codes.shape, profile))
        ours = layer["coded_bytes"] + layer["table_bits"] / 8
        rows.append((layer["name"], codes.size, ours, len(stream)))
    weights, ours, theirs = (sum(row[i] for row in rows) for i in (1, 2, 3))
    seconds = []
    for _ in range(arguments.runs):
        begin = time.perf_counter()
        for stream, shape, profile in streams:
            decode(core, stream, shape, 0, profile)
        seconds.append(time.perf_counter() - begin)
    result = {"file": os.path.basename(arguments.file), "nncodec": VERSION, "weights": weights, "dcz_bytes": round(ours),
              "deepcabac_bytes": theirs, "ratio": ours / theirs, "deepcabac_mweights_per_s": weights / min(seconds) / 1e6}
    if arguments.bench:
        line = subprocess.run([arguments.bench, "decode", "--file", arguments.file, "--json"], check=True, capture_output=True)
        found = json.loads(line.stdout)
        result["dcz_mweights_per_s"] = found["mweights_per_s"]
        result["dcz_mweights_per_s_f32"] = found["mweights_per_s_f32"]
        result["speed_ratio"] = found["mweights_per_s"] / result["deepcabac_mweights_per_s"]
    if arguments.json:
        print(json.dumps(result))
        return
    if arguments.layers:
        for name, count, own, other in rows:
            print(f"{name:<24} {count:>9} weights  {own:>10.0f} {other:>10} bytes  {own / other:.3f}")
    print(f"{result['file']}: {weights} weights; dcz {ours:.0f} bytes, DeepCABAC {theirs}: {result['ratio']:.4f}")
    print(f"decoding, million weights per second: DeepCABAC {result['deepcabac_mweights_per_s']:.1f}", end="")
    if arguments.bench:
        print(f", dcz {result['dcz_mweights_per_s']:.0f} to codes, {result['dcz_mweights_per_s_f32']:.0f} to f32:"
              f" {result['speed_ratio']:.0f} x", end="")
    print()


def qp_of(step):
    """The quantisation parameter whose step is nearest, and that step."""
    def value(qp):
        k = 1 << QP_DENSITY
        return (k + (qp & (k - 1))) * 2.0 ** ((qp >> QP_DENSITY) - QP_DENSITY)
    guess = int(round(math.log2(step) * (1 << QP_DENSITY)))
    qp = min(range(guess - 6, guess + 7), key=lambda qp: abs(math.log(value(qp) / step)))
    return qp, value(qp)


def quantised(core, weights, step, dq):
    """NNC's quantiser and coder on a layer: bytes, and what a decoder gets."""
    import numpy as np
    flat = np.ascontiguousarray(weights.reshape(weights.shape[0], -1), dtype=np.float32)
    codes = np.zeros(flat.shape, dtype=np.int32)
    encoder = core.Encoder()
    encoder.initCtxModels(UNARY, 0)
    qp = encoder.quantLayer(flat, codes, dq, QP_DENSITY, qp_of(step)[0], LAMBDA, UNARY, 0, 0)
    stream, profile = best_stream(core, codes.copy(), dq)
    found = decode(core, stream, codes.shape, dq, profile)
    out = np.zeros(flat.shape, dtype=np.float32)
    core.Decoder().dequantLayer(out, found, QP_DENSITY, qp, 0)
    return len(stream), out.reshape(weights.shape)


def steps_of(layer):
    """The steps that the file has, shaped to divide the layer's weights; NNC then works in units of them."""
    import numpy as np
    meaning = layer["meaning"]
    if "step" in meaning:
        return np.float32(meaning["step"])
    if "step_per_channel" in meaning:
        return np.array(meaning["step_per_channel"], dtype=np.float32).reshape(-1, 1, 1, 1)
    sys.exit(f"layer {layer['name']}: steps per block are not compared")


def measure(arguments, folder, layers, constants, name):
    """Mean cosine and figures of these weights and constants: put into the network, stored as float, and evaluated."""
    import numpy as np
    arrays = os.path.join(folder, name)
    os.mkdir(arrays)
    index = []
    for i, (layer, weights) in enumerate(layers):
        np.save(os.path.join(arrays, f"{i}.npy"), weights.astype(np.float32))
        index.append({"name": layer["name"], "weights": f"{i}.npy"})
    listed = []
    for i, constant in enumerate(constants):
        # Calibration may move scales and offsets from weights into constants.
        np.save(os.path.join(arrays, f"c{i}.npy"), constant["values"].astype(np.float32))
        listed.append({"name": constant["name"], "values": f"c{i}.npy"})
    with open(os.path.join(arrays, "layers.json"), "w") as text:
        json.dump({"layers": index, "constants": listed}, text)
    file = os.path.join(folder, name + ".dcz")
    subprocess.run([arguments.dcz, "compress", arguments.model, "--weights", arrays, "--quantize", "none", "--preprocess",
                    arguments.preprocess, "-o", file], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return evaluate(arguments, file)


def evaluate(arguments, file):
    command = [arguments.dcz, "evaluate", file, "--against", arguments.model, "--preprocess", arguments.preprocess, "--pairs",
               arguments.pairs, "--images", arguments.images, "--json"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    own = found["networks"][0]
    tpr = {rate["fpr"]: rate["tpr"] for rate in own["all"]["tpr"]}
    return {"cosine": found["agreement"]["mean_cosine"], "accuracy": own["listed"]["accuracy"]["accuracy"],
            "tpr_1e-3": tpr[1e-3], "tpr_1e-4": tpr[1e-4]}


def sweep(arguments):
    """NNC on the weights of a file and on the float weights, over steps; everything else of the file is added to its bytes."""
    core = load_core()
    index = exported(arguments.dcz, arguments.file)
    layers = index["layers"]
    with tempfile.TemporaryDirectory() as folder:
        float_file = os.path.join(folder, "float.dcz")
        subprocess.run([arguments.dcz, "compress", arguments.model, "--quantize", "none", "--preprocess", arguments.preprocess,
                        "-o", float_file], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        floats = exported(arguments.dcz, float_file)
        grids = [i for i, layer in enumerate(layers) if layer["values"] == "grid"]
        ours = sum(layers[i]["coded_bytes"] + layers[i]["table_bits"] / 8 for i in grids)
        rest = os.path.getsize(arguments.file) - ours
        rows = [{"what": "dcz", "bytes": os.path.getsize(arguments.file), **evaluate(arguments, arguments.file)}]
        print(json.dumps(rows[0]), flush=True)
        sources = {"file": ("weights of the file", index), "float": ("float weights", floats)}
        for what, source in (sources[name] for name in arguments.sources):
            for dq in (0, 1):
                for factor in arguments.factors:
                    size, changed = 0, []
                    for i, layer in enumerate(layers):
                        if i not in grids:
                            changed.append((layer, source["layers"][i]["weights"]))
                            continue
                        steps = steps_of(layer)
                        length, weights = quantised(core, source["layers"][i]["weights"] / steps, factor, dq)
                        weights = weights * steps
                        size += length
                        changed.append((layer, weights))
                    name = f"{what[:5]}{dq}{factor}"
                    row = {"what": f"NNC of {what}, dq={dq}", "factor": factor, "bytes": round(size + rest),
                           **measure(arguments, folder, changed, source["constants"], name)}
                    rows.append(row)
                    print(json.dumps(row), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("setup")
    one.add_argument("venv")
    one = commands.add_parser("integers")
    one.add_argument("file")
    one.add_argument("--dcz", default="target/release/dcz")
    one.add_argument("--bench", help="the program bench, to compare speed too")
    one.add_argument("--runs", type=int, default=3)
    one.add_argument("--layers", action="store_true", help="print every layer")
    one.add_argument("--json", action="store_true")
    one = commands.add_parser("sweep")
    one.add_argument("model", help="the ONNX model")
    one.add_argument("file", help="the .dcz file made from it")
    one.add_argument("--preprocess", required=True)
    one.add_argument("--pairs", required=True)
    one.add_argument("--images", required=True)
    one.add_argument("--dcz", default="target/release/dcz")
    one.add_argument("--factors", type=lambda text: [float(one) for one in text.split(",")], default=[0.5, 0.7, 1.0, 1.4],
                     help="steps, as multiples of those in the file [0.5,0.7,1,1.4]")
    one.add_argument("--sources", nargs="+", choices=["file", "float"], default=["file", "float"],
                     help="which weights NNC gets")
    arguments = parser.parse_args()
    if arguments.command == "setup":
        setup(arguments.venv)
    elif arguments.command == "sweep":
        sweep(arguments)
    else:
        integers(arguments)


if __name__ == "__main__":
    main()

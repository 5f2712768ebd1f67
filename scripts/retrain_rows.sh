#!/usr/bin/env bash
# The rows "with retraining": trains on the calibration photographs only, measures on the pairs, prints one line per file.
# Usage: scripts/retrain_rows.sh FOLDER sface|dlib|blocks|losses [minutes or, for losses, steps]
# TRAIN, HELD: folders of 250 x 250 photographs of different persons, to train SFace on and to keep aside (default: the crops in
# calibration_112, one in 16 kept aside).
# Needs ../shared (or DCZ_SHARED) and target/release/dcz (or DCZ). Runs go on where they stopped: the folder keeps checkpoints.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$1
row=$2
amount=${3:-}
dcz=${DCZ:-target/release/dcz}
shared=${DCZ_SHARED:-../shared}
faces=$shared/faces
mkdir -p "$out"

# name, model, preset, images to train on, images of the pairs, options
train() {
  local name=$1 model=$2 preset=$3 images=$4
  shift 4
  [ -e "$out/$name.dcz" ] || "$dcz" compress "$shared/models/$model" --preprocess "compress/presets/$preset.toml" \
    --retrain "$images" --checkpoint "$out/$name" -o "$out/$name.dcz" "$@" > "$out/$name.table"
}
measure() {
  local name=$1 model=$2 images=$3
  printf '%s\t%s bytes\t' "$name" "$(stat -c %s "$out/$name.dcz")"
  "$dcz" evaluate "$out/$name.dcz" --pairs "$faces/pairs.txt" --images "$images" --against "$shared/models/$model" --json |
    tee "$out/$name.json"
}
photographs=${TRAIN:-$faces/calibration_112}
aside=(${TRAIN:+--landmarks "$faces/landmarks.txt"} ${HELD:+--held-out "$HELD"})
sface() { train "$1" sface_float.onnx sface "$photographs" "${aside[@]}" "${@:2}"; }
dlib() { train "$1" dlib_resnet29_150.onnx dlib150 "$faces/calibration" --landmarks "$faces/landmarks.txt" "${@:2}"; }

case $row in
sface)
  sface sface_retrained --retrain-size 1.5MB --time "${amount:-60}m"
  measure sface_retrained sface_float.onnx "$faces/pairs_112"
  ;;
dlib)
  dlib dlib_retrained --retrain-size 1.55MB --time "${amount:-60}m"
  measure dlib_retrained dlib_resnet29_150.onnx "$faces/pairs_dlib150"
  ;;
blocks)
  for block in 1 4; do
    sface "sface_block$block" --prune percentile=75 --prune-block "$block" --time "${amount:-60}m"
    measure "sface_block$block" sface_float.onnx "$faces/pairs_112"
  done
  ;;
losses)
  # Equal steps and seed from the same network: pruned, rounded, and calibrated where START names such a file. For ce the
  # network has 128 outputs and the photographs show more people: only the 128 with the most photographs are shown, a folder each.
  for loss in cosine l2 kl relational features ce; do
    options=(--loss "$loss" --steps "${amount:-200}" ${START:+--start "$START"} ${SIZE:+--retrain-size "$SIZE"})
    if [ "$loss" = ce ]; then
      if [ ! -e "$out/persons" ]; then
        find "$photographs" -name '*.jpg' -printf '%f\n' | sed 's/_[0-9]*\.jpg$//' | sort | uniq -c |
          sort -k1,1nr -k2 | awk 'NR <= 128 { print $2 }' | while read -r person; do
          mkdir -p "$out/persons/$person"
          cp "$photographs/$person"_[0-9]*.jpg "$out/persons/$person"
        done
      fi
      train sface_ce sface_float.onnx sface "$out/persons" "${aside[@]}" "${options[@]}"
    else
      sface "sface_$loss" "${options[@]}"
    fi
    measure "sface_$loss" sface_float.onnx "$faces/pairs_112"
  done
  ;;
*)
  echo "unknown row '$row'" >&2
  exit 2
  ;;
esac

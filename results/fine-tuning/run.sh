#!/usr/bin/env bash
# 100 digits: from the trained Fashion-MNIST model, with its stages kept, and from scratch; three
# learning rates, three draws. bash results/fine-tuning/run.sh WORK
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
trained=$here/../fashion-mnist-trained
work=$1
for draw in 0 1 2; do
  data=$work/digits$draw
  [ -d "$data" ] || python "$here/make_digits.py" "$data" --draw "$draw"
  for lr in 5e-4 2e-3 6e-3; do
    for arm in scratch tuned frozen; do
      start=()
      [ "$arm" = tuned ] && start=(--from "$trained/model")
      [ "$arm" = frozen ] && start=(--from "$trained/model" --freeze all)
      cmtscale train --variant "$trained/network.toml" --data "folder:$data" --device cpu --test \
        --recipe "$here/recipe.toml" --lr "$lr" "${start[@]}" --json \
        --out "$work/$arm-$lr-$draw" > "$work/$arm-$lr-$draw.json"
    done
  done
done

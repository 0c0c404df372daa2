#!/usr/bin/env bash
# A published instruction-tuning run on the verl library, on its own terms: make the data, train, measure, compare.
#   experiments/verl_sft/run.sh MODEL TEACHER [OUT] [PAIRS]
# MODEL    the published run's is Qwen/Qwen2.5-Coder-1.5B
# TEACHER  writes the answers to train on; the published run's is a 30B coder
# PAIRS    training pairs; fewer for a shorter run (default: 257, as published)
# Rerun it to resume. EXTRA="--max-minutes 60" bounds the training of one call.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python} model=$1 teacher=$2 out=${3:-runs/verl_sft} pairs=${4:-257} extra=${EXTRA:-}
test_pairs=$((pairs * 46 / 257 > 8 ? pairs * 46 / 257 : 8))

# the data: five categories in the published proportions, answered by the teacher where its answer passes
[ -f "$out/corpus/about.json" ] || $python -m data.corpus pypi:verl==0.9.1 --out "$out/corpus"
[ -f "$out/pairs/about.json" ] || $python -m data.instruct "$out/corpus" --out "$out/pairs" \
    --count "$pairs" --test-count "$test_pairs" --validation-count 0 --checks doctest structure \
    --share docstring=0.264 explain=0.264 bugfix=0.251 complete=0.214 unit_test=0.007 improve=0 \
    --teacher "$teacher" --teacher-categories docstring explain bugfix complete unit_test \
    --teacher-candidates 2 --teacher-max-tokens 512

# train with the published settings, measure before and after by the published measures (samples at T = 0.6), compare
resume=$([ -f "$out/run/config.json" ] && echo --resume || true)
[ -f "$out/run/metrics.json" ] || $python train_sft.py --config recipes/sft_verl_published.toml --model "$model" \
    --data "$out/pairs/train.jsonl" --out "$out/run" $extra $resume
measure="$python -m eval.instruct --model $model --data $out/pairs/test.jsonl --samples 4 --temperature 0.6"
[ -f "$out/before.json" ] || $measure --out "$out/before.json"
[ -f "$out/after.json" ] || $measure --adapter "$out/run/adapter" --out "$out/after.json"
$python -m eval.compare "$out/before.json" "$out/after.json" --out "$out/changes.json"

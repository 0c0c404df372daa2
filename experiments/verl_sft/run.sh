#!/usr/bin/env bash
# The published run on verl in one command, resumable:
#   experiments/verl_sft/run.sh MODEL TEACHER [--pairs 64] [--max-minutes 60] …
# MODEL is Qwen/Qwen2.5-Coder-1.5B in the published run, TEACHER a 30B coder.
set -euo pipefail
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python}" -m experiments.verl_sft.run --models "$1" --teacher "$2" "${@:3}"

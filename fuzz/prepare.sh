#!/bin/bash
# What the fuzzers need, into fuzz/.work (ignored by git): Jazzer.js, which is libFuzzer for JavaScript, and schemathesis.
# Nothing of it is a dependency of a package.
#
# Jazzer.js's newest prebuilt binary asks for glibc 2.38, and its older versions build libFuzzer from sources that they
# download; so its native half is built here, against the libFuzzer that comes with Debian's clang.
set -euo pipefail
cd "$(dirname "$0")"
jazzer_version=2.1.0
schemathesis_version=4.32.5

clang=$(command -v clang++-19 || command -v clang++ || true)
if [ -z "$clang" ]; then
  echo "the fuzzers need clang and its libFuzzer: apt-get install --no-install-recommends clang-19 libclang-rt-19-dev" >&2
  exit 1
fi
libfuzzer=$("$clang" -print-resource-dir)/lib/linux/libclang_rt.fuzzer_no_main-$(uname -m).a

mkdir -p .work/jazzer
if [ ! -f .work/jazzer/ready ]; then
  echo '{ "private": true }' > .work/jazzer/package.json
  npm install --prefix .work/jazzer --ignore-scripts --no-audit --no-fund --silent "@jazzer.js/core@$jazzer_version"
  fuzzer=.work/jazzer/node_modules/@jazzer.js/fuzzer
  headers=$(node -p "require('node-api-headers').include_dir")
  mkdir -p "$fuzzer/build/Release"
  g++ -std=c++17 -O2 -w -fPIC -shared -DNAPI_VERSION=4 -DNODE_GYP_MODULE_NAME=jazzerjs -DBUILDING_NODE_EXTENSION \
    -D__jazzer_set_death_callback=__sanitizer_set_death_callback \
    -I"$headers" -I.work/jazzer/node_modules/node-addon-api -Ijazzer \
    "$fuzzer"/*.cpp "$fuzzer"/shared/*.cpp jazzer/hooks.cpp -o "$fuzzer/build/Release/jazzerjs.node" \
    -Wl,--whole-archive "$libfuzzer" -Wl,--no-whole-archive -lpthread
  touch .work/jazzer/ready
fi

if [ ! -x .work/schemathesis/bin/schemathesis ]; then
  python3 -m venv .work/schemathesis
  .work/schemathesis/bin/pip install --quiet "schemathesis==$schemathesis_version"
fi

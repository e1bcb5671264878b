#!/bin/bash
# scripts/sanitize.sh: builds the native side with AddressSanitizer and UndefinedBehaviorSanitizer, and with ThreadSanitizer,
# runs the native tests of both builds, and the addon under AddressSanitizer with a short real session of the embedded
# model. Prints a table; ends with 1 where anything is found. Logs and builds stay in packages/backend-cpu/native/build.
# Needs clang (which compiles instrumented kernels in a third of g++'s time) and, for the session, a built repository:
#   apt-get install --no-install-recommends clang-19 libclang-rt-19-dev && npm run build
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
native=$root/packages/backend-cpu/native
clang=$(command -v clang++-19 || command -v clang++ || true)
if [ -z "$clang" ]; then
  echo "needs clang: apt-get install --no-install-recommends clang-19 libclang-rt-19-dev" >&2
  exit 1
fi
builds=${SANITIZE_DIR:-$native/build/sanitize}
export ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
failed=0

build() { # sanitizer targets…
  cmake -S "$native" -B "$builds/$1" -DCMAKE_CXX_COMPILER="$clang" -DTENON_SANITIZE="$1" > /dev/null
  cmake --build "$builds/$1" --parallel "$(nproc)" --target "${@:2}" > "$builds/$1.log" 2>&1 || {
    tail -20 "$builds/$1.log" >&2
    exit 1
  }
}

# Runs a program, and prints its row of the table.
check() { # sanitizer name command…
  local log=$builds/$1-$2.log start=$SECONDS result=clean
  "${@:3}" > "$log" 2>&1 || { result="exit $?: $log" && failed=1; }
  printf '%-18s %-16s %5ds  %s\n' "$1" "$2" $((SECONDS - start)) "$result"
}

mkdir -p "$builds"
build address native_tests tenon_cpu
build thread native_tests
printf '%-18s %-16s %6s  %s\n' sanitizers test time result
for sanitizer in address thread; do
  for test in kernels sampler weights runtime sdk sdk_async; do
    check "$sanitizer" "$test" "$builds/$sanitizer/tests/${test}_test"
  done
done

# Node itself is not instrumented: leaks are its own, and its allocator is replaced by the sanitizer's. What is watched are
# the addon, and what it is given.
runtime=$("$clang" -print-file-name=libclang_rt.asan-x86_64.so)
check address session env LD_PRELOAD="$runtime" ASAN_OPTIONS=detect_leaks=0 ADDON="$builds/address/Release/tenon_cpu.node" \
  node --require ./scripts/replace-addon.cjs scripts/addon-session.mjs
exit "$failed"

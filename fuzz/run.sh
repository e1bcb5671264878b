#!/bin/bash
# fuzz/run.sh [seconds per target] [target…]: runs the coverage-guided fuzzers one after the other, and prints cases,
# cases a second, coverage (edges of the first and of the last case), and findings, whose inputs stay in fuzz/.work/found.
# Corpora grow in fuzz/.work/corpus from run to run.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-60}
shift || true
native_targets=(plan step sampler weights)
js_targets=(safetensors gguf config tokenizer chat-template http-body)
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=("${native_targets[@]}" "${js_targets[@]}")

./prepare.sh
root=$(cd .. && pwd)
work=$PWD/.work
has() { [[ " ${targets[*]} " == *" $1 "* ]]; }

for target in "${native_targets[@]}"; do
  has "$target" || continue
  clang=$(command -v clang++-19 || command -v clang++)
  cmake -S "$root/packages/backend-cpu/native" -B .work/native -DCMAKE_CXX_COMPILER="$clang" -DTENON_FUZZ=ON > /dev/null
  cmake --build .work/native --target fuzzers > .work/native.log 2>&1 || { cat .work/native.log >&2; exit 1; }
  break
done
for target in "${js_targets[@]}"; do
  has "$target" || continue
  cp "$root/packages/core/package.json" .work/ # where the bundles look for the version
  "$root/node_modules/.bin/tsup" --silent > .work/js.log 2>&1 || { cat .work/js.log >&2; exit 1; }
  break
done

# Prints the program of a target and its first arguments, one a line.
command_of() {
  case $1 in
    plan | step | sampler | weights) echo "$work/native/fuzz/$1_fuzz" ;;
    safetensors | http-body)
      printf '%s\n' node "$work/jazzer/node_modules/@jazzer.js/core/dist/cli.js" "$work/js/$1.cjs" -i "$work/js" ;;
    *) printf '%s\n' node "$work/jazzer/node_modules/@jazzer.js/core/dist/cli.js" "$work/js/$1.cjs" --sync -i "$work/js" ;;
  esac
}

printf '%-14s %10s %9s %8s %8s  %s\n' target cases cases/s first last findings
total=0
failed=0
for target in "${targets[@]}"; do
  mapfile -t command < <(command_of "$target")
  [ "${command[0]}" = node ] && separator=(--) || separator=()
  dictionary=()
  [ -f "dictionaries/$target.dict" ] && dictionary=("-dict=$PWD/dictionaries/$target.dict")
  mkdir -p "$work/corpus/$target" "$work/found/$target"
  log=$work/found/$target.log
  (cd "$work/found/$target" && FUZZ_FIXTURES="$root/packages/core/tests/fixtures" NODE_OPTIONS=--max-old-space-size=1500 \
    "${command[@]}" "$work/corpus/$target" "${separator[@]}" -max_total_time="$seconds" -print_final_stats=1 -timeout=20 \
    -rss_limit_mb=3000 -max_len="$([ "$target" = plan ] || [ "$target" = step ] && echo 4096 || echo 800)" \
    "${dictionary[@]}") > "$log" 2>&1 || failed=1
  cases=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
  first=$(grep -oP 'INITED cov: \K\d+' "$log" | head -1 || true)
  last=$(grep -oP 'cov: \K\d+' "$log" | tail -1 || true)
  found=$(find "$work/found/$target" -type f | wc -l)
  printf '%-14s %10s %9s %8s %8s  %s\n' "$target" "${cases:-?}" "$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")" \
    "${first:-?}" "${last:-?}" "$found"
  total=$((total + ${cases:-0}))
done
echo "$total cases; logs and inputs: fuzz/.work/found"
exit "$failed"

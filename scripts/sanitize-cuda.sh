#!/bin/bash
# scripts/sanitize-cuda.sh [cases of each op] [tool…]: the op cases of the conformance kit (level 2), and the programs of two model families
# (level 3), on the CUDA backend under NVIDIA's compute-sanitizer: memcheck, racecheck, initcheck and synccheck, or those that are named.
# Ops run side by side. Prints a row for each tool and each finding; ends with 1 where there is a finding, where a command fails or has not ended
# in time, or where a tool does not see the mistake that is made for it (native/bench/faulty.cu).
# Environment:
#   TENON       the command, by default `npx tenon`; run in the folder that the script is called in
#   CONFORM     its further arguments, by default `--plugin <this repository>/packages/backend-cuda`
#   FAULTY      faulty.cu, compiled; by default it is compiled by nvcc
#   RUN_SECONDS how long the cases of an op may take, by default 600
#   JOBS        runs at the same time, by default half of the processors
#   LOGS        where logs are kept, by default a new folder in /tmp
set -uo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
sample=${1:-3}
shift || true
tools=("$@")
[ $# -gt 0 ] || tools=(memcheck racecheck initcheck synccheck)
read -ra tenon <<< "${TENON:-npx tenon}"
read -ra conform <<< "${CONFORM---plugin $root/packages/backend-cuda}"
jobs=${JOBS:-$((($(nproc) + 1) / 2))}
logs=${LOGS:-$(mktemp -d)}
mkdir -p "$logs"
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)
if [ ! -x "$sanitizer" ]; then
  echo "needs compute-sanitizer, which comes with the CUDA toolkit" >&2
  exit 2
fi
faulty=${FAULTY:-$logs/faulty}
[ -x "$faulty" ] || nvcc -std=c++20 -arch=native "$root/packages/backend-cuda/native/bench/faulty.cu" -o "$faulty" || exit 2

ops=(add attention embedding gated_act gather_rows kv_write linear linear_add linear_gated qkv_rope_kv_write rms_norm rope rope_cos_sin sample)
subjects=("${ops[@]}" llama qwen3)

# The number of findings in the logs of a run; nothing where a tool has not come to its end.
findings() { # log names…
  grep -hoP '(ERROR SUMMARY: |RACECHECK SUMMARY: )\K\d+' "$@" 2> /dev/null | awk '{ sum += $1 } END { if (NR > 0) print sum }'
}
first_finding() { # log names…
  grep -hP '^========= ' "$@" 2> /dev/null | grep -vP 'COMPUTE-SANITIZER|SUMMARY|Internal Sanitizer Error|^=+ *$' | head -3 | sed 's/^=* *//' | paste -sd' '
}

# Launches that a tool could not follow, for lack of shared memory beside the kernel's own: findings in them are not seen.
untracked() { # log names…
  grep -h 'Internal Sanitizer Error' "$@" 2> /dev/null | wc -l
}

# tool and subject; leaves its logs.
run_cases() {
  local tool=$1 subject=$2 start=$SECONDS
  local cases=(--level 2-2 --op "$subject" --sample "$sample")
  [[ " ${ops[*]} " == *" $subject "* ]] || cases=(--case "L3/$subject/*" --sample "$((3 * sample))")
  timeout -k 5 "${RUN_SECONDS:-600}" "$sanitizer" --tool "$tool" --target-processes all --log-file "$logs/$tool-$subject-%p.log" --print-limit 5 \
    "${tenon[@]}" conform --backend cuda "${conform[@]}" "${cases[@]}" > "$logs/$tool-$subject.txt" 2>&1 &
  echo $! > "$logs/$tool-$subject.pid"
  wait $!
  echo "$? $((SECONDS - start))" > "$logs/$tool-$subject.end"
  rm "$logs/$tool-$subject.pid"
}

# A row for each tool, and what is to be said of its runs; of those that were not run or ended, too.
table() {
  local failed=0
  printf '%-10s %7s %6s %9s %9s %7s\n' tool 'sees it' cases findings untracked slowest
  for tool in "${tools[@]}"; do
    seen=no
    [ "$(findings "$logs/$tool-faulty"-*.log)" -gt 0 ] 2> /dev/null && seen=yes
    [ "$seen" = yes ] || failed=1
    total=0 found_by_all=0 slowest=0 lines=()
    for subject in "${subjects[@]}"; do
      read -r status seconds 2> /dev/null < "$logs/$tool-$subject.end" || { status=124 seconds=0; }
      cases=$(grep -oP '^[23] (ops|programs) +\K\d+' "$logs/$tool-$subject.txt" 2> /dev/null || echo 0)
      found=$(findings "$logs/$tool-$subject"-[0-9]*.log)
      total=$((total + cases)) found_by_all=$((found_by_all + ${found:-0}))
      [ "$seconds" -gt "$slowest" ] && slowest=$seconds
      [ "$status" = 0 ] && [ "$cases" -gt 0 ] && [ "${found:-1}" = 0 ] && continue
      failed=1
      if [ "$status" -ge 124 ]; then lines+=("  $subject: no answer in $seconds s $(first_finding "$logs/$tool-$subject"-[0-9]*.log)")
      elif [ "${found:-0}" != 0 ]; then lines+=("  $subject: $(first_finding "$logs/$tool-$subject"-[0-9]*.log)")
      elif [ "$status" = 0 ]; then lines+=("  $subject: none of its $sample cases is for this device; take more")
      else lines+=("  $subject: ended with $status: $(tail -1 "$logs/$tool-$subject.txt")"); fi
    done
    printf '%-10s %7s %6d %9d %9d %5d s\n' "$tool" "$seen" "$total" "$found_by_all" "$(untracked "$logs/$tool"-*.log)" "$slowest"
    [ ${#lines[@]} -eq 0 ] || printf '%s\n' "${lines[@]}"
  done
  echo "logs: $logs"
  return "$failed"
}

end() {
  cat "$logs"/*.pid 2> /dev/null | xargs -r kill
  table
  exit 1
}
trap end TERM INT
for tool in "${tools[@]}"; do
  # in a child, as the cases are
  "$sanitizer" --tool "$tool" --target-processes all --log-file "$logs/$tool-faulty-%p.log" bash -c '"$0" "$1"; true' "$faulty" "$tool" > /dev/null 2>&1 &
  for subject in "${subjects[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
    run_cases "$tool" "$subject" &
  done
done
wait

table

#!/bin/bash
# fuzz/http.sh [cases per operation]: a server with the embedded model under schemathesis, which makes requests from
# /openapi.json, valid and not, and checks statuses, content types and the shape of the answers. The server must be built.
set -euo pipefail
cd "$(dirname "$0")"
cases=${1:-300}
./prepare.sh
root=$(cd .. && pwd)
log=$PWD/.work/server.log

node "$root/packages/core/bin/tenon.js" serve --port 0 --max-model-len 256 --max-num-seqs 8 > "$log" 2>&1 &
server=$!
trap 'kill $server 2> /dev/null; wait $server 2> /dev/null || true' EXIT
for _ in $(seq 100); do
  url=$(grep -oE 'http://127.0.0.1:[0-9]+' "$log" | head -1 || true)
  [ -n "$url" ] && curl -fs "$url/health" > /dev/null && break
  sleep 0.2
done

# Not checked: requests that the schema forbids must fail (fields we do not know are ignored, as vLLM does), and statuses of
# unsupported methods (tested in tests/server).
failed=0
cd .work # where it keeps what it found
schemathesis/bin/schemathesis run "$url/openapi.json" --max-examples "$cases" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
  --request-timeout 20 --workers 1 --continue-on-failure --no-color || failed=1
curl -fs "$url/health" > /dev/null || { echo 'the server is not healthy'; failed=1; }
exit "$failed"

#!/bin/sh
# Random JSON Schemas: no valid instance refused, no invalid one accepted, as python3-jsonschema, re
# and decimal say (tests/schemas.py). Needs python3-jsonschema and build/bench_mask; COUNT=300,
# SEED=1.
BUILD=${BUILD:-build} DATA=${DATA:-../shared/data} COUNT=${COUNT:-300} SEED=${SEED:-1}
vocabulary=$DATA/models/stories260K/stories260K.gguf
python=python3
$python -c "import jsonschema" 2>/dev/null || python=/usr/bin/python3
if [ ! -f "$vocabulary" ] || [ ! -x "$BUILD/bench_mask" ] ||
    ! $python -c "import jsonschema" 2>/dev/null; then
    echo "0 passed, 0 failed, $COUNT skipped"
    exit 0
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
failed=0 passed=0
for kind in schemas patterns numbers; do
    $python "$(dirname "$0")/schemas.py" $kind "$SEED" "$COUNT" >"$dir/$kind.jsonl" || failed=1
    $RUNNER "$BUILD/bench_mask" -v "$vocabulary" "$dir/$kind.jsonl" >"$dir/log"
    grep -a "valid instance \(refused\|accepted\)" "$dir/log"
    failed=$((failed + $(grep -a -c "valid instance \(refused\|accepted\)" "$dir/log")))
    compiled=$(sed -n 's/^compiled: \([0-9]*\) of.*/\1/p' "$dir/log")
    passed=$((passed + ${compiled:-0}))
    [ "${compiled:-0}" -gt $((COUNT / 2)) ] || failed=$((failed + 1))
done
echo "$passed passed, $failed failed, 0 skipped"
[ "$failed" = 0 ]

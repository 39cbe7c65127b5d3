#!/bin/sh
# 1,000 generations of a trained model under a JSON Schema, each with a seed of its own: every text
# is JSON and valid, by Python's own parser and the schema's rules in plain words. Needs python3 and
# build/generate; SEEDS=1000.
BUILD=${BUILD:-build} DATA=${DATA:-../shared/data} SEEDS=${SEEDS:-1000}
model=$DATA/models/stories260K/stories260K.gguf
if [ ! -f "$model" ] || [ ! -x "$BUILD/generate" ]; then
    echo "0 passed, 0 failed, $SEEDS skipped"
    exit 0
fi
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
cat >"$dir/schema.json" <<'S'
{"type": "object", "additionalProperties": false, "required": ["name", "age"], "properties": {
  "name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0,
  "maximum": 120}, "tags": {"type": "array", "maxItems": 3, "items": {"enum": ["a", "b"]}}}}
S
seed=0
while [ "$seed" -lt "$SEEDS" ]; do
    $RUNNER "$BUILD/generate" -m "$model" -p "Once upon a time" --schema "$dir/schema.json" \
        --temp 1.2 --seed "$seed" -n 400 --threads 1 >"$dir/$seed.txt" 2>"$dir/log"
    seed=$((seed + 1))
done
python3 - "$dir" "$SEEDS" <<'P'
import json, sys
good = 0
for seed in range(int(sys.argv[2])):
    text = open(f"{sys.argv[1]}/{seed}.txt", encoding="utf-8").read()
    try:
        v = json.loads(text)
        age = v["age"]
        ok = set(v) <= {"name", "age", "tags"} and len(v["name"]) <= 12
        ok = ok and age == int(age) and 0 <= age <= 120 and len(v.get("tags", [])) <= 3
        ok = ok and all(t in ("a", "b") for t in v.get("tags", []))
    except Exception as why:
        ok = False
        print(why)
    if not ok:
        print(f"seed {seed}: {text!r}")
    good += ok
print(f"{good} passed, {int(sys.argv[2]) - good} failed, 0 skipped")
sys.exit(good != int(sys.argv[2]))
P

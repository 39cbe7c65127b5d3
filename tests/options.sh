#!/bin/sh
# options.sh - every option of sampling on generate's command line changes what is said, and a bad
# value is refused. With the model that comes along; run it from the top of the tree.
: "${BUILD:=build}" "${MODEL:=examples/tavern.gguf}"
passed=0 failed=0

say() { # OPTIONS: what the model says
    "$BUILD/generate" -m "$MODEL" -n 50 --threads 1 -p 'Guest: Good evening. Guest: Good' "$@" \
        2>/dev/null
}

differs() { # "the options of both runs" option value...
    common=$1
    shift
    # shellcheck disable=SC2086
    if [ "$(say $common)" != "$(say $common "$@")" ]; then passed=$((passed + 1))
    else failed=$((failed + 1)); echo "options.sh: $* changes nothing beside $common"; fi
}

refused() {
    if say "$@" >/dev/null; then failed=$((failed + 1)); echo "options.sh: $* was taken"
    else passed=$((passed + 1)); fi
}

differs "" --temp 2
differs "--temp 1.5" --seed 7
differs "--temp 1" --dynatemp-range 0.9
differs "--temp 1 --dynatemp-range 0.9" --dynatemp-exp 0.1
differs "--temp 2" --top-k 2
differs "--temp 2" --top-p 0.4
differs "--temp 2" --min-p 0.3
differs "--temp 2" --typical 0.4
differs "--temp 2" --top-nsigma 0.5
differs "--temp 2 --top-p 0.2" --min-keep 50
differs "--temp 1 --xtc-threshold 0.05" --xtc-probability 1
differs "--temp 1 --xtc-probability 1" --xtc-threshold 0.01
differs "--temp 2" --mirostat 1
differs "--temp 2" --mirostat 2
differs "--temp 2 --mirostat 2" --mirostat-ent 1
differs "--temp 2 --mirostat 2" --mirostat-lr 2
differs "--ctx 40" --shift 4
differs "--ctx 40 --shift 1" --shift 20
differs "" --repeat-penalty 1.8
differs "--repeat-penalty 1.8" --repeat-last-n 3
differs "" --presence-penalty 6
differs "" --frequency-penalty 6
differs "" --dry-multiplier 30
differs "--dry-multiplier 0.001 --dry-allowed-length 1 --dry-sequence-breaker none" --dry-base 999
differs "--dry-multiplier 30" --dry-allowed-length 1
differs "--dry-multiplier 30 --dry-allowed-length 1" --dry-penalty-last-n 5
differs "--dry-multiplier 30 --dry-allowed-length 1" --dry-sequence-breaker none
differs "--dry-multiplier 30 --dry-allowed-length 1 --dry-sequence-breaker none" \
    --dry-sequence-breaker ' '
differs "" --logit-bias 100+50
differs "--temp 2 --top-k 2" --samplers "min_p;temperature"
differs "" --logprobs 3
differs "" --stop e
refused --temp nan
refused --temp -1
refused --top-k -3
refused --top-p 1.5
refused --logit-bias 5
refused --logit-bias 5+nan
refused --logit-bias 1000000+1
refused --samplers "top_k;nothing"
refused --mirostat 3
refused --stop ""
refused --dry-sequence-breaker ""
refused --logprobs 33
refused --ctx 40 --shift 40
echo "$passed passed, $failed failed, 0 skipped"
[ $failed -eq 0 ]

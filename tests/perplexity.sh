#!/bin/sh
# perplexity.sh - build/perplexity on the model that comes along: low for scenes like those that it
# learned from, high for the same words in another order; the same on any number of threads and at
# every level; clear errors. Run by `make test`, from the top of the tree. (tests/parity.sh compares
# the figure with llama.cpp's.)
: "${BUILD:=build}" "${RUNNER:=}"
dir=$BUILD/perplexity-test
rm -rf "$dir"
mkdir -p "$dir" || exit 1
n_pass=0 n_fail=0
result() { # NAME 0|1
    if [ "$2" = 0 ]; then n_pass=$((n_pass + 1)) && echo "pass  perplexity: $1"
    else
        n_fail=$((n_fail + 1))
        echo "FAIL  perplexity: $1"
        tail -n 5 "$dir/out" | sed 's/^/        /'
    fi
}
of() { # OPTIONS...: writes out
    # shellcheck disable=SC2086
    $RUNNER "$BUILD/perplexity" -m examples/tavern.gguf "$@" >"$dir/out" 2>"$dir/errors"
}
between() { awk -v low="$1" -v high="$2" '{ exit !($2 > low && $2 < high) }' "$dir/out"; }

# shellcheck disable=SC2086
$RUNNER "$BUILD/tavern_corpus" --scenes 30 --seed 1 --held-out >"$dir/held" || exit 1
tr ' ' '\n' <"$dir/held" | LC_ALL=C sort | tr '\n' ' ' >"$dir/mixed"

of -f "$dir/held" -n 12 && between 1.5 2.5 && grep -q '(1524 ids, windows of 256)' "$dir/out"
result "scenes that it has not seen: $(cut -d' ' -f2 "$dir/out")" $?
cp "$dir/out" "$dir/first"
of -f "$dir/mixed" -n 12 && between 50 100000
result "their words in another order: $(cut -d' ' -f2 "$dir/out")" $?

of -f "$dir/held" -n 12 --kv q8_0,q4_0 && between 1.5 2.5 && ! cmp -s "$dir/out" "$dir/first"
result "keys in Q8_0, values in Q4_0: $(cut -d' ' -f2 "$dir/out")" $?

same=0
for options in "-t 1" "-t 3" "--isa scalar -n 2" "-n 2"; do
    # shellcheck disable=SC2086
    of -f "$dir/held" -n 12 $options || same=1
    case $options in
    --isa*) mv "$dir/out" "$dir/scalar" ;;
    "-n 2") cmp "$dir/out" "$dir/scalar" >&2 || same=1 ;;
    *) cmp "$dir/out" "$dir/first" >&2 || same=1 ;;
    esac
done
result "the same on any number of threads, at any level" $same

printf 'a few words' >"$dir/short"
: >"$dir/empty"
refused=0
for options in "-f $dir/none" "-f $dir/empty" "-f $dir/short" "-f $dir" "-f $dir/held -c 3" \
    "-f $dir/held --kv q4_k" "-f $dir/held --kv f16," "-f $dir/held --kv ,f16" \
    "-f $dir/held --frob" "-f $dir/held -c 100000000" ""; do
    # shellcheck disable=SC2086
    of $options
    status=$?
    if [ $status = 0 ] || [ $status -gt 2 ] || [ ! -s "$dir/errors" ] || [ -s "$dir/out" ]; then
        echo "\"$options\": status $status" >>"$dir/out"
        refused=1
    fi
done
result "bad input is refused" $refused

echo "$n_pass passed, $n_fail failed, 0 skipped"
[ "$n_fail" = 0 ]

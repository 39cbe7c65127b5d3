#!/bin/bash
# train.sh - what build/train promises: the same bytes on any number of threads, after kill -9 at
# any moment and after Ctrl-C; old files that survive a full disk; clear errors. Run by `make test`,
# from the top of the tree. The text comes from build/tavern_corpus. KILLS=20 is how often.
: "${BUILD:=build}" "${RUNNER:=}" "${KILLS:=20}"
dir=$BUILD/train-test
rm -rf "$dir"
mkdir -p "$dir" || exit 1
n_pass=0 n_fail=0 n_skip=0
pass() { n_pass=$((n_pass + 1)) && echo "pass  train: $1"; }
skip() { n_skip=$((n_skip + 1)) && echo "skip  train: $1"; }
fail() { # NAME FILE: with the end of the file
    n_fail=$((n_fail + 1))
    echo "FAIL  train: $1"
    tail -n 8 "$2" | sed 's/^/        /'
}
# shellcheck disable=SC2086
$RUNNER "$BUILD/tavern_corpus" --scenes 60 --seed 3 --end '<|end|>' >"$dir/text" || exit 1

small=(--data "$dir/text" --vocab 300 --end '<|end|>' --layers 2 --heads 2 --dim 32 --context 48
    --batch 4 --steps 60 --eval 20 --save 4 --sample 1000000 --dropout 0.1 --seed 7)
start() { # OUT OPTIONS...: becomes the program
    local out=$1
    shift
    # shellcheck disable=SC2086
    exec $RUNNER "$BUILD/train" "${small[@]}" --out "$dir/$out.gguf" "$@" >>"$dir/$out.log" 2>&1
}
run() { (start "$@"); }
same() { # NAME OUT: the files of OUT are those of `whole`, bit by bit
    if cmp "$dir/whole.gguf" "$dir/$2.gguf" >>"$dir/$2.log" 2>&1 &&
        cmp "$dir/whole.gguf.state" "$dir/$2.gguf.state" >>"$dir/$2.log" 2>&1 &&
        cmp "$dir/whole.gguf.csv" "$dir/$2.gguf.csv" >>"$dir/$2.log" 2>&1; then
        pass "$1"
    else fail "$1" "$dir/$2.log"; fi
}

# --- what it makes -------------------------------------------------------------------------------

if run whole --threads 1 && grep -q '<svg' "$dir/whole.gguf.svg" &&
    [ "$(grep -c , "$dir/whole.gguf.csv")" = 31 ]; then pass "a run"
else fail "a run" "$dir/whole.log"; fi
first=$(sed -n 2p "$dir/whole.gguf.csv" | cut -d, -f2)
last=$(tail -n 1 "$dir/whole.gguf.csv" | cut -d, -f3)
if awk "BEGIN { exit !($first > 5.3 && $first < 6.1 && $last < $first - 0.5) }"; then
    pass "the loss begins near ln(300) and falls: $first, $last"
else fail "the loss: $first, $last" "$dir/whole.gguf.csv"; fi
# shellcheck disable=SC2086
if [ -n "$($RUNNER "$BUILD/generate" -m "$dir/whole.gguf" -p 'Scene: ' -n 20 2>"$dir/generate")" ]
then pass "the model speaks"; else fail "the model speaks" "$dir/generate"; fi
run three --threads 3
same "three threads give the same bytes" three

# --- interrupted ---------------------------------------------------------------------------------

RANDOM=11 n_kills=0
while [ "$n_kills" -lt "$KILLS" ]; do
    start killed --threads 1 $([ -f "$dir/killed.gguf.state" ] && echo --resume) &
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    kill -9 $! 2>/dev/null
    wait $! 2>/dev/null
    n_kills=$((n_kills + 1))
done
run killed --threads 2 $([ -f "$dir/killed.gguf.state" ] && echo --resume)
same "killed $KILLS times, resumed" killed
if ls "$dir"/*.tmp >/dev/null 2>&1; then rm -f "$dir"/*.tmp; fi # of what was killed

start asked &
for _ in $(seq 100); do [ -f "$dir/asked.gguf.state" ] || sleep 0.1; done
kill -TERM $! # a shell's background jobs ignore Ctrl-C
wait $!
run asked --resume
same "asked to stop, resumed" asked

run early --patience 1 --rate 3 --schedule constant --eval 3
if grep -q 'no better one' "$dir/early.log"; then pass "stops early"
else fail "stops early" "$dir/early.log"; fi

# --- no room -------------------------------------------------------------------------------------

cp "$dir/whole.gguf" "$dir/full.gguf"
cp "$dir/whole.gguf.state" "$dir/full.gguf.state"
(
    trap '' XFSZ
    ulimit -f 8 # blocks of 1,024 bytes: only the losses fit
    run full --rate 0.003
)
if [ "$(grep -c 'was not written' "$dir/full.log")" -ge 3 ] &&
    ! ls "$dir"/full*.tmp 2>/dev/null; then
    cp "$dir/whole.gguf.csv" "$dir/full.gguf.csv"
    same "no room: an error, and the old files" full
else fail "no room: an error" "$dir/full.log"; fi
disk=$dir/disk
mkdir -p "$disk"
if mount -t tmpfs -o size=100k none "$disk" 2>/dev/null; then
    cp "$dir/whole.gguf" "$disk/old"
    run disk/full --rate 0.003
    if [ ! -f "$disk/full.gguf.state" ] && cmp "$dir/whole.gguf" "$disk/old" 2>/dev/null &&
        [ "$(grep -c 'was not written' "$dir/disk/full.log" 2>/dev/null)" != 0 ]; then
        pass "a full disk: an error, no half file"
    else fail "a full disk" "$dir/disk/full.log"; fi
    umount "$disk"
else skip "a full disk: no tmpfs can be mounted here"; fi

# --- bad input -----------------------------------------------------------------------------------

refuses() { # NAME MESSAGE OPTIONS...
    local name=$1 message=$2
    shift 2
    rm -f "$dir/bad.log"
    if run bad "$@"; then fail "$name: it ran" "$dir/bad.log"
    elif grep -q "$message" "$dir/bad.log"; then pass "$name"
    else fail "$name" "$dir/bad.log"; fi
}
: >"$dir/empty"
printf x >"$dir/one"
head -c 3000 "$dir/text" >"$dir/short"
refuses "no such text" 'cannot be read' --data "$dir/none"
refuses "an empty text" 'no text in it' --data "$dir/empty"
refuses "a text of one byte" 'shorter than a window' --data "$dir/one" --vocab 0
refuses "a text shorter than a window" 'shorter than a window' --data "$dir/short" --context 4000
refuses "a vocabulary that is too small" 'vocabulary' --vocab 100
refuses "heads that do not divide" 'head' --heads 4 --kv-heads 3
refuses "an unknown type" 'what type' --type Q9
refuses "a rate that is no number" 'wants a number' --rate fast
refuses "nothing to resume" 'nothing to go on from' --resume
cp "$dir/whole.gguf.state" "$dir/bad.gguf.state"
refuses "a state of another text" 'another text' --resume --data "$dir/short" --context 16
refuses "a state of another shape" 'another shape' --resume --layers 1
size=$(wc -c <"$dir/bad.gguf.state")
printf '\377' | dd of="$dir/bad.gguf.state" bs=1 seek=$((size - 5000)) conv=notrunc 2>/dev/null
refuses "a damaged state" 'damaged' --resume
head -c $((size / 2)) "$dir/whole.gguf.state" >"$dir/bad.gguf.state"
refuses "half a state" 'nothing to go on from' --resume
refuses "weights that become infinite" 'finite' --rate 1e3 --sgd --clip 0 --warmup 0 --steps 200

echo "$n_pass passed, $n_fail failed, $n_skip skipped"
[ "$n_fail" = 0 ]

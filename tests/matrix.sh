#!/bin/bash
# matrix.sh matrix|san|fuzz - runs many builds ("cells"), JOBS at a time; each has its own folder
# and log under build/. A cell passes, fails, or is skipped because a tool or the time is missing
# (UNTIL: the second of the epoch after which none begins); the last line counts them. `make
# matrix`, `make san` and `make fuzz` call it, from the top of the tree. A second argument runs only
# the cells whose name contains it.
what=$1 only=${2-}
: "${CC:=cc}" "${DATA:=../shared/data}" "${RUNS:=20000}" "${FILTER:=}"
: "${JOBS:=$(nproc 2>/dev/null || echo 2)}"
# One cell may not take the whole time that there is.
: "${CELL_SECONDS:=1500}"
out=build/$what
mkdir -p "$out"
rm -f "$out"/*.result

# A cell takes a byte out of a pipe and puts it back at its end: POOL is the pipe of a caller that
# has other jobs, too.
if [ -z "${POOL-}" ]; then
    POOL=$out/pool
    rm -f "$POOL"
    mkfifo "$POOL" && exec 9<>"$POOL" && printf "%${JOBS}s" '' >&9
else exec 9<>"$POOL"; fi

show() { # pass|fail|skip NAME REMARK
    echo "$1" >"$out/$2.result"
    printf '%-5s %-34s %s\n' "$1" "$2" "$3"
}

run_cell() {
    local name=$1 start=$SECONDS
    shift
    if timeout "$CELL_SECONDS" "$@" >"$out/$name.log" 2>&1 </dev/null; then
        show pass "$name" "$((SECONDS - start)) s"
    else
        show fail "$name" "$((SECONDS - start)) s, the end of $out/$name.log:"
        tail -n 25 "$out/$name.log" | sed 's/^/      /'
    fi
}

wanted() { [ -z "$only" ] || [[ $1 == *"$only"* ]]; }

cell() { # NAME COMMAND...
    wanted "$1" || return 0
    read -rN1 -u9
    if [ -n "${UNTIL-}" ] && [ "$(date +%s)" -gt "$UNTIL" ]; then
        show skip "$1" "no time is left"
        printf . >&9
        return
    fi
    { # AFTER: the cell whose end this one waits for
        while [ -n "${AFTER-}" ] && wanted "$AFTER" && [ ! -f "$out/$AFTER.result" ]; do
            sleep 1
        done
        run_cell "$@"
        printf . >&9
    } &
}

skip() { ! wanted "$1" || show skip "$1" "$2"; }

have() { command -v "${1%% *}" >/dev/null; }

links() { # COMPILER FLAGS...: can it build and link a program with these flags?
    printf '#include <stdio.h>\nint main(void) { return 0; }\n' |
        "$@" -x c - -o "$out/probe.$$" >/dev/null 2>&1
}

unit() { # NAME MAKE-ARGUMENTS...: the tests, built their own way
    local name=$1
    shift
    cell "$name" make --no-print-directory unit BUILD="$out/$name" DATA="$DATA" "$@"
}

warnings="-Wall -Wextra -Wconversion -Wshadow -Werror"
strict="-pedantic $warnings"

# The implementation alone, as a user's file would have it.
implementation() { # NAME COMPILER FLAGS...
    local name=$1 compiler=$2
    shift 2
    if ! have "$compiler"; then skip "$name" "no $compiler"; return; fi
    cell "$name" "$compiler" -I. "$@" -c "$out/implementation.c" -o "$out/$name.o"
}

unoptimised="golden memory: files: tokenizer: model: kv: gen: convert:"
# What depends on the level of kernels, or on what a compiler makes of them.
levels="kernels: golden numbers eval: kv: gen: train: lora:"
# The same where there is one level only: the ways that give the same bits, all other cells take.
lone_level="kernels: golden numbers gen: 'train: gradients of every'"
# The products in which ARM64's processors differ.
products="'matmul q8_0,' 'matmul q3_k,' 'matmul iq4_xs,' 'families: the bits'"

# clang's front end gives all of its warnings, gcc's those that need no code: its cells with -O1 and
# -O2 show the others. What clang makes of the code, tests-clang-O2 shows.
look="-fsyntax-only"

emulated() { # LEVEL FLAG: of the processor that has the real one
    if grep -qw "$2" /proc/cpuinfo 2>/dev/null; then skip "tests-$1-emulated" "the real one is here"
    elif [ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
        unit "tests-$1-emulated" CC="$CC" EMULATE="$1" WERROR=-Werror FILTER="$levels"
    else skip "tests-$1-emulated" "no x86_64 with AVX2"; fi
}

arm64() { # NAME MAKE-ARGUMENTS...: under emulation, which is slow
    local name=arm64-$1
    shift
    if ! have aarch64-linux-gnu-gcc; then skip "$name" "no aarch64-linux-gnu-gcc"
    elif ! have qemu-aarch64; then skip "$name" "no qemu-aarch64"
    else unit "$name" CC=aarch64-linux-gnu-gcc LDFLAGS=-static RUNNER=qemu-aarch64 "$@"; fi
}
on_arm64() { # PROCESSOR FILTER: of the program of arm64-build
    AFTER=arm64-build arm64 "$1" BUILD="$out/arm64" RUNNER="qemu-aarch64 -cpu $1" FILTER="$2"
}

tests_of() { # COMPILER FLAGS
    local name=tests-$1${2%% *}
    if ! have "$1"; then skip "$name" "no $1"; return; fi
    case $2 in
    # -O3 warns of what cannot happen; the other cells hold the header to no warning.
    -O3*) unit "$name-fast-native" CC="$1" OPT="$2" ;;
    # All is compiled; what computes most takes four times as long as in the other cells.
    -O0) unit "$name" CC="$1" OPT="$2" WERROR=-Werror FILTER="$unoptimised" ;;
    *) unit "$name" CC="$1" OPT="$2" WERROR=-Werror ;;
    esac
}

# What takes long comes first, so that no core is idle at the end.
matrix() {
    local c s flag
    printf '#define SMALLMIND_IMPLEMENTATION\n#include "smallmind.h"\n' >"$out/implementation.c"
    arm64 build BUILD="$out/arm64" FILTER=--list
    if links i686-linux-gnu-gcc -static; then
        if "$out/probe.$$"; then
            unit tests-32bit CC=i686-linux-gnu-gcc OPT="-O2 -msse2 -mfpmath=sse" LDFLAGS=-static
        else skip tests-32bit "32-bit programs do not run here"; fi
        # shellcheck disable=SC2086
        implementation 32bit i686-linux-gnu-gcc -std=c99 $look -msse2 -mfpmath=sse $strict
    else skip 32bit "no i686-linux-gnu-gcc with a libc"; fi
    tests_of gcc "-O3 -ffast-math -march=native"
    # QEMU_FILTER= takes all tests.
    on_arm64 max "${QEMU_FILTER-kernels: 'train: bits do not depend on the level'}"
    tests_of clang "-O3 -ffast-math -march=native"
    tests_of clang -O2 # gcc's is what `make test` runs
    arm64 fast OPT="-O3 -ffast-math" FILTER=golden
    AFTER=arm64-build arm64 golden BUILD="$out/arm64" FILTER=golden
    # The kernels are as in the cells above.
    if have g++; then unit tests-g++-c++17 CC=g++ STD=c++17 FILTER="$unoptimised write: numbers"
    else skip tests-g++-c++17 "no g++"; fi
    tests_of gcc -O0 # clang's takes long, and shows the same
    # These have no smmla, the first of them no sdot either, which some products use.
    on_arm64 cortex-a72 "$products"
    on_arm64 neoverse-n1 "$products"
    # All levels run in every cell above; alone, the plain one.
    unit tests-scalar CC="$CC" ISA=scalar FILTER="$lone_level"
    # For the many processors that lack them; on the others all cells run the real ones.
    emulated avx512 avx512_vnni
    emulated avxvnni avx_vnni
    emulated amx amx_bf16

    for c in gcc clang g++; do # every program, with every warning
        if ! have $c; then skip "programs-$c" "no $c"; continue; fi
        s=c99
        [ $c = g++ ] && s=c++11
        # The implementation has cells of its own: here without its larger levels.
        cell "programs-$c" make --no-print-directory all BUILD="$out/programs-$c" CC=$c STD=$s \
            OPT=-O0 WERROR=-Werror CFLAGS=-DSMALLMIND_NO_AVX2
    done
    # shellcheck disable=SC2086
    implementation windows x86_64-w64-mingw32-gcc -std=c99 -O1 $warnings
    # shellcheck disable=SC2086
    implementation gcc-least gcc -std=c99 -O1 $strict -DSMALLMIND_NO_TRAIN -DSMALLMIND_NO_WRITER \
        -DSMALLMIND_NO_GRAMMAR -DSMALLMIND_NO_CHAT -DSMALLMIND_NO_STDIO \
        -DSMALLMIND_NO_THREADS -DSMALLMIND_NO_AVX512
    # shellcheck disable=SC2046,SC2086
    for c in gcc clang; do
        for s in c99 c11 c2x; do
            implementation "$c-$s" $c -std=$s $([ $c$s = gccc99 ] && echo -O2 || echo $look) $strict
        done
        for flag in STATIC NO_THREADS NO_STDIO NO_WRITER NO_TRAIN NO_GRAMMAR NO_CHAT NO_AMX \
            NO_AVX512 NO_AVX2 NO_SSE41 NO_NEON; do
            implementation "$c-$flag" $c -std=c99 $look $strict -DSMALLMIND_$flag
        done
    done
    # shellcheck disable=SC2046,SC2086
    for c in g++ clang++; do
        for s in c++11 c++17 c++20; do
            implementation "$c-$s" $c -x c++ -std=$s \
                $([ $c$s = g++c++11 ] && echo -O1 || echo $look) \
                $warnings -fno-exceptions -fno-rtti
        done
    done
}

# The first compiler of those given that can link with a sanitizer.
sanitizing() { # FLAG
    local c
    for c in "$CC" clang gcc; do
        # shellcheck disable=SC2086
        if have "$c" && links $c "$1"; then echo "$c"; return; fi
    done
    return 1
}

san() {
    local c runner=
    export ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=1
    export UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
    if c=$(sanitizing -fsanitize=address,undefined); then
        # Without AVX-512, whose kernels run between guard pages in every other cell.
        unit address-undefined CC="$c" OPT=-O1 SAN=address,undefined ISA=avx2 FILTER="$FILTER"
    else skip address-undefined "no compiler with ASan and UBSan"; fi
    if c=$(sanitizing -fsanitize=thread); then
        # Where addresses are randomised too widely for TSan's map, it cannot start.
        setarch -R true 2>/dev/null && runner="setarch -R"
        # Only what has threads: alone, the other tests would take ten times as long for nothing.
        unit thread CC="$c" OPT=-O1 SAN=thread ISA=avx2 RUNNER="$runner" \
            FILTER="${FILTER:-thread team jobs budget cancel memory: kv: gen:}"
    else skip thread "no compiler with TSan"; fi
}

fuzz_one() { # FILE NAME
    local seeds=() most=65536
    # Good and bad files to start from; libFuzzer writes what it finds into the first folder.
    mkdir -p "$out/corpus-$2"
    case $2 in
    fuzz_gguf*) [ -d "$DATA/gguf-bad" ] && seeds=("$DATA/gguf-bad") ;;
    fuzz_adapter) most=8192 ;; # what is opened is computed with, too
    fuzz_tok*) # every input is tokenized in eight ways: short ones find more
        most=4096
        [ -d "$DATA/text" ] && seeds=("$DATA/text") ;;
    esac
    # The kernels are not what is fuzzed, and would take minutes to instrument.
    clang -std=c99 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
        -DSMALLMIND_NO_AVX2 -DSMALLMIND_NO_SSE41 -DSMALLMIND_NO_NEON -DSMALLMIND_NO_TRAIN \
        "$1" -o "$out/$2" -lpthread || return 1
    "$out/$2" -runs="$RUNS" -seed=1 -timeout=20 -rss_limit_mb=2048 -max_len="$most" \
        -artifact_prefix="$out/" "$out/corpus-$2" "${seeds[@]}"
}

fuzz() {
    local f name
    for f in tests/fuzz_*.c; do
        [ -f "$f" ] || { skip fuzz "no tests/fuzz_*.c"; return; }
        name=$(basename "$f" .c)
        if ! echo 'int LLVMFuzzerTestOneInput(const char *p, unsigned long n);
            int LLVMFuzzerTestOneInput(const char *p, unsigned long n) { return p && n && 0; }' |
            clang -fsanitize=fuzzer,address -x c - -o "$out/probe.$$" >/dev/null 2>&1; then
            skip "$name" "no clang with libFuzzer"
            continue
        fi
        export -f fuzz_one
        export out DATA RUNS
        cell "$name" bash -c 'fuzz_one "$@"' bash "$f" "$name"
    done
}

case $what in
matrix | san | fuzz) $what ;;
*) echo "usage: matrix.sh matrix|san|fuzz [PART OF A NAME]" >&2; exit 2 ;;
esac
wait
rm -f "$out/probe.$$"
count() { cat "$out"/*.result 2>/dev/null | grep -c "^$1"; }
passed=$(count pass) failed=$(count fail) skipped=$(count skip)
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] && [ "$passed" -gt 0 ]

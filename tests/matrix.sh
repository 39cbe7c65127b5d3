#!/bin/bash
# matrix.sh matrix|san|fuzz - runs many builds ("cells"), JOBS at a time; each has its own folder
# and log under build/. A cell passes, fails, or is skipped because a tool is missing; the last
# line counts them. `make matrix`, `make san` and `make fuzz` call it, from the top of the tree.
# A second argument runs only the cells whose name contains it.
what=$1 only=${2-}
: "${CC:=cc}" "${DATA:=../shared/data}" "${RUNS:=20000}" "${FILTER:=}"
: "${JOBS:=$(nproc 2>/dev/null || echo 2)}"
# One cell may not take the whole time that there is.
: "${CELL_SECONDS:=1500}"
out=build/$what
mkdir -p "$out"
rm -f "$out"/*.result

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
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    run_cell "$@" &
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

# clang's front end gives all of its warnings, gcc's those that need no code: the cells with -O1 and
# -O2 show the others.
look="-fsyntax-only"

emulated() { # LEVEL FLAG: of the processor that has the real one
    if grep -qw "$2" /proc/cpuinfo 2>/dev/null; then skip "tests-$1-emulated" "the real one is here"
    elif [ "$(uname -m)" = x86_64 ] && grep -qw avx2 /proc/cpuinfo 2>/dev/null; then
        unit "tests-$1-emulated" CC="$CC" EMULATE="$1" WERROR=-Werror FILTER="$levels"
    else skip "tests-$1-emulated" "no x86_64 with AVX2"; fi
}

matrix() {
    local c s name opt flag
    printf '#define SMALLMIND_IMPLEMENTATION\n#include "smallmind.h"\n' >"$out/implementation.c"
    for c in gcc clang; do
        for s in c99 c11 c2x; do
            # shellcheck disable=SC2086
            implementation "$c-$s" $c -std=$s $([ $s = c99 ] && echo -O2 || echo $look) $strict
        done
        for flag in STATIC NO_THREADS NO_STDIO NO_WRITER NO_TRAIN NO_GRAMMAR NO_CHAT NO_AMX \
            NO_AVX512 NO_AVX2 NO_SSE41 NO_NEON; do
            # shellcheck disable=SC2086
            implementation "$c-$flag" $c -std=c99 $look $strict -DSMALLMIND_$flag
        done
    done
    for c in g++ clang++; do
        for s in c++11 c++17 c++20; do
            # shellcheck disable=SC2086
            implementation "$c-$s" $c -x c++ -std=$s $([ $s = c++11 ] && echo -O1 || echo $look) \
                $warnings -fno-exceptions -fno-rtti
        done
    done
    # shellcheck disable=SC2086
    implementation gcc-least gcc -std=c99 -O1 $strict -DSMALLMIND_NO_TRAIN -DSMALLMIND_NO_WRITER \
        -DSMALLMIND_NO_GRAMMAR -DSMALLMIND_NO_CHAT -DSMALLMIND_NO_STDIO \
        -DSMALLMIND_NO_THREADS -DSMALLMIND_NO_AVX512
    if links i686-linux-gnu-gcc -static; then
        # shellcheck disable=SC2086
        implementation 32bit i686-linux-gnu-gcc -std=c99 -O2 -msse2 -mfpmath=sse $strict
        if "$out/probe.$$"; then
            unit tests-32bit CC=i686-linux-gnu-gcc OPT="-O2 -msse2 -mfpmath=sse" LDFLAGS=-static
        else skip tests-32bit "32-bit programs do not run here"; fi
    else skip 32bit "no i686-linux-gnu-gcc with a libc"; fi
    # shellcheck disable=SC2086
    implementation windows x86_64-w64-mingw32-gcc -std=c99 -O2 $warnings

    for c in gcc clang g++; do # every program, with every warning
        if ! have $c; then skip "programs-$c" "no $c"; continue; fi
        s=c99
        [ $c = g++ ] && s=c++11
        # The implementation has cells of its own: here without its larger levels.
        cell "programs-$c" make --no-print-directory all BUILD="$out/programs-$c" CC=$c STD=$s \
            OPT=-O0 WERROR=-Werror CFLAGS=-DSMALLMIND_NO_AVX2
    done

    for c in gcc clang; do
        if ! have $c; then skip "tests-$c" "no $c"; continue; fi
        for opt in -O0 -O2 "-O3 -ffast-math -march=native"; do
            [ "$c$opt" != clang-O0 ] || continue # it takes long, and gcc's shows the same
            [ "$c$opt" != gcc-O2 ] || continue # is what `make test` runs
            name="tests-$c${opt%% *}"
            [ "$opt" = "${opt%% *}" ] || name+=-fast-native
            # -O3 warns of what cannot happen; the cells above hold the header to no warning.
            case $opt in
            -O3*) unit "$name" CC=$c OPT="$opt" ;;
            # All is compiled; what computes most takes four times as long as in the other cells.
            -O0) unit "$name" CC=$c OPT="$opt" WERROR=-Werror FILTER="$unoptimised" ;;
            *) unit "$name" CC=$c OPT="$opt" WERROR=-Werror ;;
            esac
        done
    done
    # What has nothing to do with kernels is as in the cells above.
    if have g++; then unit tests-g++-c++17 CC=g++ STD=c++17 FILTER="$levels files: model: write:"
    else skip tests-g++-c++17 "no g++"; fi
    # All levels run in every cell above; alone, the plain one.
    unit tests-scalar CC="$CC" ISA=scalar FILTER="$levels"
    # For the many processors that lack them; on the others all cells run the real ones.
    emulated avx512 avx512_vnni
    emulated avxvnni avx_vnni
    emulated amx amx_bf16

    c=aarch64-linux-gnu-gcc
    if ! have $c; then skip tests-arm64 "no $c"
    elif ! have qemu-aarch64; then skip tests-arm64 "no qemu-aarch64"
    else
        # Emulation is slow: where the tests take too long, QEMU_FILTER picks some of them.
        unit tests-arm64 CC=$c LDFLAGS=-static RUNNER=qemu-aarch64 FILTER="${QEMU_FILTER-}"
        unit tests-arm64-fast CC=$c LDFLAGS=-static RUNNER=qemu-aarch64 \
            OPT="-O3 -ffast-math" FILTER="${QEMU_FILTER:+golden}"
        # The default processor has everything; these have no smmla, the first one no sdot either.
        for name in cortex-a72 neoverse-n1; do
            unit "tests-arm64-$name" CC=$c LDFLAGS=-static RUNNER="qemu-aarch64 -cpu $name" \
                FILTER="golden q8_0, q3_k, iq4_xs,"
        done
    fi
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

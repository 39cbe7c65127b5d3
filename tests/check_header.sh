#!/bin/sh
# check_header.sh [HEADER] - the rules that keep one file readable and harmless to its host:
# contents page, columns, the documentation's code, symbols, macros, function lengths. `make check`
# runs it, from the top of the tree. A check that lacks a tool is skipped; the last line counts.
# A HEADER elsewhere (a broken copy, to see a check fail) is checked instead of ./smallmind.h.
header=${1:-smallmind.h}
: "${CC:=cc}" "${CXX:=c++}" "${NM:=nm}" "${BUILD:=build}" "${DATA:=../shared/data}"
dir=$BUILD/check
rm -rf "$dir"
mkdir -p "$dir/include"
cp "$header" "$dir/include/smallmind.h" || exit 1
h=$dir/include/smallmind.h
n_pass=0 n_fail=0 n_skip=0

pass() { n_pass=$((n_pass + 1)); echo "pass  $*"; }
fail() { n_fail=$((n_fail + 1)); echo "FAIL  $*"; }
skip() { n_skip=$((n_skip + 1)); echo "skip  $*"; }
report() { # NAME FILE: passes when FILE is empty, else shows it
    if [ -s "$2" ]; then
        fail "$1"
        sed 's/^/        /' "$2" | head -n 20
    else pass "$1"; fi
}
have() { command -v "${1%% *}" >/dev/null 2>&1; }

# --- text ----------------------------------------------------------------------------------------

# The contents page names the sections that exist, in their order.
awk '/^ \* CONTENTS/ { on = 1; next } on && /^ \* [A-Z]/ { exit }
    on && match($0, /\[SM[0-9]+\]/) {
        tag = substr($0, RSTART, RLENGTH); name = substr($0, RSTART + RLENGTH)
        sub(/^ +/, "", name); sub(/  .*/, "", name); sub(/ +$/, "", name); print tag, name
    }' "$h" >"$dir/contents"
awk '/^(\/\*| \*|\/\/) MARK: \[SM[0-9]+\] / {
        sub(/^.*MARK: /, ""); sub(/ *\*\/ *$/, ""); sub(/ +$/, ""); print
    }' "$h" >"$dir/marks"
diff "$dir/contents" "$dir/marks" >"$dir/contents.diff"
[ -s "$dir/marks" ] || echo "no MARK: [SMnn] lines" >>"$dir/contents.diff"
report "contents page: the same list as the section marks" "$dir/contents.diff"

# Marks are greppable numbers, so they ascend.
awk '{ n = substr($1, 4) + 0; if (n <= last) print "out of order: " $0; last = n }' \
    "$dir/marks" >"$dir/order"
report "section marks: ascending" "$dir/order"

sources="$h $(find tests bench examples -name '*.[ch]' -o -name '*.sh' -o -name '*.cpp' | sort)"
# Columns are characters, not bytes: UTF-8's continuation bytes do not count.
# shellcheck disable=SC2086
LC_ALL=C awk '{ line = $0; gsub(/[\200-\277]/, "", line)
        if (length(line) > 100) print FILENAME ":" FNR ": " length(line) " columns" }
    /\t/ { print FILENAME ":" FNR ": a tab" }
    /[ \r]$/ { print FILENAME ":" FNR ": blanks at the end" }' $sources >"$dir/columns"
report "sources: at most 100 columns, no tabs, no blanks at line ends" "$dir/columns"

LC_ALL=C awk '/[^ -~]/ { print FILENAME ":" FNR ": not ASCII" }' "$h" >"$dir/ascii"
report "header: plain ASCII (compilers differ about the rest)" "$dir/ascii"

# Functions are read whole: from a definition in column 0 to the brace that closes it there.
awk 'function done(last) {
        n = last - start + 1; lengths[++count] = n
        if (n > 120) print FILENAME ":" start ": " n " lines: " head
        open = 0
    }
    open { if (/^}/) done(FNR); next }
    /^(#|\/\*| \*|\/\/)/ { next }
    /^[A-Za-z_]/ { head = $0; start = FNR; signature = /\(/ && !/^(typedef|struct|enum|union)[ {]/ }
    signature && /;[ ]*(\/\*.*)?$/ && !/\{/ { signature = 0 }
    signature && /=[ ]*\{/ { signature = 0 }
    signature && /\{.*\}[ ]*$/ { done(FNR); signature = 0; next }
    signature && /\{[ ]*(\/\*.*|\/\/.*)?$/ { open = 1; signature = 0 }
    END {
        for (i = 2; i <= count; i++) { # insertion sort
            v = lengths[i]
            for (j = i - 1; j > 0 && lengths[j] > v; j--) lengths[j + 1] = lengths[j]
            lengths[j + 1] = v
        }
        m = count ? lengths[int((count + 1) / 2)] : 0
        if (m > 15) print "the median function has " m " lines, 15 at most are wanted"
        printf "%d %d %d %d\n", count, m, lengths[int(count * 0.9)], lengths[count] >SUMS
    }' SUMS="$dir/lengths" "$h" >"$dir/long"
read -r count median p90 longest <"$dir/lengths"
report "functions: $count, median $median lines, p90 $p90, longest $longest (limit 120)" "$dir/long"

# Tables that a script printed are what it prints now.
title="generated tables: as tests/make_unicode.py prints them"
for python in /usr/bin/python3 python3; do have "$python" && break; done
if have "$python"; then
    "$python" tests/make_unicode.py --check "$h" >"$dir/tables" 2>&1
    case $? in
    0) pass "$title" ;;
    77) skip "$title (this Python has another version of Unicode)" ;;
    *) report "$title" "$dir/tables" ;;
    esac
else skip "$title (no python3)"; fi

find examples -name '*.c' -exec awk 'END { # a grammar, what trains, and a chat are read in parts
        long = FILENAME ~ /tavern|train|tune|chat/
        if (NR > (long ? 900 : 140)) print FILENAME ": " NR " lines" }' \
    {} \; >"$dir/examples"
for f in examples/*.c; do
    head -n 6 "$f" | grep -q 'cc -O2' || echo "$f: the first comment does not say how to build it"
done >>"$dir/examples"
report "examples: at most 140 lines, the first comment says how to build" "$dir/examples"

ls -A | grep -vE '^(smallmind\.h|tests|bench|examples|Makefile|README\.md|LICENSE|build|\..*)$' \
    >"$dir/top"
report "top level: nothing but what belongs there" "$dir/top"

# --- the documentation's code --------------------------------------------------------------------

compile() { # NAME COMPILER-AND-FLAGS... : passes when it succeeds without a word
    name=$1
    shift
    "$@" >"$dir/compile.log" 2>&1 || echo "exit status $?" >>"$dir/compile.log"
    report "$name" "$dir/compile.log"
}
# Here it is about what users write; without the larger levels that takes a fifth of the time.
wall="-Wall -Wextra -Werror -DSMALLMIND_NO_AVX2"
libs=-lpthread

# The quick start of README.md: its first block of C, as it stands.
awk '/^```c$/ { on = 1; next } /^```/ && on { exit } on' README.md >"$dir/readme.c" 2>/dev/null
if [ -s "$dir/readme.c" ]; then
    # shellcheck disable=SC2086
    compile "README quick start: C99" $CC -std=c99 $wall -O1 -I"$dir/include" "$dir/readme.c" \
        -o "$dir/readme" $libs
    model=$DATA/models/stories260K/stories260K.gguf
    if [ -x "$dir/readme" ] && [ -f "$model" ]; then
        cp "$model" "$dir/model.gguf"
        (cd "$dir" && ./readme >readme.out 2>readme.err) ||
            echo "exit status $?" >>"$dir/readme.err"
        [ "$(wc -c <"$dir/readme.out")" -gt 100 ] || echo "too little text" >>"$dir/readme.err"
        report "README quick start: writes a story" "$dir/readme.err"
    else skip "README quick start: writes a story (no $model)"; fi
    # shellcheck disable=SC2086
    if have "$CXX"; then
        compile "README quick start: C++11" $CXX -x c++ -std=c++11 $wall -O0 -I"$dir/include" \
            "$dir/readme.c" -o "$dir/readme++" $libs
    else skip "README quick start: C++11 (no $CXX)"; fi
else fail "README quick start: no \`\`\`c block in README.md"; fi

# The manual's quick start: the callback, then the body of a main.
awk '/^ \* QUICK START/ { on = 1; next } on && /^ \* [A-Z]/ { exit }
    on && /^ \*     / { print substr($0, 8) }' "$h" >"$dir/manual.body"
{
    echo '#include <stdio.h>'
    echo '#define SMALLMIND_IMPLEMENTATION'
    echo '#include "smallmind.h"'
    awk '{ print } /^}/ && !main { main = 1; print "int main(void) {" }
        END { print "    return 0;\n}" }' "$dir/manual.body"
} >"$dir/manual.c"
if [ -s "$dir/manual.body" ]; then
    # shellcheck disable=SC2086
    compile "manual quick start: C99" $CC -std=c99 $wall -O0 -I"$dir/include" "$dir/manual.c" \
        -o "$dir/manual" $libs
else fail "manual quick start: no QUICK START in the header"; fi

# --- symbols, macros, several copies -------------------------------------------------------------

printf '#define SMALLMIND_IMPLEMENTATION\n#include "smallmind.h"\n' >"$dir/one.c"
printf '#define SMALLMIND_STATIC\n' | cat - "$dir/one.c" >"$dir/static.c"
# shellcheck disable=SC2086
# Not position-independent, so that constant tables of pointers count as constant.
compile "implementation: one object" $CC -std=c99 -O1 -fno-pie -I"$dir/include" -c "$dir/one.c" \
    -o "$dir/one.o"
# shellcheck disable=SC2086
compile "implementation: SMALLMIND_STATIC" $CC -std=c99 -O1 $wall -I"$dir/include" \
    -c "$dir/static.c" -o "$dir/static.o"

if have "$NM" && [ -f "$dir/one.o" ]; then
    $NM -g --defined-only "$dir/one.o" | awk '{ print $NF }' >"$dir/defined"
    grep -v '^_\{0,1\}sm_[a-z]' "$dir/defined" >"$dir/foreign"
    [ -s "$dir/defined" ] || echo "no symbols at all" >>"$dir/foreign"
    report "symbols: all $(wc -l <"$dir/defined" | tr -d ' ') external ones are sm_*" "$dir/foreign"
    # What the API declares and what the object has are the same functions.
    awk '/SMALLMIND_IMPLEMENTATION/ && /^#ifdef/ { exit } /^SM_API / {
            if (match($0, /sm_[a-z0-9_]+\(/)) print substr($0, RSTART, RLENGTH - 1) }' "$h" |
        sort >"$dir/declared"
    sed 's/^_sm_/sm_/' "$dir/defined" | sort | diff "$dir/declared" - >"$dir/api.diff"
    report "symbols: what the API declares is what the object defines" "$dir/api.diff"
    forbidden='abort|_?exit|_Exit|quick_exit|__assert_fail|(v|f|vf|d)?printf|__f?printf_chk|puts'
    forbidden="$forbidden|fputs|putchar|fwrite|perror|(secure_)?getenv|setenv|signal|sigaction"
    forbidden="$forbidden|raise|atexit|on_exit|_?setjmp|longjmp|s?rand|setlocale|__tls_get_addr"
    $NM -u "$dir/one.o" | awk '{ sub(/@.*/, "", $NF); print $NF }' |
        grep -xE "_?($forbidden)" >"$dir/forbidden"
    report "calls: no abort, exit, print, getenv, signal, atexit, assert, TLS" "$dir/forbidden"
    # Mutable globals live in .data or .bss.
    $NM "$dir/one.o" | awk '$2 ~ /^[dDbBC]$/ { print }' >"$dir/globals"
    report "data: no mutable global or static" "$dir/globals"
else skip "symbols: no nm, or no object"; fi
# Few test machines have AVX-VNNI, so its instruction is looked at: encoded by VEX (c4 .. .. 50),
# as a processor without AVX-512 needs it.
title="AVX-VNNI: vpdpbusd on ymm registers is encoded by VEX"
if have objdump && $NM "$dir/one.o" 2>/dev/null | grep -q sm__matmul_q8_0__avxvnni; then
    objdump -d "$dir/one.o" | grep 'vpdpbusd.*ymm' >"$dir/vnni"
    grep -vE ':[[:space:]]*c4 [0-9a-f]2 [0-9a-f]{2} 50 ' "$dir/vnni" >"$dir/vnni.other"
    [ -s "$dir/vnni" ] || echo "there is none" >>"$dir/vnni.other"
    report "$title" "$dir/vnni.other"
else skip "$title (no objdump, or a build without it)"; fi
if have "$NM" && [ -f "$dir/static.o" ]; then
    $NM -g --defined-only "$dir/static.o" | awk 'NF { print $NF }' >"$dir/static.sym"
    report "symbols: none under SMALLMIND_STATIC" "$dir/static.sym"
else skip "symbols under SMALLMIND_STATIC: no nm, or no object"; fi

# Macros that our file itself defines (line markers tell) and leaves defined.
# shellcheck disable=SC2086
$CC -std=c99 -I"$dir/include" -E -dD "$dir/one.c" 2>/dev/null |
    awk '/^# [0-9]+ "/ { ours = $3 ~ /smallmind\.h"$/; next }
        /^#define / && ours { name = $2; sub(/\(.*/, "", name); defined[name] = 1 }
        /^#undef / { delete defined[$2] }
        END { for (name in defined) print name }' | sort >"$dir/macros"
grep -vE '^(SM_[A-Z]|SMALLMIND_|SM__)' "$dir/macros" >"$dir/macros.foreign"
[ -s "$dir/macros" ] || echo "no macros found" >>"$dir/macros.foreign"
report "macros: all $(wc -l <"$dir/macros" | tr -d ' ') left defined are SM_*, SMALLMIND_*, SM__*" \
    "$dir/macros.foreign"

# Included plainly, the header leaves nothing private behind.
printf '#include "smallmind.h"\n' >"$dir/plain.c"
# shellcheck disable=SC2086
$CC -std=c99 -I"$dir/include" -E -dM "$dir/plain.c" | grep '#define SM__' >"$dir/macros.private"
report "macros: no SM__* without the implementation" "$dir/macros.private"

cat >"$dir/user.c" <<'END'
#include "smallmind.h"
const char *user(void);
const char *user(void) { return sm_status_text(SM_ERR_FULL); }
END
cat >"$dir/main.c" <<'END'
#define SMALLMIND_IMPLEMENTATION
#include "smallmind.h"
#include "smallmind.h" /* a second time is nothing */
extern const char *user(void);
int main(void) { return user() != sm_status_text(SM_ERR_FULL); }
END
# shellcheck disable=SC2086
compile "two files: one implementation, one user" $CC -std=c99 $wall -O0 -I"$dir/include" \
    "$dir/main.c" "$dir/user.c" -o "$dir/two" $libs
"$dir/two" 2>"$dir/two.log" || echo "the program failed" >"$dir/two.log"
report "two files: runs" "$dir/two.log"
for i in a b; do
    cat >"$dir/static_$i.c" <<END
#define SMALLMIND_STATIC
#define SMALLMIND_IMPLEMENTATION
#include "smallmind.h"
const char *text_$i(void);
const char *text_$i(void) { return sm_status_text(SM_OK); }
END
done
cat >"$dir/static_main.c" <<'END'
const char *text_a(void);
const char *text_b(void);
int main(void) { return !text_a() || !text_b(); }
END
# shellcheck disable=SC2086
compile "two copies: SMALLMIND_STATIC twice in one program" $CC -std=c99 $wall -O0 \
    -I"$dir/include" "$dir/static_a.c" "$dir/static_b.c" "$dir/static_main.c" -o "$dir/copies" $libs

echo "$n_pass passed, $n_fail failed, $n_skip skipped"
[ "$n_fail" = 0 ] && [ "$n_pass" -gt 0 ]

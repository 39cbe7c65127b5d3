#!/bin/bash
# sizes.sh - what each build flag of smallmind.h leaves out: bytes of the object (code and
# constants), and the seconds that compiling it takes. Run it from the top of the tree; CC and OPT
# choose.
: "${CC:=gcc}" "${OPT:=-O2}"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
printf '#define SMALLMIND_IMPLEMENTATION\n#include "smallmind.h"\n' >"$dir/one.c"

row() { # NAME FLAGS...
    local name=$1 start end bytes
    shift
    start=$(date +%s%N)
    # shellcheck disable=SC2086
    "$CC" -std=c99 $OPT -I. "$@" -c "$dir/one.c" -o "$dir/one.o" || exit 1
    end=$(date +%s%N)
    bytes=$(size "$dir/one.o" | awk 'NR == 2 { print $1 + $2 }')
    all=${all:-$bytes}
    printf '| %s | %d | %d | %d.%d |\n' "$name" "$bytes" $((all - bytes)) \
        $(((end - start) / 1000000000)) $(((end - start) / 100000000 % 10))
}

"$CC" --version | head -n 1
echo "| build, $OPT | bytes | saved | seconds |"
echo "|---|---|---|---|"
row "everything"
for flag in $(grep -oE '\bSMALLMIND_NO_[A-Z0-9]+\b' smallmind.h | sort -u); do
    row "\`$flag\`" "-D$flag"
done
row "all of them" $(grep -oE '\bSMALLMIND_NO_[A-Z0-9]+\b' smallmind.h | sort -u | sed 's/^/-D/')
wc -l smallmind.h | sed 's/^\([0-9]*\).*/\1 lines/'

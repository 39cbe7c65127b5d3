#!/bin/bash
# sizes.sh - what each build flag of smallmind.h leaves out: bytes of the object (code and
# constants), as README.md's table. Run it from the top of the tree; CC, OPT and JOBS (2) choose.
# Takes about five minutes on two cores.
: "${CC:=gcc}" "${OPT:=-O2}" "${JOBS:=2}"
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
printf '#define SMALLMIND_IMPLEMENTATION\n#include "smallmind.h"\n' >"$dir/one.c"

# As BUILD FLAGS in the manual has them; a level of kernels goes with those that stand on it.
names=("everything, $(wc -l <smallmind.h | sed 's/...$/,&/') lines" AMX AVX512 AVX2 SSE41 TRAIN \
    WRITER GRAMMAR CHAT STDIO THREADS NEON "all of them")
remarks=([2]=" (and AMX)" [3]=" (and AVX-512, AMX)" [11]=" (on ARM64)")
last=$((${#names[@]} - 1))

compile() { # NUMBER
    local flags=() name
    case $1 in
    0) ;;
    "$last") for name in "${names[@]:1:last-1}"; do flags+=("-DSMALLMIND_NO_$name"); done ;;
    *) flags=("-DSMALLMIND_NO_${names[$1]}") ;;
    esac
    local start=$SECONDS
    # shellcheck disable=SC2086
    "$CC" -std=c99 $OPT -I. "${flags[@]}" -c "$dir/one.c" -o "$dir/$1.o" || exit 1
    echo $((SECONDS - start)) >"$dir/$1.seconds"
    size "$dir/$1.o" | awk 'NR == 2 { print $1 + $2 }' >"$dir/$1.bytes"
}

compile 0 # alone, for the time
for ((i = 1; i <= last; i++)); do
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n; done
    compile "$i" &
done
wait

thousands() { echo "$1" | sed ':a; s/\([0-9]\)\([0-9]\{3\}\)\($\|,\)/\1,\2\3/; ta'; }
all=$(cat "$dir/0.bytes") || exit 1
"$CC" --version | head -n 1
echo "| build, $OPT | bytes | saved |"
echo "|---|---|---|"
for ((i = 0; i <= last; i++)); do
    bytes=$(cat "$dir/$i.bytes") || exit 1
    case $i in
    0) name="${names[0]}, $(cat "$dir/0.seconds") s to compile" saved= ;;
    "$last") name=${names[$i]} saved=$(thousands $((all - bytes))) ;;
    *) name="\`SMALLMIND_NO_${names[$i]}\`${remarks[$i]}" saved=$(thousands $((all - bytes))) ;;
    esac
    echo "| $name | $(thousands "$bytes") | $saved |"
done

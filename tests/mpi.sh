#!/bin/bash
# mpi.sh - examples/train_mpi.c: 1, 2 and 4 ranks give the same losses, digit by digit, and they
# fall. From the top of the tree; skipped where there is no Open MPI. TEXT=file.
: "${BUILD:=build}" "${DATA:=../shared/data}"
: "${TEXT:=$DATA/text/tinyshakespeare.txt}"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
dir=$BUILD/mpi
mkdir -p "$dir"
if ! command -v mpicc >/dev/null || ! command -v mpirun >/dev/null || [ ! -f "$TEXT" ]; then
    echo "skip  mpi: no Open MPI (libopenmpi-dev, openmpi-bin), or no text $TEXT"
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi
make -s "$BUILD/train_mpi" BUILD="$BUILD" || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }
n_pass=0 n_fail=0
for ranks in 1 2 4; do
    mpirun --oversubscribe -n $ranks "$BUILD/train_mpi" "$TEXT" 20 >"$dir/$ranks" 2>"$dir/errors"
    if [ "$(wc -l <"$dir/$ranks")" = 20 ] && cmp "$dir/1" "$dir/$ranks"; then
        n_pass=$((n_pass + 1)) && echo "pass  mpi: $ranks ranks, $(tail -n 1 "$dir/$ranks")"
    else
        n_fail=$((n_fail + 1)) && echo "FAIL  mpi: $ranks ranks" && tail -n 5 "$dir/errors"
    fi
done
if awk 'NR == 1 { a = $4 } { b = $4 } END { exit !(a > 4 && b < 0.9 * a) }' "$dir/1"; then
    n_pass=$((n_pass + 1)) && echo "pass  mpi: the loss falls"
else n_fail=$((n_fail + 1)) && echo "FAIL  mpi: the loss does not fall"; fi
echo "$n_pass passed, $n_fail failed, 0 skipped"
[ "$n_fail" = 0 ]

#!/bin/bash
# train_torch.sh - our trainer beside PyTorch (see train_torch.py): gradients of every
# architecture, and the course of training. From the top of the tree:
#     tests/train_torch.sh
# SHARED=../shared has data/; ONLY="qwen2" runs the cases whose names contain it. Without PyTorch,
# or a model's file, what cannot be done is skipped and counted; with REQUIRE_DATA=1 it is a
# failure.
: "${SHARED:=../shared}" "${REQUIRE_DATA:=0}"
export OUT=build/train-torch DUMP=build/train_dump SHARED REQUIRE_DATA
mkdir -p "$OUT"

# Debian's torch belongs to Debian's python.
for python in /usr/bin/python3 python3; do
    "$python" -c 'import numpy, torch' 2>/dev/null && break
    python=
done
if [ -z "$python" ]; then
    echo "train_torch.sh: no python3 with numpy and torch"
    if [ "$REQUIRE_DATA" = 1 ]; then
        echo "0 passed, 1 failed, 0 skipped"
        exit 1
    fi
    echo "0 passed, 0 failed, 1 skipped"
    exit 0
fi

make -s "$DUMP" || { echo "0 passed, 1 failed, 0 skipped"; exit 1; }

exec "$python" -B tests/train_torch.py

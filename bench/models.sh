# models.sh - read by the other scripts here: models with random weights, made when asked for.
# Wants BUILD, TOOLS (mkgguf.py) and PEER (llama.cpp's libraries, whose encoders mkgguf.py uses).
# shellcheck shell=bash

model_file() { # SHAPE-TYPE or a path: prints the path
    case $1 in
    *.gguf | */*) echo "$1"; return ;;
    esac
    local file=$BUILD/models/$1.gguf python=python3
    # Debian's numpy belongs to Debian's python.
    [ -x /usr/bin/python3 ] && python=/usr/bin/python3
    if [ ! -f "$file" ]; then
        mkdir -p "$BUILD/models"
        PEER=$PEER $python "$TOOLS/mkgguf.py" "${1%-*}" "${1##*-}" "$file.new" >&2 &&
            mv "$file.new" "$file" || return 1
    fi
    echo "$file"
}

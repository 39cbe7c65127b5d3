#!/bin/sh
# setup.sh FILE - looks for stb_sprintf.h once and writes to FILE how to compile with it (a line of
# make). Where it is missing, Debian's package is installed if that needs no question; otherwise the
# programs format their text with libc.
out=$1
new=$out.$$ # several makes may ask at the same time
: "${CC:=cc}"
mkdir -p "$(dirname "$out")"

found() { # prints the flags with which the compiler finds the header
    for flags in "$(pkg-config --cflags-only-I stb 2>/dev/null | sed 's/-I/-isystem /g')" \
        "-isystem /usr/include/stb" "-isystem /usr/local/include/stb" \
        "-isystem /opt/homebrew/include/stb" ""; do
        # shellcheck disable=SC2086
        if echo '#include <stb_sprintf.h>' | $CC $flags -E -x c - >/dev/null 2>&1; then
            echo "STB = -DHAVE_STB $flags"
            return 0
        fi
    done
    return 1
}

install() { # never asks, never hangs
    root=
    if [ "$(id -u)" != 0 ]; then
        sudo -n true 2>/dev/null || return 1
        root="sudo -n"
    fi
    command -v apt-get >/dev/null || return 1
    apt="$root env DEBIAN_FRONTEND=noninteractive timeout 180 apt-get -q -y
        -o Acquire::http::Timeout=20 -o Acquire::Retries=1 -o DPkg::Lock::Timeout=60"
    $apt install libstb-dev || { $apt update && $apt install libstb-dev; }
}

if found >"$new"; then
    :
elif install >"$out.log" 2>&1 </dev/null && found >"$new"; then
    echo "setup: installed libstb-dev (stb_sprintf)"
else
    echo "setup: stb_sprintf.h is not here and could not be installed: using libc's printf" \
        "(apt-get install libstb-dev; make clean looks again)"
    echo "STB = -DNO_STB" >"$new"
fi
mv "$new" "$out"

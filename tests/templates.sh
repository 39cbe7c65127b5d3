#!/bin/sh
# templates.sh - chat templates beside jinja2 (tests/templates.py): real ones of ../shared/data with
# 20 conversations each, then FUZZ random ones (1000) from SEED (1). Needs a Python with jinja2
# (PYTHON, or Debian's python3-jinja2), else everything is skipped. VERBOSE=1 lists what is refused.
cd "$(dirname "$0")/.." || exit 1
DATA=${DATA:-../shared/data}
BUILD=${BUILD:-build}
for python in ${PYTHON:-python3 /usr/bin/python3} ''; do
    [ -n "$python" ] && "$python" -c 'import jinja2' 2>/dev/null && break
done
if [ -z "$python" ] || { [ ! -d "$DATA/templates" ] && [ -z "$FUZZ" ]; }; then
    echo "no jinja2, or no templates in $DATA"
    echo "0 passed, 0 failed, 1 skipped"
    [ -z "$REQUIRE_DATA" ]
    exit
fi
make -s "$BUILD/render" BUILD="$BUILD" || exit 1
exec "$python" -W ignore tests/templates.py "$BUILD/render" "$DATA" --fuzz "${FUZZ:-1000}" \
    --seed "${SEED:-1}"

#!/bin/sh
# chat.sh - examples/chat.c with the model that comes along: commands, the history on disk,
# templates by name and from a file, stop strings, refusals. The words are the model's.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}
model=examples/tavern.gguf
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0
failed=0

check() { # what, and a command that must be true
    what=$1
    shift
    if "$@" >/dev/null 2>&1; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAIL  $what"
        sed 's/^/    /' "$dir/out" "$dir/errors"
    fi
}

chat() { # lines from stdin
    $RUNNER "$BUILD/chat" -m $model --temp 0 -n 12 --threads 1 "$@" >"$dir/out" 2>"$dir/errors"
}

same() { [ "$(cat "$1")" = "$(cat "$2")" ]; }

[ -x "$BUILD/chat" ] || make "$BUILD/chat" >/dev/null || exit 1

printf 'Good evening\n/save %s/a.json\n' "$dir" | chat
check "an answer is written" [ -s "$dir/out" ]
check "a model without a template says so" grep -q 'no chat template' "$dir/errors"
check "the history is saved" grep -q '{"role": "user", "content": "Good evening"}' "$dir/a.json"
check "with the answer" grep -q '{"role": "assistant", "content": "' "$dir/a.json"
cp "$dir/out" "$dir/first"

printf 'Good evening\n/retry\n/save %s/b.json\n' "$dir" | chat
cat "$dir/first" "$dir/first" >"$dir/twice"
check "retry says it again" same "$dir/out" "$dir/twice"
check "and leaves one answer" same "$dir/a.json" "$dir/b.json"

printf 'Good evening\nAnd you?\n/undo\n/save %s/b.json\n' "$dir" | chat
check "undo takes a turn away" same "$dir/a.json" "$dir/b.json"

printf '/load %s/a.json\n/retry\n' "$dir" | chat
check "a loaded history is answered as the one that was saved" same "$dir/out" "$dir/first"
printf '/retry\n' | chat --load "$dir/a.json"
check "so from the command line" same "$dir/out" "$dir/first"

printf '/system Be brief.\nHello\n/clear\n/save %s/b.json\n' "$dir" | chat -s "Be long."
system='^ {"role": "system", "content": "Be brief."}$'
check "system replaces, clear keeps it" grep -q "$system" "$dir/b.json"
check "and nothing else" [ "$(wc -l <"$dir/b.json")" = 3 ]

printf 'Hello\n' | chat --template chatml
check "a template by name" [ -s "$dir/out" ]
echo '{% for m in messages %}{{ m.content }}{% endfor %}{% if' >"$dir/bad.jinja"
printf 'Hello\n' | chat --template "$dir/bad.jinja"
check "a template from a file, and its mistake" grep -q 'template, line 1, column' "$dir/errors"
echo "{{ raise_exception('no ' + messages[0].content) }}" >"$dir/raise.jinja"
printf 'Hello\n' | chat --template "$dir/raise.jinja"
check "what a template raises is said" grep -q 'the template says: no Hello' "$dir/errors"
printf 'Hello\n' | chat --template nonsense
check "an unknown name is refused" grep -q 'a chat template nonsense' "$dir/errors"

letter=$(cut -c1-200 "$dir/first" | tr -d '\n' | cut -c3)
printf 'Good evening\n' | chat --stop "$letter"
check "a stop string ends the answer" [ "$(wc -c <"$dir/out")" -lt "$(wc -c <"$dir/first")" ]

i=0
while [ $i -lt 12 ]; do echo "Good evening to you, number $i"; i=$((i + 1)); done >"$dir/many"
chat --ctx 128 <"$dir/many"
check "old turns are dropped when the context is full" [ "$(grep -c 'context' "$dir/errors")" = 0 ]
chat --ctx 128 --overflow shift <"$dir/many"
check "or moved" [ "$(grep -c 'context' "$dir/errors")" = 0 ]
chat --ctx 128 --overflow error <"$dir/many"
check "or it is an error" grep -q 'in a context of 128' "$dir/errors"
printf '/load /nowhere\n/what\n' | chat
check "a file that is not there" grep -q 'cannot be read' "$dir/errors"
check "help" grep -q '/system TEXT' "$dir/errors"

echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]

#!/bin/sh
# tavern.sh - checks what build/tavern_corpus writes: the same seed gives the same bytes, every line
# has its form, the dialogue agrees with the facts, held-out scenes are none of the others. And what
# the model that learned from it says. Run by `make test`, from the top of the tree; SCENES=100000
# looks at more.
: "${BUILD:=build}" "${SCENES:=4000}" "${RUNNER:=}"
dir=$BUILD/tavern-test
rm -rf "$dir"
mkdir -p "$dir" || exit 1
n_pass=0 n_fail=0
result() { # NAME FILE: passes when FILE is empty
    if [ -s "$2" ]; then
        n_fail=$((n_fail + 1))
        echo "FAIL  tavern: $1"
        sed 's/^/        /' "$2" | head -n 20
    else n_pass=$((n_pass + 1)) && echo "pass  tavern: $1"; fi
}
corpus() { # FILE OPTIONS...
    file=$dir/$1
    shift
    # shellcheck disable=SC2086
    $RUNNER "$BUILD/tavern_corpus" "$@" >"$file" || echo "exit status $?" >>"$dir/errors"
}
: >"$dir/errors"
corpus train --scenes "$SCENES" --seed 1
corpus again --scenes "$SCENES" --seed 1
corpus other --scenes "$SCENES" --seed 2
corpus held --scenes "$SCENES" --seed 1 --held-out
corpus marked --scenes 20 --seed 1 --end '<|end|>'
result "the program runs" "$dir/errors"

cmp "$dir/train" "$dir/again" >"$dir/same" 2>&1
result "the same seed gives the same bytes" "$dir/same"

[ "$(grep -c '^Scene: ' "$dir/train")" = "$SCENES" ] || echo "not $SCENES" >"$dir/count"
[ "$(grep -cFx '<|end|>' "$dir/marked")" = 20 ] || echo "20 marks are wanted" >>"$dir/count"
result "as many scenes as were asked for" "$dir/count"

# One line a scene, to compare them. The facts alone decide what is held out.
for f in train other held; do
    awk 'BEGIN { RS = ""; FS = "\n" } { gsub(/\n/, "/"); print }' "$dir/$f" | sort >"$dir/$f.scenes"
    sed 's,/Player: .*,,' "$dir/$f.scenes" | sort -u >"$dir/$f.facts"
done
{
    uniq -d "$dir/train.scenes"
    comm -12 "$dir/train.scenes" "$dir/other.scenes"
} >"$dir/repeated"
result "no scene comes twice, another seed gives others" "$dir/repeated"
comm -12 "$dir/train.facts" "$dir/held.facts" >"$dir/leaked"
comm -12 "$dir/other.facts" "$dir/held.facts" >>"$dir/leaked"
result "held-out facts are in no other part" "$dir/leaked"

LC_ALL=C grep -n '[^ -~]' "$dir/train" >"$dir/ascii"
result "only ASCII" "$dir/ascii"

cat "$dir/train" "$dir/held" | awk '
    function bad(why) { print FNR ": " why ": " $0 }
    function fact(name, rest,    i, n, parts, word) { # "innkeeper, grumpy. Sells ale 3, stew 5."
        split(rest, word, /[ ,.]+/)
        mood[name] = word[2]
        if (!match(rest, / Sells /)) return
        n = split(substr(rest, RSTART + 7, length(rest) - RSTART - 7), parts, ", ")
        for (i = 1; i <= n; i++) { split(parts[i], word, " "); price[word[1]] = word[2] }
    }
    /^$/ { if (size > 1200) bad("a scene of " size " bytes"); size = 0; next }
    { size += length($0) + 1; lines++ }
    /^Scene: / { split("", mood); split("", price); purse = -1; facts = 1; taken = 0 }
    !/[.!?]$/ { bad("no end of sentence") }
    /[][{}<>|]/ || /  / || / [.,!?]/ || /[.,!?][.,!?]/ { bad("odd signs") }
    /[.!?] [a-z]/ || /: [a-z]/ && !/^[A-Z][a-z]*: [a-z]+, [a-z]+\./ { bad("a small letter") }
    / [Aa] [aeiou]/ || / [Aa]n ([^aeiouh]|h[^o])/ || / i / { bad("a, an, I") }
    {
        for (i = 2; i <= NF; i++)
            if ($i == $(i - 1) && $i !~ /[.,!?]$/) bad("a word twice")
    }
    /^Scene: The [A-Z][a-z]+ [A-Z][a-z]+, (morning|afternoon|evening|night), [a-z ]+\.$/ { next }
    facts && /^(Rumour|Quest): [A-Z]/ { next }
    facts && /^Purse: [0-9]+\.$/ { purse = $2 + 0; facts = 0; next }
    facts && /^[A-Z][a-z]+: [a-z]+, [a-z]+\./ {
        fact(substr($1, 1, length($1) - 1), substr($0, length($1) + 2)); next
    }
    !facts && /^Player: [A-Z]/ { next }
    !facts && /^Event: Player buys the [a-z]+ for [0-9]+ and has [0-9]+ left\.$/ {
        if ($7 != price[$5]) bad("the price is " price[$5])
        if (purse - $7 != $10 || $10 < 0) bad("the purse had " purse)
        purse = $10; next
    }
    !facts && /^Event: The [a-z]+ now costs? [0-9]+\.$/ {
        if ($6 + 0 != price[$3] - 1) bad("the price was " price[$3])
        price[$3] = $6 + 0; next
    }
    !facts && /^Event: [A-Z][a-z]+ is [a-z]+ now\.$/ { mood[$2] = $4; next }
    !facts && /^Event: Player takes the quest\.$/ { if (taken++) bad("taken twice"); next }
    !facts && /^[A-Z][a-z]+ \([a-z]+\): [A-Z]/ {
        if ($2 != "(" mood[$1] "):") bad("the mood is " mood[$1]); next
    }
    { bad("no such line") }
    END { if (lines < 10) print "there is no text" }' >"$dir/lines"
result "every line has its form and agrees with the facts" "$dir/lines"

awk '/^(Player|[A-Z][a-z]+ \([a-z]+\)): / { sub(/^[^:]*: /, ""); print }' "$dir/train" |
    sort -u | wc -l | awk -v n="$SCENES" '$1 < n { print $1 " different things are said" }' \
    >"$dir/varied"
result "more different sentences than scenes" "$dir/varied"

# --- the model that learned them ------------------------------------------------------------------

model=examples/tavern.gguf
play() { # FILE OPTIONS...: what the model says to scenes that it has never seen
    file=$dir/$1
    shift
    # shellcheck disable=SC2086
    $RUNNER "$BUILD/tavern_corpus" "$@" --held-out >"$dir/ask" &&
        $RUNNER "$BUILD/tavern" -m $model "$dir/ask" >"$file" 2>>"$dir/errors" ||
        echo "no scenes: $*" >>"$dir/errors"
}
play played --seed 7 --scenes 20
play more --seed 9 --scenes 40
result "the model plays" "$dir/errors"

[ "$(wc -c <$model)" -le 2000000 ] || echo "more than 2 MB" >"$dir/size"
result "it has at most 2 MB" "$dir/size"

# The bits are the same everywhere, and so are the words: make model writes both files.
cmp "$dir/played" examples/tavern.txt >"$dir/words" 2>&1
result "examples/tavern.txt is what it says" "$dir/words"

# Who speaks is there, and in the mood that he has; what is bought is sold. (Prices it gets wrong
# more often than not: they are shown.)
awk '/^Scene: / { delete mood; delete price; next }
    /^[A-Z][a-z]+: [a-z ]+, [a-z]+\./ && !/^(Player|Rumour|Quest|Purse):/ {
        name = $1; sub(/:$/, "", name)
        match($0, /, [a-z]+\./); mood[name] = substr($0, RSTART + 2, RLENGTH - 3)
        if (match($0, /Sells .*\./)) {
            n = split(substr($0, RSTART + 6, RLENGTH - 7), wares, ", ")
            for (i = 1; i <= n; i++) { split(wares[i], w, " "); price[w[1]] = w[2] }
        }
        next
    }
    /^[A-Z][a-z]+ \([a-z]+\): / {
        spoken++; name = $1; m = $2; gsub(/[():]/, "", m)
        if (name in mood) there++
        if (m == mood[name]) right++
    }
    /^Event: Player buys the / { bought++; if ($5 in price) sold++; if (price[$5] == $7) paid++ }
    /^Event: The [a-z]+ now cost/ { price[$3] = $6 + 0 }
    /^Event: [A-Z][a-z]+ is [a-z]+ now/ { mood[$2] = $4 }
    END {
        printf "%d lines: %d by who is there, %d in his mood; %d buy, %d sold, %d at the price\n",
            spoken, there, right, bought, sold, paid >"/dev/stderr"
        if (spoken < 200 || there < 0.97 * spoken || right < 0.9 * spoken) print "wrong people"
        if (bought < 10 || sold < 0.75 * bought) print "wrong wares"
    }' "$dir/played" "$dir/more" >"$dir/topic" 2>"$dir/counts"
cat "$dir/counts" >&2
result "it keeps to the facts" "$dir/topic"

# Its words are words.
words() { tr -cs "A-Za-z'" '\n' <"$1" | sort -u; }
words "$dir/train" >"$dir/known"
cat "$dir/played" "$dir/more" >"$dir/said"
words "$dir/said" | comm -23 - "$dir/known" >"$dir/unknown"
[ "$(wc -l <"$dir/unknown")" -le 10 ] || head -n 20 "$dir/unknown" >"$dir/babble"
result "its words are words" "$dir/babble"

echo "$n_pass passed, $n_fail failed, 0 skipped"
[ "$n_fail" = 0 ]

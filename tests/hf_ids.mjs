// hf_ids.mjs - ids of random texts by our reader of tokenizer.json, beside Hugging Face's library.
//     node tests/hf_ids.mjs IDS LIBRARY FOLDER VOCABULARY... [-n TEXTS]
// IDS is tests/ids.c, compiled; LIBRARY the folder of npm's `tokenizers` (the library itself, not
// a port of it). FOLDER gets what is compared. A VOCABULARY is a tokenizer.json, or a GGUF file
// with a byte-level one, which is written as such: FILE, or FILE:PRE for other words; or
// tiktoken:NAME, an encoding of npm's `tiktoken` (beside LIBRARY), written as a .tiktoken file.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const args = process.argv.slice(2)
const at = args.indexOf('-n')
const most = at < 0 ? 3000 : Number(args.splice(at, 2)[1])
let count = most // of texts; of each of the small vocabularies of tokens.py 1,000 are enough
const [ids, library, folder, ...files] = args
const require = createRequire(import.meta.url)
const { Tokenizer } = require(path.resolve(library))

let state = 12345
const random = n => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0, (state >>> 8) % n)
const pick = list => list[random(list.length)]

const words = ('the cat sat on a mat Once upon time there was little girl named Lily ' +
    "don't I'LL we've 'S 12 1234567 3.14 x=y+1; {} ... --- \u00e9t\u00e9 na\u00efve \u00df " +
    '\u4f60\u597d \u3053\u3093\u306b\u3061\u306f \u043f\u0440\u0438\u0432\u0435\u0442 ' +
    '\u0645\u0631\u062d\u0628\u0627 \ud83d\ude00\ud83d\ude80 \u0905\u0928\u0941 \u2581 \u00a0 ' +
    'aaaaaaaaaaaaaaaa abababab camelCase XMLHttpRequest e\u0301 A\u030a \u212b \ufb01 \u01c5 ' +
    '\uff21\uff22 stra\u00dfe \u0130x \ud55c\uad6d \u1112\u1161\u11ab \u0928\u093c \u0958 ' +
    'q\u0323\u0307 q\u0307\u0323 \u0e01\u0e33 \u200b \u00ad \ufffd \u2019s [MASK] </s>').split(' ')
const gaps = [' ', ' ', ' ', '  ', '   ', '\n', '\n\n', '\r\n', '\t', '', ' \n ', '\u3000',
    '\u0085', '\u00a0', '\u2028', '/', '\n/']
// Characters of blocks that are not of yesterday: libraries differ in their version of Unicode.
// For normalizers and WordPiece they are any characters, as there ours are those of the library.
let any = false
let extra = [] // added tokens
function character() {
    if (any && random(3)) {
        const c = 1 + random(random(2) ? 0x3000 : random(2) ? 0x20000 : 0x10ffff)
        return String.fromCodePoint(c >> 11 === 27 ? 0xfdfa : c)
    }
    const c = pick([1 + random(127), random(0x250), 0x4e00 + random(0x5000 - 48),
        0x300 + random(64), 0x391 + random(17), 0x400 + random(0x100), 0x1e00 + random(0x100),
        0x2010 + random(0x30),
        0x3041 + random(0x50), 0xac00 + random(11172), 0x1f300 + random(0x30),
        0xff01 + random(0x5e), 0x250 + random(0x120),
        0x370 + random(0x900), 0x900 + random(0x300), 0x1f00 + random(0x500),
        0x1d400 + random(0x300), 0x1f300 + random(0x300), 0xe000 + random(0x1900),
        0xf900 + random(0x100), 0xfb00 + random(0x4f), 0x20000 + random(0xa000)])
    return String.fromCodePoint(c || 1)
}
function text() {
    let s = ''
    for (let n = 1 + random(12); n > 0; n--)
        s += (random(4) ? pick(extra.length && !random(3) ? extra : words)
            : character() + character()) + pick(gaps)
    return s
}

// With SWEEP=1 the texts for normalizers and WordPiece are all characters that there are.
function sweep(_, i) {
    const step = Math.ceil(0x32600 / count), codes = Array.from({ length: step }, (_, k) =>
        1 + i * step + k).map(c => c < 0x32400 ? c : 0xe0000 + c - 0x32400)
    return codes.filter(c => c >> 11 !== 27).map(c => String.fromCodePoint(c))
        .join(i % 2 ? 'a' : 'e\u0323')
}

// Metadata of a GGUF file (version 3).
function read_gguf(file) {
    const data = fs.readFileSync(file)
    let at = 8
    const u32 = () => data.readUInt32LE((at += 4) - 4)
    const u64 = () => Number(data.readBigUInt64LE((at += 8) - 8))
    const string = () => { const n = u64(); return data.toString('utf8', at, at += n) }
    const sizes = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]
    const value = type => {
        if (type === 8) return string()
        if (type === 9) { const of = u32(); return Array.from({ length: u64() }, () => value(of)) }
        at += sizes[type]
        return type === 4 || type === 5 ? data.readInt32LE(at - 4) : data[at - sizes[type]]
    }
    u64() // tensors
    const meta = {}
    for (let n = u64(); n > 0; n--) { const key = string(); meta[key] = value(u32()) }
    return meta
}

// The expressions of some tokenizers, by what we call their words.
const short = "(?i:'s|'t|'re|'ve|'m|'ll|'d)", one = '[^\\r\\n\\p{L}\\p{N}]?'
const space = '|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+', signs = '| ?[^\\s\\p{L}\\p{N}]+'
const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]', lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]'
const cases = end => `${one}${upper}*${lower}+${end}|${one}${upper}+${lower}*${end}|`
const llama = `${short}|${one}\\p{L}+|\\p{N}{1,3}${signs}[\\r\\n]*${space}`
const expressions = {
    'llama-bpe': [llama],
    qwen2: [llama.replace('{1,3}', '')],
    qwen35: [`${short}|${one}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*${space}`],
    o200k: [`${cases(short + '?')}\\p{N}{1,3}${signs}[\\r\\n/]*${space}`],
    'tekken-case': [`${cases('')}\\p{N}${signs}[\\r\\n/]*${space}`],
    'deepseek-v3': ['\\p{N}{1,3}', '[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+',
        '[!"#$%&\'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?' +
        '[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+'],
    bloom: [' ?[^(\\s|[.,!?…。，、।۔،])]+'],
    smollm: null, 'gpt-2': null, front: null,
}

// Its vocabulary as Hugging Face would have it; escaped or not, merges as lines or as pairs.
function from_gguf(meta, words) {
    const pre = words ?? meta['tokenizer.ggml.pre']
    const Regex = expressions[pre]
    const tokens = meta['tokenizer.ggml.tokens']
    const types = meta['tokenizer.ggml.token_type'] ?? tokens.map(() => 1)
    const special = i => types[i] === 3 || types[i] === 4
    const level = {
        type: 'ByteLevel', add_prefix_space: pre === 'front', trim_offsets: true, use_regex: !Regex,
    }
    const splits = (Regex ?? []).map(Regex =>
        ({ type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }))
    if (pre === 'smollm') splits.push({ type: 'Digits', individual_digits: true })
    const merges = meta['tokenizer.ggml.merges'], id = tokens[meta['tokenizer.ggml.bos_token_id']]
    const single = [{ SpecialToken: { id, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }]
    const special_tokens = { [id]: { id, ids: [tokens.indexOf(id)], tokens: [id] } }
    const whole = pre === 'llama-bpe' || pre === 'o200k'
    const template = { type: 'TemplateProcessing', single, pair: [], special_tokens }
    return {
        added_tokens: tokens.map((content, id) => ({ id, content, special: types[id] === 3,
            single_word: false, lstrip: false, rstrip: false, normalized: false }))
            .filter(t => special(t.id)),
        normalizer: pre.startsWith('qwen') ? { type: 'NFC' } : null,
        pre_tokenizer: { type: 'Sequence', pretokenizers: [...splits, level] },
        post_processor: pre === 'llama-bpe' ? template : null,
        decoder: null,
        model: {
            type: 'BPE', unk_token: null, byte_fallback: false, ignore_merges: whole,
            vocab: Object.fromEntries(tokens.map((t, i) => [t, i]).filter(t => !special(t[1]))),
            merges: Regex ? merges.map(m => m.split(' ')) : merges,
        },
    }
}

// An encoding of tiktoken: ranks as lines "! FIRST BASE64 BASE64 ...".
function from_tiktoken(name, written) {
    const beside = path.resolve(library, '..', 'tiktoken')
    const { Tiktoken } = require(path.join(beside, 'tiktoken.cjs'))
    const json = require(path.join(beside, 'encoders', `${name}.json`))
    const lines = json.bpe_ranks.split('\n').filter(line => line).flatMap(line => {
        const [, first, ...tokens] = line.split(' ')
        return tokens.map((token, i) => `${token} ${Number(first) + i}\n`)
    })
    fs.writeFileSync(written, lines.join(''))
    const peer = new Tiktoken(json.bpe_ranks, json.special_tokens, json.pat_str)
    return { encode: text => ({ getIds: () => Array.from(peer.encode_ordinary(text)) }) }
}
// tiktoken's classes of characters are of Unicode 16, or later: letters that ours, of 15.1 as
// llama.cpp's, do not know are not asked for.
const newer = new RegExp('[\\u0897\\u1c89\\u1c8a\\ua7cb-\\ua7cd\\ua7da-\\ua7dc' +
    '\\u{105c0}-\\u{105ff}\\u{10d40}-\\u{10d8f}\\u{10ec2}-\\u{10ec7}\\u{11380}-\\u{113ff}' +
    '\\u{116d0}-\\u{116ff}\\u{11b60}-\\u{11bff}\\u{11db0}-\\u{11def}\\u{13460}-\\u{143ff}' +
    '\\u{16100}-\\u{1613f}\\u{16d40}-\\u{16d7f}\\u{16ea0}-\\u{16edf}\\u{1cc00}-\\u{1cebf}' +
    '\\u{1e5d0}-\\u{1e5ff}\\u{1e6c0}-\\u{1e6ff}\\u{323b0}-\\u{3347f}]', 'gu')
const tiktoken_words = { gpt2: 'gpt-2', cl100k_base: 'smaug-bpe', o200k_base: 'o200k' }

// Ids to text: those of the texts, and any; without special tokens, and with them. (Of an added
// token that is normalized the library shows the normalized text, and special or not: we do not.)
async function decode(written, json, got) {
    const peer = Tokenizer.fromString(JSON.stringify({ ...json,
        added_tokens: json.added_tokens.map(t => ({ ...t, normalized: false })) }))
    const n_ids = Math.max(...json.added_tokens.map(t => 1 + t.id),
        Object.keys(json.model.vocab).length)
    const lists = got.slice(0, count).map((line, i) => i % 2 ? line.split(' ').map(Number)
        : Array.from({ length: random(20) }, () => random(n_ids))).filter(l => l.length)
    const bytes = /<0x..>/.test(JSON.stringify(Object.keys(json.model.vocab).slice(0, 400)))
    if (bytes) // runs of byte tokens that are text
        lists.push(...texts_of_bytes(json.model.vocab))
    let bad = 0
    for (const skip of [true, false]) {
        const lines = path.join(folder, 'lines')
        fs.writeFileSync(lines, lists.map(l => l.join(' ') + '\n').join(''))
        const ours = execFileSync(ids, [written, lines, skip ? 'shown' : 'all'],
            { maxBuffer: 1 << 28 })
        let at = 0
        for (const list of lists) {
            const want = await peer.decode(list, skip)
            const end = ours.indexOf(255, at), shown = ours.toString('utf8', at, end)
            at = end + 1
            if (shown === want) continue
            if (bad++ < 3)
                console.log(list.join(' '), skip, '\n  ours', JSON.stringify(shown),
                    '\n  peer', JSON.stringify(want))
        }
    }
    if (bad) console.log(`  ${bad} of ${2 * lists.length} lists of ids have another text`)
    return bad
}
function texts_of_bytes(vocab) {
    const ids = Array.isArray(vocab) ? new Map(vocab.map((t, i) => [t[0], i]))
        : new Map(Object.entries(vocab))
    return Array.from({ length: 200 }, () => Array.from(Buffer.from(text()).subarray(0, 40),
        b => ids.get(`<0x${b.toString(16).toUpperCase().padStart(2, '0')}>`))
        .filter(id => id !== undefined)).filter(l => l.length)
}

let passed = 0, failed = 0
for (const [number, name] of files.entries()) {
    const [file, words] = name.split(':')
    const gguf = file.endsWith('.gguf')
    count = /(split|decode|added|bpe)\d/.test(name) ? Math.min(most, 1000) : most
    const tiktoken = file === 'tiktoken'
    const json = gguf ? from_gguf(read_gguf(file), words)
        : tiktoken ? { model: {} } : JSON.parse(fs.readFileSync(file))
    const written = path.join(folder, `${number}.${tiktoken ? 'tiktoken' : 'json'}`)
    const lines = path.join(folder, 'texts')
    if (!tiktoken) fs.writeFileSync(written, JSON.stringify(json))
    const peer = tiktoken ? from_tiktoken(words, written)
        : Tokenizer.fromString(JSON.stringify(json))
    any = json.model.type === 'WordPiece' || !json.model.merges?.length
    extra = !name.includes('added') ? [] : json.added_tokens.flatMap(t =>
        [t.content, t.content.toUpperCase(), t.content + 's', `a${t.content}`])
    const texts = Array.from({ length: count }, any && process.env.SWEEP ? sweep : text)
        .map(t => tiktoken || /split|added/.test(name) ? t.replace(newer, '') : t)
    fs.writeFileSync(lines, texts.join('\0'))
    const how = tiktoken ? ['plain', tiktoken_words[words]] : ['special']
    const got = execFileSync(ids, [written, lines, ...how], { maxBuffer: 1 << 28 })
        .toString().split('\n')
    let bad = 0
    for (let i = 0; i < count; i++) {
        const want = (await peer.encode(texts[i])).getIds().join(' ')
        if (got[i] === want) continue
        if (bad++ < 3)
            console.log(JSON.stringify(texts[i]), '\n  ours', got[i], '\n  peer', want)
    }
    console.log(`${name.split(path.sep).slice(-2).join('/')}: ${count - bad} of ${count} texts ` +
        `have the ids of ${tiktoken ? 'tiktoken' : "Hugging Face's library"}`)
    if (!tiktoken) bad += await decode(written, json, got)
    bad ? failed++ : passed++
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`)
process.exit(failed || !passed ? 1 : 0)

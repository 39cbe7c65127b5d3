// hf_ids.mjs - ids of random texts by our reader of tokenizer.json, beside Hugging Face's library.
//     node tests/hf_ids.mjs IDS LIBRARY FOLDER VOCABULARY... [-n TEXTS]
// IDS is tests/ids.c, compiled; LIBRARY the module file of npm's @huggingface/tokenizers. FOLDER
// gets a safetensors file of no use but to stand beside the tokenizer, and what is compared. A
// VOCABULARY is a tokenizer.json, or a GGUF file with a byte-level one, which is written as such.
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const args = process.argv.slice(2)
const at = args.indexOf('-n')
const count = at < 0 ? 3000 : Number(args.splice(at, 2)[1])
const [ids, library, folder, ...files] = args
const { Tokenizer } = await import(pathToFileURL(path.resolve(library)).href)

let state = 12345
const random = n => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0, (state >>> 8) % n)
const pick = list => list[random(list.length)]

const words = ('the cat sat on a mat Once upon time there was little girl named Lily ' +
    "don't I'LL we've 'S 12 1234567 3.14 x=y+1; {} ... --- \u00e9t\u00e9 na\u00efve \u00df " +
    '\u4f60\u597d \u3053\u3093\u306b\u3061\u306f \u043f\u0440\u0438\u0432\u0435\u0442 ' +
    '\u0645\u0631\u062d\u0628\u0627 \ud83d\ude00\ud83d\ude80 \u0905\u0928\u0941 \u2581 \u00a0 ' +
    'aaaaaaaaaaaaaaaa abababab').split(' ')
const gaps = [' ', ' ', ' ', '  ', '   ', '\n', '\n\n', '\r\n', '\t', '', ' \n ', '\u3000']
// Any assigned-looking character but surrogates and what NFC would change. U+0085 is white space to
// Unicode and to Hugging Face's own library, but not to JavaScript's expressions.
function character() {
    const c = pick([random(128), random(0x250), 0x400 + random(0x100), 0x4e00 + random(0x5000),
        0x1f300 + random(0x300)])
    const s = String.fromCodePoint(c || 1)
    return s.normalize('NFC') === s && c && c !== 0x85 ? s : 'z'
}
function text() {
    let s = ''
    for (let n = 1 + random(12); n > 0; n--)
        s += (random(4) ? pick(words) : character() + character()) + pick(gaps)
    return s
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

// Its vocabulary as Hugging Face would have it; escaped or not, merges as lines or as pairs.
function from_gguf(meta) {
    const llama = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?" +
        '[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+'
    const pre = meta['tokenizer.ggml.pre']
    const Regex = { 'llama-bpe': llama, qwen2: llama.replace('{1,3}', '') }[pre]
    const tokens = meta['tokenizer.ggml.tokens']
    const types = meta['tokenizer.ggml.token_type'] ?? tokens.map(() => 1)
    const special = i => types[i] === 3 || types[i] === 4
    const level = { type: 'ByteLevel', add_prefix_space: false, use_regex: !Regex }
    const split = { type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false }
    const merges = meta['tokenizer.ggml.merges'], id = tokens[meta['tokenizer.ggml.bos_token_id']]
    const single = [{ SpecialToken: { id, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }]
    const special_tokens = { [id]: { id, ids: [tokens.indexOf(id)], tokens: [id] } }
    const whole = pre === 'llama-bpe'
    const template = { type: 'TemplateProcessing', single, pair: [], special_tokens }
    return {
        added_tokens: tokens.map((content, id) => ({ id, content, special: types[id] === 3 }))
            .filter(t => special(t.id)),
        normalizer: null,
        pre_tokenizer: Regex ? { type: 'Sequence', pretokenizers: [split, level] } : level,
        post_processor: whole ? template : null,
        decoder: { type: 'ByteLevel' },
        model: {
            type: 'BPE', unk_token: null, byte_fallback: false, ignore_merges: whole,
            vocab: Object.fromEntries(tokens.map((t, i) => [t, i]).filter(t => !special(t[1]))),
            merges: Regex ? merges.map(m => m.split(' ')) : merges,
        },
    }
}

// One tensor, so that the file opens as a vocabulary of n tokens.
function write_model(dir, n) {
    fs.mkdirSync(dir, { recursive: true })
    const header = Buffer.from(JSON.stringify({
        'model.embed_tokens.weight': { dtype: 'F32', shape: [n, 1], data_offsets: [0, 4 * n] },
    }))
    const length = Buffer.alloc(8)
    length.writeBigUInt64LE(BigInt(header.length))
    fs.writeFileSync(path.join(dir, 'model.safetensors'),
        Buffer.concat([length, header, Buffer.alloc(4 * n)]))
    fs.writeFileSync(path.join(dir, 'config.json'), JSON.stringify({
        model_type: 'llama', vocab_size: n, hidden_size: 2, intermediate_size: 2,
        num_hidden_layers: 1, num_attention_heads: 1, rms_norm_eps: 1e-5,
        max_position_embeddings: 64,
    }))
}

let passed = 0, failed = 0
for (const [number, file] of files.entries()) {
    const dir = path.join(folder, 'hf' + number)
    const gguf = file.endsWith('.gguf')
    const json = gguf ? from_gguf(read_gguf(file)) : JSON.parse(fs.readFileSync(file))
    const most = [...Object.values(json.model.vocab), ...json.added_tokens.map(t => t.id)]
        .reduce((a, b) => Math.max(a, b))
    write_model(dir, most + 1)
    if (!gguf) fs.copyFileSync(file, path.join(dir, 'tokenizer.json'))
    else fs.writeFileSync(path.join(dir, 'tokenizer.json'), JSON.stringify(json))
    const peer = new Tokenizer(json, {})
    const texts = Array.from({ length: count }, text)
    fs.writeFileSync(path.join(dir, 'texts'), texts.join('\0'))
    const got = execFileSync(ids, [path.join(dir, 'model.safetensors'), path.join(dir, 'texts')],
        { maxBuffer: 1 << 28 }).toString().trimEnd().split('\n')
    let bad = 0
    for (let i = 0; i < count; i++) {
        const want = peer.encode(texts[i]).ids.join(' ')
        if (got[i] === want) continue
        if (bad++ < 3) console.log(JSON.stringify(texts[i]), '\n  ours', got[i], '\n  peer', want)
    }
    const name = file.split(path.sep).slice(-2).join('/')
    console.log(`${name}: ${count - bad} of ${count} texts have the ids of Hugging Face's library`)
    bad ? failed++ : passed++
}
console.log(`${passed} passed, ${failed} failed, 0 skipped`)
process.exit(failed || !passed ? 1 : 0)

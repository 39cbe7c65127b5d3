// tokens_peer.mjs - text to ids by tiktoken, in MB a second: its WebAssembly build (npm: tiktoken)
// and a native one where there is one (npm: tiktoken-rs-node-linux-x64-gnu).
//     node bench/tokens_peer.mjs NODE_MODULES ENCODING TEXT RUNS
// With FOLDER as a fifth argument it writes the encoding as FOLDER/ENCODING.tiktoken and ends.
import fs from 'node:fs'
import { createRequire } from 'node:module'
import path from 'node:path'

const [modules, name, file, runs, folder] = process.argv.slice(2)
const require = createRequire(import.meta.url), at = p => path.resolve(modules, p)
const json = require(at(`tiktoken/encoders/${name}.json`))
if (folder) {
    const lines = json.bpe_ranks.split('\n').filter(line => line).flatMap(line => {
        const [, first, ...tokens] = line.split(' ')
        return tokens.map((token, i) => `${token} ${Number(first) + i}\n`)
    })
    fs.writeFileSync(path.join(folder, `${name}.tiktoken`), lines.join(''))
    process.exit(0)
}
const text = fs.readFileSync(file, 'utf8')
const { Tiktoken } = require(at('tiktoken/tiktoken.cjs'))
const wasm = new Tiktoken(json.bpe_ranks, json.special_tokens, json.pat_str)
const builds = { WebAssembly: () => wasm.encode_ordinary(text).length }
try {
    const native = require(at('tiktoken-rs-node-linux-x64-gnu')).getEncoding(name)
    builds.native = () => native.encode(text).length
} catch { } // there is none for this machine
for (const [build, run] of Object.entries(builds)) {
    let best = Infinity, n
    for (let i = 0; i < Number(runs); i++) {
        const start = process.hrtime.bigint()
        n = run()
        best = Math.min(best, Number(process.hrtime.bigint() - start))
    }
    const rate = Buffer.byteLength(text) / best * 1e3
    console.log(`${name} ${path.basename(file)} ${n} ids  tiktoken ${build} ${rate.toFixed(2)} MB/s`)
}

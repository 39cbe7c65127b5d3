"""parity.py - logits of our engine beside llama.cpp's, and both beside a float64 forward pass.

Called by parity.sh, which names everything by environment variables. For every model and type the
same file goes through our engine at every ISA level and thread count (equal bits), through the
peer's builds, and through numpy in float64 on the dequantised weights: the truth. Then
  f32    is within 1e-5 of the range of a position's logits, of each of the peer's builds and of the
         truth, with the same argmax at every position;
  others lie, on average over all models, no further from the truth than the best of the peer's
         builds. The argmax is compared where the peer's first two logits are further apart than
         its noise: its builds from each other, or twice its best build from the truth. (Several of
         its builds round alike, to the bit, so that the first alone would not measure anything.)

Both engines round activations to int8 for q8_0 and q4_0, but llama.cpp keeps their scales as
float16 and we as float32. (With activations rounded so, float64 has ours or its logits: checked on
what build/train makes.) One value that rounds the other way starts two different walks, equally
long on average (0.1 % +- 0.2 % over 160 files), so which engine is nearer on one file is
luck: hence several files a model, and tolerances of the size that this luck has.

For q4_k, q5_k and q6_k both engines round a block of 256 activations to int8 with a float32 scale,
and to the same integers, so that the walks are one until a value within float32's noise of a half
parts them. What comes before is compared like f32: it must be the first position of most files.

Files that we write (build/quantize) go the same way: llama.cpp opens them and has our logits, from
every format that we convert and in every type; and the rows of a type are no further from the
weights than those that ggml_quantize_chunk makes of them.

An adapter that build/finetune learned is opened by llama.cpp, whose logits of the model with it are
ours of the model it was merged into, and ours of the model with it. Of a quantised model those are
within 5 % of what it changes.

Embeddings, of encoders and others, by every pooling, are llama.cpp's to 1e-5 of the largest number
(bert's to 2e-4: llama.cpp looks GELU up in a table of halves; bert-steep has none of that).

With the KV cache in other types the logits of trained models lie no further from those with F32,
on average, than llama.cpp's do. (ONLY="kv types" prints that table alone.)

When tokens are removed and those behind them moved forward (sm_seq_shift, llama_memory_seq_add),
the logits of what follows are llama.cpp's with F32 keys, as above; with F16 both are printed.

Blocks of every type, with every float16 scale and random bits, decode to the same float32 bits by
sm_type_decode, by ggml's dequantize_row_* and by the numpy decoders that the truth stands on."""
import ctypes
import json
import os
import struct
import subprocess
import sys

import numpy as np

import families
import mkgpt2

OUT = os.environ['OUT']
ENGINE = os.environ['ENGINE']
DECODE = os.environ['DECODE']
QUANTIZE, TRAIN, FINETUNE = (os.environ[k] for k in ('QUANTIZE', 'TRAIN', 'FINETUNE'))
PERPLEXITY, PERPLEXITY_BOUND = os.environ['PERPLEXITY'], 1e-4
MKMODELS, EMBEDDINGS = os.environ['MKMODELS'], os.environ['EMBEDDINGS']
SHIFTED = os.environ['SHIFTED']
TAVERN, IDS = os.environ['TAVERN'], os.environ['IDS']
ISAS = os.environ['ISAS'].split()
PEERBENCH = os.environ['PEERBENCH']
PEERS = dict(p.split('=', 1) for p in os.environ['PEERS'].split())  # name -> folder, best last
SHARED = os.environ['SHARED']
ONLY = os.environ.get('ONLY', '')
REQUIRE_DATA = os.environ.get('REQUIRE_DATA') == '1'

N_IDS = 64
F32_BOUND = 1e-5
TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_k', 'q5_k', 'q6_k']
K_TYPES = TYPES[5:]
# One file of each, which we write.
MORE_TYPES = ['q4_1', 'q5_0', 'q5_1', 'iq4_nl', 'mxfp4', 'q2_k', 'q3_k', 'iq4_xs', 'tq1_0', 'tq2_0']
# Of a model, with other weights and ids; else one.
FILES = {'q8_0': 4, 'q4_0': 4, 'q4_k': 6, 'q5_k': 6, 'q6_k': 6}
WORSE_KV = 1.05  # allowed: a cache's mean error, by llama.cpp's with the same types
WORSE_MODEL, WORSE_TYPE = 1.08, 1.01  # allowed: one file deviates by 2 %, a type's mean by 0.4 %

# In the order of mkgguf.py's table: architecture, layers, dim, heads, KV heads, head's dim, ff,
# vocabulary, positions, rope base, tied. The K-quants need widths that are multiples of 256; where
# one is not, mkgguf.py writes Q8_0: in llama_gqa everywhere but in ffn_down, as published files do.
# (Where dim is a multiple, it writes the embeddings of Q4_0 and Q4_K in Q6_K.)
SHAPES = {
    'llama_gqa': ('llama', 3, 288, 9, 3, 32, 768, 1003, 2048, 10000., True),
    'qwen2_mqa': ('qwen2', 3, 448, 7, 1, 64, 1216, 1000, 8192, 1e6, True),
    'qwen3_wide': ('qwen3', 3, 320, 4, 2, 128, 960, 1001, 8192, 1e6, False),
}
K_SHAPES = {
    'llama_gqa': SHAPES['llama_gqa'],
    'llama_k': ('llama', 2, 512, 8, 2, 64, 768, 1003, 2048, 10000., True),
    'qwen2_k': ('qwen2', 2, 256, 4, 1, 64, 1024, 1000, 8192, 1e6, True),
    'qwen3_k': ('qwen3', 2, 256, 4, 2, 128, 768, 1001, 8192, 1e6, False),
}


# --- the files ------------------------------------------------------------------------------------

class Gguf:
    """Metadata and float64 weights of a GGUF file that mkgpt2.py or mkgguf.py wrote."""

    VALUES = 'BbHhIif?__Qqd'  # by GGUF's number of the type; 8 is a string, 9 an array

    def __init__(self, path):
        with open(path, 'rb') as f:
            self.data = f.read()
        self.at = 4
        version, n_tensors, n_meta = self.take('<IQQ')
        assert self.data[:4] == b'GGUF' and version == 3, path
        self.meta = {}
        for _ in range(n_meta):
            key = self.string()
            self.meta[key] = self.value(self.take('<I')[0])
        self.arch = self.meta['general.architecture']
        infos = []
        for _ in range(n_tensors):
            name = self.string()
            dims = self.take('<%dQ' % self.take('<I'))[::-1]
            infos.append((name, dims, *self.take('<IQ')))
        start = -(-self.at // self.meta.get('general.alignment', 32)) * 32
        names = {number: name for name, number in mkgpt2.GGML_TYPES.items()}
        self.tensors = {}
        for name, dims, typ, offset in infos:
            at, n = start + offset, int(np.prod(dims))
            data = self.data[at:at + mkgpt2.row_bytes(names[typ], n)]
            self.tensors[name] = mkgpt2.decode(data, names[typ], n).reshape(dims)

    def take(self, form):
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self):
        n, = self.take('<Q')
        self.at += n
        return self.data[self.at - n:self.at].decode('utf-8', 'replace')

    def value(self, typ):
        if typ == 8:
            return self.string()
        if typ == 9:
            typ, n = self.take('<IQ')
            return [self.value(typ) for _ in range(n)]
        return self.take('<' + self.VALUES[typ])[0]

    def key(self, name, default=None):
        return self.meta.get(self.arch + '.' + name, default)


def make_random(shape, typ, path, seed):
    """Runs mkgguf.py in here, with our shapes added to its table."""
    tool = os.path.join(SHARED, 'tools', 'mkgguf.py')
    with open(tool) as f:
        code = f.read().replace('\ndef main():', '\nSHAPES.update(EXTRA)\ndef main():', 1)
    os.environ['PEER'] = list(PEERS.values())[-1]
    argv, stdout = sys.argv, sys.stdout
    sys.argv = [tool, shape, typ, path, '--seed', str(seed)]
    with open(os.devnull, 'w') as sys.stdout:
        try:
            exec(compile(code, tool, 'exec'), {'EXTRA': {**SHAPES, **K_SHAPES}})
        finally:
            sys.argv, sys.stdout = argv, stdout


# --- the truth: a forward pass in float64 ---------------------------------------------------------

def rms_norm(x, w, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w


def layer_norm(x, w, b, eps):
    return rms_norm(x - x.mean(-1, keepdims=True), w, eps) + b


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def rotate(x, base, pairs):
    """x: positions, heads, dim. Pairs of neighbours, or of the halves."""
    n, _, dim = x.shape
    angle = np.outer(np.arange(n), base ** (-np.arange(0, dim, 2) / dim))[:, None]
    a, b = (x[..., ::2], x[..., 1::2]) if pairs else (x[..., :dim // 2], x[..., dim // 2:])
    c, s = np.cos(angle), np.sin(angle)
    a, b = a * c - b * s, a * s + b * c
    return np.stack([a, b], -1).reshape(x.shape) if pairs else np.concatenate([a, b], -1)


def attention(q, k, v):
    """q: positions, heads, dim; k, v: positions, KV heads, dim."""
    n, heads, dim = q.shape
    k, v = (np.repeat(x, heads // x.shape[1], 1) for x in (k, v))
    scores = np.einsum('ihd,jhd->hij', q, k) / np.sqrt(dim)
    scores[:, np.triu(np.ones((n, n), bool), 1)] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum('hij,jhd->ihd', p / p.sum(-1, keepdims=True), v).reshape(n, -1)


def rounded(x, scale):
    """Activations as both engines round them beside Q8_0: 32 at a time to int8, with a float32
    scale that llama.cpp keeps as float16."""
    blocks = x.astype(np.float32).reshape(len(x), -1, 32)
    top = np.abs(blocks).max(2, keepdims=True)
    q = np.rint(blocks * (np.float32(127) / top))
    return (q * (top / np.float32(127)).astype(scale).astype(np.float64)).reshape(x.shape)


def forward(m, ids, scale=None):
    """scale: activations are rounded, with scales of this type."""
    t, n = m.tensors, len(ids)
    heads = m.key('attention.head_count')
    kv_heads = m.key('attention.head_count_kv', heads)
    dim = m.key('attention.key_length', m.key('embedding_length') // heads)
    gpt2 = m.arch == 'gpt2'
    eps = m.key('attention.layer_norm_epsilon' if gpt2 else 'attention.layer_norm_rms_epsilon')
    base = m.key('rope.freq_base', 10000.0)

    def linear(x, name):
        x = rounded(x, scale) if scale else x
        return x @ t[name + '.weight'].T + t.get(name + '.bias', 0)

    def norm(x, name):
        w = t[name + '.weight']
        return layer_norm(x, w, t[name + '.bias'], eps) if gpt2 else rms_norm(x, w, eps)

    x = t['token_embd.weight'][ids]
    if gpt2:
        x = x + t['position_embd.weight'][:n]
    for i in range(m.key('block_count')):
        b = 'blk.%d.' % i
        h = norm(x, b + 'attn_norm')
        if gpt2:
            q, k, v = np.split(linear(h, b + 'attn_qkv'), 3, 1)
        else:
            q, k, v = (linear(h, b + 'attn_' + c) for c in 'qkv')
        q = q.reshape(n, heads, dim)
        k, v = (y.reshape(n, kv_heads, dim) for y in (k, v))
        if b + 'attn_q_norm.weight' in t:
            q, k = norm(q, b + 'attn_q_norm'), norm(k, b + 'attn_k_norm')
        if not gpt2:
            q, k = (rotate(y, base, m.arch == 'llama') for y in (q, k))
        x = x + linear(attention(q, k, v), b + 'attn_output')
        h = norm(x, b + 'ffn_norm')
        up = linear(h, b + 'ffn_up')
        if gpt2:
            up = gelu(up)
        else:
            gate = linear(h, b + 'ffn_gate')
            up = up * gate / (1 + np.exp(-gate))
        x = x + linear(up, b + 'ffn_down')
    t.setdefault('output.weight', t['token_embd.weight'])
    return linear(norm(x, 'output_norm'), 'output')


# --- the engines ----------------------------------------------------------------------------------

def run(argv, logits, n, **env):
    """The logits that a program wrote for n ids, as bytes; None after a message."""
    if os.path.exists(logits):
        os.remove(logits)
    try:
        p = subprocess.run(argv, env={**os.environ, **env}, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, timeout=120)
        why = p.stdout.decode('utf-8', 'replace')[-600:].strip() + ' (status %d)' % p.returncode
        if p.returncode == 0:
            with open(logits, 'rb') as f:
                data = f.read()
            if data and len(data) % (4 * n) == 0:
                return data
    except (OSError, subprocess.TimeoutExpired) as e:
        why = str(e)
    print('    %s: %s' % (' '.join(argv), why))
    return None


def ours(path, ids_file, n, isa, threads, batch, *options):
    out = os.path.join(OUT, 'ours.logits')
    return run([ENGINE, '-m', path, '--ids', ids_file, '--logits', out, '--kv', 'f32', '--isa', isa,
                '-t', str(threads), '--batch', str(batch), *options], out, n)


def peer(path, ids_file, n, name):
    """F32 KV and no flash attention, which alone would move logits by more than our bound."""
    out = os.path.join(OUT, 'peer.logits')
    return run([PEERBENCH, '-m', path, '-i', ids_file, '-l', out, '-a', '1', '-k', '0', '-f', '0',
                '-n', '0', '-r', '0', '-t', '1'], out, n, PEER=PEERS[name])


def rows(data, n):
    return np.frombuffer(data, '<f4').astype('f8').reshape(n, -1)


# --- comparing ------------------------------------------------------------------------------------

counts = {'passed': 0, 'failed': 0, 'skipped': 0}


def check(good, what):
    counts['passed' if good else 'failed'] += 1
    if not good:
        print('    FAILED: ' + what)
    return good


def skip(what):
    counts['failed' if REQUIRE_DATA else 'skipped'] += 1
    print('    %s: %s' % ('FAILED, REQUIRE_DATA=1' if REQUIRE_DATA else 'skipped', what))


def difference(a, b):
    """The largest one, in ranges of b's logits at that position. A NaN is endless."""
    d = (np.abs(a - b).max(1) / np.ptp(b, 1)).max()
    return d if d == d else np.inf


def mean_error(a, truth):
    d = (np.abs(a - truth).mean(1) / np.ptp(truth, 1)).mean()
    return d if d == d else np.inf


def same_argmax(a, b, where=slice(None)):
    same = (a.argmax(1) == b.argmax(1))[where]
    return '%d/%d' % (same.sum(), len(same)), same.all()


def beyond_noise(builds, truth):
    """Positions at which llama.cpp's first two logits are further apart than its builds are from
    each other; and than twice the best is from the truth, too."""
    best = builds[-1]
    first_two = np.sort(best, 1)[:, -2:]
    gap = first_two[:, 1] - first_two[:, 0]
    apart = gap > np.max([np.abs(b - best).max(1) for b in builds], 0)
    return apart, apart & (gap > 2 * np.abs(best - truth).max(1))


errors = {t: [] for t in TYPES + MORE_TYPES}  # [ours, the peer's builds...] of every file
leads = {t: [] for t in K_TYPES}  # of files without Q8_0: positions before the walks part
HEAD = ('model, positions', 'type', 'max-peer', 'max-truth', 'mean ours', 'mean peer', 'ratio',
        'argmax', 'decided')
LINE = '%-16s %-5s %9s %9s %10s %10s %6s %8s %8s'


def cell(v):
    return '-' if v is None else v if isinstance(v, str) else '%.2e' % v


def our_logits(name, path, ids_file, n, isas):
    """The bytes that every level, thread count and chunk length agree on."""
    # A batch of one row, as in decoding, has other kernels than longer ones.
    runs = [(isa, *r) for isa in isas for r in ((1, 0), (2, 0), (2, 1))] + [(isas[-1], 2, 5)]
    got = [ours(path, ids_file, n, *r) for r in runs]
    odd = ['%s, %d threads, batch %d' % r for r, g in zip(runs, got) if not g or g != got[-1]]
    check(not odd, '%s: failed, or other bits, at %s' % (name, '; '.join(odd)))
    return got[-1]


def evaluate(name, path, ids, isas=None):
    """The model, and the logits: the truth, ours, the peer's builds. Without levels only the best
    one runs. None if an engine failed."""
    n, ids_file = len(ids), os.path.join(OUT, 'ids.txt')
    with open(ids_file, 'w') as f:
        f.write('\n'.join(map(str, ids)) + '\n')
    a = (our_logits(name, path, ids_file, n, isas) if isas else
         ours(path, ids_file, n, ISAS[-1], 2, 0))
    builds = [peer(path, ids_file, n, p) for p in PEERS]
    if a is None or None in builds:
        check(False, name + ': an engine failed')
        return None
    model = Gguf(path)
    return model, forward(model, ids), rows(a, n), [rows(b, n) for b in builds]


def record(shape, typ, truth, a, builds):
    errors[typ].append([mean_error(x, truth) for x in (a, *builds)])
    if typ in K_TYPES and shape != 'llama_gqa':
        near = [np.abs(a - b).max(1) <= F32_BOUND * np.ptp(b, 1) for b in builds]
        leads[typ].append(max(np.logical_and.accumulate(x).sum() for x in near))


def compare(shape, typ, path, ids, isas, alone=True):
    """alone=False: one small model says too little of how far it is from the truth."""
    name = '%s %d' % (shape, len(ids))
    result = evaluate(name + ' ' + typ, path, ids, isas)
    if not result:
        return
    model, truth, a, builds = result
    mine, from_truth = mean_error(a, truth), difference(a, truth)
    theirs = ratio = from_peer = argmax = decided = None
    # The peer's GELU makes it rough, see mkgpt2.STEEP: ours is then held to the truth alone.
    strict = typ == 'f32' and (model.arch != 'gpt2' or shape == mkgpt2.STEEP)
    if builds:
        best = builds[-1]
        record(shape, typ, truth, a, builds)
        theirs = min(errors[typ][-1][1:])
        ratio = '%.3f' % (mine / theirs)
        from_peer = max(difference(a, b) for b in builds)
        apart, beyond = beyond_noise(builds, truth)
        if strict:
            apart = beyond = np.ones(len(ids), bool)
        argmax, _ = same_argmax(a, best, apart)
        decided, agree = same_argmax(a, best, beyond)
    print(LINE % (name, typ, *map(cell, (from_peer, from_truth, mine, theirs, ratio, argmax,
                                         decided))))
    name += ' ' + typ
    if typ == 'f32':
        same, every = same_argmax(a, truth)
        check(from_truth <= F32_BOUND and every,
              '%s: %.1e from the truth, argmax %s' % (name, from_truth, same))
    if not builds:
        return
    check(agree, '%s: argmax %s where it is decided' % (name, decided))
    if strict:
        check(from_peer <= F32_BOUND, '%s: %.1e from the peer' % (name, from_peer))
    elif alone:
        check(mine <= WORSE_MODEL * theirs, name + ': further from the truth than the peer')


def more_files(shape, typ, maker, vocab, path):
    """Further weights and ids, for the average only."""
    for seed in range(2, FILES.get(typ, 1) + 1):
        maker(shape, typ, path, seed)
        result = evaluate('%s %s %d' % (shape, typ, seed), path, random_ids(N_IDS, vocab, seed))
        if result:
            record(shape, typ, *result[1:])


# --- blocks ---------------------------------------------------------------------------------------

# Where the 16-bit scales are in a block, and ggml's function.
DECODERS = {
    'f16': ([0], 'ggml_fp16_to_fp32_row'),
    'bf16': ([0], 'ggml_bf16_to_fp32_row'),
    'q8_0': ([0], 'dequantize_row_q8_0'),
    'q4_0': ([0], 'dequantize_row_q4_0'),
    'q4_k': ([0, 2], 'dequantize_row_q4_K'),
    'q5_k': ([0, 2], 'dequantize_row_q5_K'),
    'q6_k': ([208], 'dequantize_row_q6_K'),
    'q4_1': ([0, 2], 'dequantize_row_q4_1'),
    'q5_0': ([0], 'dequantize_row_q5_0'),
    'q5_1': ([0, 2], 'dequantize_row_q5_1'),
    'iq4_nl': ([0], 'dequantize_row_iq4_nl'),
    'mxfp4': ([], 'dequantize_row_mxfp4'),  # a byte, which takes all values anyway
    'q2_k': ([80, 82], 'dequantize_row_q2_K'),
    'q3_k': ([108], 'dequantize_row_q3_K'),
    'iq4_xs': ([0], 'dequantize_row_iq4_xs'),
    'tq1_0': ([52], 'dequantize_row_tq1_0'),
    'tq2_0': ([64], 'dequantize_row_tq2_0'),
}
# Zeros, denormals, the least and greatest normal numbers, one, endless ones and a NaN.
EXTREMES = [0, 1, 0x3ff, 0x400, 0x3c00, 0x7bff, 0x7c00, 0x7e00]
EXTREMES += [0x8000 | v for v in EXTREMES]


def blocks_of(typ):
    """Random blocks, one with every scale, and one with every pair of extreme scales."""
    rng = np.random.default_rng(1)
    b = rng.integers(0, 256, (65536 + 256, mkgpt2.BLOCKS[typ][1]), 'u1')
    for at, extremes in zip(DECODERS[typ][0], (np.tile(EXTREMES, 16), np.repeat(EXTREMES, 16))):
        scales = np.concatenate([rng.permutation(65536), extremes]).astype('<u2')
        b[:, at:at + 2] = scales[:, None].view('u1')
    return b


def other_bits(a, b):
    """How many differ; two NaN do not."""
    return np.sum((a.view('u4') != b.view('u4')) & ~(np.isnan(a) & np.isnan(b)))


def compare_blocks(typ):
    elements = mkgpt2.BLOCKS[typ][0]
    blocks = blocks_of(typ)
    ggml = None
    if PEERS:
        base = ctypes.CDLL(os.path.join(list(PEERS.values())[-1], 'libggml-base.so'))
        ggml = base[DECODERS[typ][1]]
        ggml.restype, ggml.argtypes = None, [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    from_ggml = from_numpy = 0
    for part in np.array_split(blocks, 8):
        data, n = part.tobytes(), len(part) * elements
        p = subprocess.run([DECODE, str(mkgpt2.GGML_TYPES[typ])], input=data,
                           stdout=subprocess.PIPE, timeout=120)
        if p.returncode or len(p.stdout) != 4 * n:
            return check(False, '%s blocks: decode wrote %d of %d bytes (status %d)' %
                         (typ, len(p.stdout), 4 * n, p.returncode))
        a = np.frombuffer(p.stdout, '<f4')
        with np.errstate(invalid='ignore'):
            from_numpy += other_bits(a, mkgpt2.decode(data, typ, n).astype('<f4'))
        if ggml:
            b = np.empty(n, '<f4')
            ggml(data, b.ctypes.data, n)
            from_ggml += other_bits(a, b)
    n = len(blocks) * elements
    check(not from_numpy, '%s blocks: %d of %d values other than numpy\'s' % (typ, from_numpy, n))
    if ggml:
        check(not from_ggml, '%s blocks: %d of %d values other than ggml\'s' % (typ, from_ggml, n))


# --- the models -----------------------------------------------------------------------------------

def random_ids(n, vocab, seed):
    return np.random.default_rng(seed).integers(0, vocab, n)


def models(typ):
    """shape, maker, vocabulary, ids, levels; the maker is None where a tool is missing."""
    have = PEERS and os.path.exists(os.path.join(SHARED, 'tools', 'mkgguf.py'))
    make = make_random if have else None
    if typ in K_TYPES:
        for shape, v in K_SHAPES.items():
            yield shape, make, v[7], N_IDS, ISAS
        return
    for shape, vocab in {'tiny': 512, **{s: v[7] for s, v in SHAPES.items()}}.items():
        yield shape, make, vocab, N_IDS, ISAS
    for shape, v in mkgpt2.SHAPES.items():
        yield shape, mkgpt2.write, v[4], N_IDS, ISAS
    if typ in ('f32', 'q8_0', 'q4_0') and len(ISAS) > 1:  # too much work for the scalar level
        yield 'stories15m', make, 32000, N_IDS, ISAS[1:]
    if typ == 'f32':  # past the first 256 keys, where attention merges two parts
        yield 'tiny', make, 512, 300, ISAS
        yield 'gpt2_tied', mkgpt2.write, 512, 300, ISAS


def random_models(typ, path):
    for shape, maker, vocab, n, isas in models(typ):
        if ONLY not in '%s %d %s' % (shape, n, typ):
            continue
        if not maker:
            skip('%s %s: no mkgguf.py, or no peer to quantise with' % (shape, typ))
            continue
        maker(shape, typ, path, 1)
        compare(shape, typ, path, random_ids(n, vocab, 1), isas)
        if PEERS and shape != 'stories15m':
            more_files(shape, typ, maker, vocab, path)
        sys.stdout.flush()


def trained_model():
    folder = os.path.join(SHARED, 'data', 'models', 'stories260K')
    try:
        with open(os.path.join(folder, 'expected.json')) as f:
            ids = json.load(f)['helper_python']['empty']['ids']
    except OSError as e:
        return skip('stories260K: %s' % e)
    compare('stories260K', 'f32', os.path.join(folder, 'stories260K.gguf'), ids, ISAS)


# --- files that we wrote --------------------------------------------------------------------------

WORSE_ROWS = 1.02  # allowed: RMSE of a type's rows by that of ggml's


def written(source, typ, *options):
    """The path of what build/quantize makes of a file; None after a failed check."""
    path = os.path.join(OUT, 'written.gguf')
    p = subprocess.run([QUANTIZE, source, path, typ.upper(), '-t', '2', *options],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
    good = check(p.returncode == 0, 'quantize %s %s: %s' % (source, typ, p.stdout.decode()[-300:]))
    return path if good else None


class Params(ctypes.Structure):
    """llama.cpp's parameters by value, whatever is in them: more room than it takes."""
    _fields_ = [('bytes', ctypes.c_ubyte * 1024)]


QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def peer_library():
    """llama.cpp's C functions, of the best build, in this process."""
    folder = list(PEERS.values())[-1]
    libraries = [ctypes.CDLL(os.path.join(folder, name), ctypes.RTLD_GLOBAL) for name in
                 ('libggml-base.so', 'libggml.v0.5.0.so', 'libllama.v0.5.0.so')]
    llama = libraries[-1]
    llama.llama_log_set(QUIET, None)
    libraries[1].ggml_backend_load_all_from_path(folder.encode())
    llama.llama_model_default_params.restype = Params
    llama.llama_context_default_params.restype = Params
    for name, *args in (('llama_model_load_from_file', ctypes.c_char_p, Params),
                        ('llama_model_get_vocab', ctypes.c_void_p),
                        ('llama_init_from_model', ctypes.c_void_p, Params),
                        ('llama_adapter_lora_init', ctypes.c_void_p, ctypes.c_char_p)):
        llama[name].restype, llama[name].argtypes = ctypes.c_void_p, args
    return llama


def peer_ids(paths, texts):
    """What llama.cpp tokenizes the texts to, by the vocabulary of each file."""
    llama = peer_library()
    load, vocab_of = llama.llama_model_load_from_file, llama.llama_model_get_vocab
    llama.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32,
                                     ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool,
                                     ctypes.c_bool]
    ids = []
    for path in paths:
        model = load(path.encode(), llama.llama_model_default_params())
        ids.append([])
        for text in texts if model else []:
            out = (ctypes.c_int32 * 4096)()
            n = llama.llama_tokenize(vocab_of(model), text, len(text), out, 4096, True, False)
            ids[-1].append(list(out[:n]) if n > 0 else None)
    return ids


def same_ids(path, reference):
    texts = [b'Once upon a time', b' two  spaces', b'Zoo\nline \xc3\xa9\xf0\x9f\x98\x80', b'x' * 99]
    ids = peer_ids((path, reference), texts)
    check(len(ids[0]) == len(texts) and None not in ids[0] and ids[0] == ids[1],
          'llama.cpp tokenizes otherwise with our vocabulary: %s' % ids)


LLAMA2C = ['token_embd', 'attn_norm', 'attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_norm',
           'ffn_gate', 'ffn_down', 'ffn_up', 'output_norm']  # in version 0's order


def export_llama2c(source, version, group, path):
    """Writes a tied file of version 0 as version 1 or 2; the F32 weights that it stands for."""
    with open(source, 'rb') as f:
        data = f.read()
    sizes = struct.unpack_from('<7i', data)
    dim, ff, layers, heads, kv_heads, vocab, _ = sizes
    kv = dim // heads * kv_heads
    shapes = [(vocab, dim), (dim,), (dim, dim), (kv, dim), (kv, dim), (dim, dim), (dim,),
              (ff, dim), (dim, ff), (ff, dim), (dim,)]
    weights, at = {}, 28
    for name, shape in zip(LLAMA2C, shapes):
        one = name in ('token_embd', 'output_norm')
        for i in range(1 if one else layers):
            w = np.frombuffer(data, '<f4', int(np.prod(shape)), at).reshape(shape)
            weights[name if one else 'blk.%d.%s' % (i, name)] = w
            at += w.nbytes
    norms = ['attn_norm', 'ffn_norm', 'output_norm']
    order = norms + [name for name in LLAMA2C if name not in norms]
    head = struct.pack('<Ii7iB', 0x616b3432, version, *sizes, 1)
    with open(path, 'wb') as f:
        f.write((head + struct.pack('<i', group)).ljust(256, b'\0'))
        for stem in order:
            for name in [n for n in weights if n.endswith(stem)]:
                w = weights[name]
                if version == 1 or w.ndim == 1:
                    f.write(w.tobytes())
                    continue
                groups = w.reshape(-1, group)
                scale = np.abs(groups).max(1) / np.float32(127)
                q = np.rint(groups / scale[:, None]).astype('i1')
                f.write(q.tobytes() + scale.tobytes())
                weights[name] = (q * scale[:, None]).reshape(w.shape)
    return {name + '.weight': w for name, w in weights.items()}


LLAMA3 = {'rope_scaling': {'rope_type': 'llama3', 'factor': 8., 'low_freq_factor': 1.,
                           'high_freq_factor': 4., 'original_max_position_embeddings': 64}}


def export_shards(source, folder, more):
    """The tensors of a safetensors file in three, an index, and the config with further keys."""
    with open(source, 'rb') as f:
        data = f.read()
    start = 8 + struct.unpack_from('<Q', data)[0]
    tensors = {k: v for k, v in json.loads(data[8:start]).items() if k != '__metadata__'}
    os.makedirs(folder, exist_ok=True)
    where = {name: 'model-%05d-of-00003.safetensors' % (i % 3 + 1)
             for i, name in enumerate(sorted(tensors))}
    for file in set(where.values()):
        header, body = {}, b''
        for name in [n for n in tensors if where[n] == file]:
            a, b = tensors[name]['data_offsets']
            header[name] = {**tensors[name], 'data_offsets': [len(body), len(body) + b - a]}
            body += data[start + a:start + b]
        text = json.dumps(header).encode()
        with open(os.path.join(folder, file), 'wb') as f:
            f.write(struct.pack('<Q', len(text)) + text + body)
    with open(os.path.join(folder, 'model.safetensors.index.json'), 'w') as f:
        json.dump({'metadata': {'total_size': len(data) - start}, 'weight_map': where}, f)
    with open(os.path.join(os.path.dirname(source), 'config.json')) as a, \
            open(os.path.join(folder, 'config.json'), 'w') as b:
        json.dump({**json.load(a), **more}, b)
    return folder


def converted_models():
    """F32 from each format: a GGUF, llama2.c files with their tokenizer, safetensors."""
    folder = os.path.join(SHARED, 'data', 'models')
    stories = os.path.join(folder, 'stories260K', 'stories260K')
    tokenizer = ('-z', os.path.join(folder, 'stories260K', 'tok512.bin'))
    tiny = os.path.join(folder, 'tinystories-656k', 'model.safetensors')
    exported = os.path.join(OUT, 'exported.bin')
    for name, source, vocab, options in (('gguf', stories + '.gguf', 512, ()),
                                         ('llama2.c', stories + '.bin', 512, tokenizer),
                                         ('llama2.c v1', stories + '.bin', 512, tokenizer),
                                         ('llama2.c v2', stories + '.bin', 512, tokenizer),
                                         ('safetensors', tiny, 2048, ()),
                                         ('shards', tiny, 2048, ()),
                                         ('llama3', tiny, 2048, ())):
        if ONLY not in 'written %s f32' % name:
            continue
        if not os.path.exists(source):
            skip('no ' + source)
            continue
        weights, ids = None, random_ids(N_IDS, vocab, 1)
        if ' v' in name:  # groups of 64: the rows of w2 have 172
            weights = export_llama2c(source, int(name[-1]), 64, exported)
            source = exported
        elif name in ('shards', 'llama3'):
            source = export_shards(source, os.path.join(OUT, 'shards'),
                                   LLAMA3 if name == 'llama3' else {})
        path = written(source, 'f32', *options)
        if not path:
            continue
        with open(os.path.join(OUT, 'ids.txt'), 'w') as f:
            f.write('\n'.join(map(str, ids)) + '\n')
        args = (os.path.join(OUT, 'ids.txt'), len(ids), ISAS[-1], 1, 0)
        if name != 'llama3':
            compare('from ' + name, 'f32', path, ids, ISAS[-1:])
        else:  # of its factors the truth above knows nothing
            a, b = (rows(ours(x, *args), len(ids)) for x in (source, tiny))
            c = rows(peer(path, args[0], len(ids), list(PEERS)[-1]), len(ids))
            print('from llama3: %.2e from the peer; the scaling moves logits by %.2e' %
                  (difference(a, c), difference(a, b)))
            check(difference(a, c) <= F32_BOUND and difference(a, b) > 0.01, 'llama3\'s scaling')
        if options:
            same_ids(path, stories + '.gguf')
        if weights:
            tensors = Gguf(path).tensors
            check(all(np.array_equal(tensors[n], w.astype('f8')) for n, w in weights.items()) and
                  len(tensors) == len(weights), name + ': other weights than numpy\'s')
            check(ours(source, *args) == ours(path, *args), name + ': other logits than converted')


def rows_like_ggml(typ, source, path):
    """The matrices of a written file beside ggml's encoding of the same weights."""
    base = ctypes.CDLL(os.path.join(list(PEERS.values())[-1], 'libggml-base.so'))
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    base.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + \
        3 * [ctypes.c_int64] + [ctypes.c_void_p]
    a, b = Gguf(source), Gguf(path)
    ours, theirs = 0., 0.
    for name, w in a.tensors.items():
        if w.ndim == 1 or '_norm' in name:
            continue
        x = np.ascontiguousarray(w, '<f4')
        data = ctypes.create_string_buffer(mkgpt2.row_bytes(typ, x.size))
        base.ggml_quantize_chunk(mkgpt2.GGML_TYPES[typ], x.ctypes.data, data, 0, *x.shape, None)
        ours += np.square(b.tensors[name] - w).sum()
        theirs += np.square(mkgpt2.decode(data.raw, typ, x.size).reshape(x.shape) - w).sum()
    ratio = np.sqrt(ours / theirs) if theirs else 1. + ours
    print('%-5s RMSE of the rows that we wrote, by ggml\'s: %.5f' % (typ, ratio))
    check(ratio <= WORSE_ROWS, '%s: rows further from the weights than ggml\'s' % typ)


def quantised_models():
    source = os.path.join(OUT, 'source.gguf')
    if ONLY not in 'written quantised':
        return
    make_random('llama_k', 'f32', source, 1)
    mixes = ['q2_k_m', 'q3_k_m', 'q4_k_s', 'q4_k_m', 'q5_k_m', 'iq4_xs_m']
    for typ, option in [(t, t) for t in TYPES + MORE_TYPES] + [(m[:-2], m) for m in mixes]:
        path = written(source, option)
        if not path:
            continue
        compare('to ' + option, typ, path, random_ids(N_IDS, 1003, 1), ISAS[-1:])
        if option == typ:
            rows_like_ggml(typ, source, path)
        sys.stdout.flush()


def our_ids(path, texts):
    out, name = [], os.path.join(OUT, 'text')
    for text in texts:
        with open(name, 'wb') as f:
            f.write(text)
        p = subprocess.run([IDS, path, name], stdout=subprocess.PIPE, timeout=60)
        out.append([int(i) for i in p.stdout.split()] if p.returncode == 0 else None)
    return out


quantised_leads = []  # of ours and the peer's, for every model but gpt2's


def as_quantised(name, path, ids):
    """What a quantised file says: with activations rounded as each engine says that it does,
    float64 has its logits, up to a value within float32's noise of a half (see above). And without
    anybody's rounding: its weights as F32 have llama.cpp's logits."""
    n, ids_file, file = len(ids), os.path.join(OUT, 'ids.txt'), Gguf(path)
    if not PEERS:
        return
    best = list(PEERS)[-1]
    engines = [rows(b, n) for b in (ours(path, ids_file, n, ISAS[-1], 2, 0),
                                    peer(path, ids_file, n, best))]
    own, other = (forward(file, ids, scale) for scale in (np.float32, np.float16))

    def lead(a, b):
        near = np.abs(a - b).max(1) <= F32_BOUND * np.ptp(b, 1)
        return int(np.logical_and.accumulate(near).sum())
    lead_own, lead_peer = lead(engines[0], own), lead(engines[1], other)
    if file.arch != 'gpt2':
        quantised_leads.append((lead_own, lead_peer))
        check(not lead(engines[0], other) and not lead(engines[1], own), name + ': no difference')
    plain = written(path, 'f32') # over the other one
    result = plain and evaluate(name, plain, ids)
    if not result:
        return
    far = max(difference(result[2], b) for b in result[3])
    print('    within 1e-5 of its arithmetic in float64: ours %d, llama.cpp %d positions; as f32 '
          '%.1e from llama.cpp' % (lead_own, lead_peer, far))
    # Its GELU is a table of halves: see mkgpt2.STEEP.
    check(far <= (F32_BOUND if file.arch != 'gpt2' else 1e-3), '%s: as f32 %.1e from the peer' % (
        name, far))


def learned_models():
    """What build/train makes of a text: its vocabulary, its logits, and those of its Q8_0."""
    text, path = os.path.join(OUT, 'scenes.txt'), os.path.join(OUT, 'learned.gguf')
    shape = '--layers 2 --dim 64 --ff 96 --heads 4 --context 64 --batch 4 --steps 40 --seed 5'
    lines = []
    for arch, options in (('llama', '--kv-heads 2'), ('llama', '--untied --vocab 0'),
                          ('qwen2', '--kv-heads 1'), ('qwen3', '--kv-heads 2 --untied'),
                          ('gpt2', '')):
        if ONLY not in 'learned %s f32' % arch:
            continue
        with open(text, 'wb') as f:
            subprocess.run([TAVERN, '--scenes', '200', '--seed', '2', '--end', '<|end|>'],
                           stdout=f, timeout=60)
        argv = [TRAIN, '--data', text, '--out', path, '--arch', arch, '--vocab', '400', '--end',
                '<|end|>', '--type', 'F32', *shape.split(), *options.split()]
        p = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)
        if not check(p.returncode == 0, 'train %s: %s' % (arch, p.stdout.decode()[-300:])):
            continue
        name, vocab = 'learned ' + arch, Gguf(path).tensors['token_embd.weight'].shape[0]
        ids = random_ids(N_IDS, vocab, 1)
        compare(name, 'f32', path, ids, ISAS[-1:])
        with open(text, 'rb') as f:
            texts = [b'Scene: The Golden Goose', b' two  spaces\n\n', f.read(1500), b'x' * 99]
        if '--vocab' not in options: # characters that the text lacks have no tokens
            texts.append(b'Zoo\nline \xc3\xa9\xf0\x9f\x98\x80')
        check(peer_ids([path], texts)[0] == our_ids(path, texts),
              name + ': llama.cpp tokenizes otherwise with our vocabulary')
        smaller = written(path, 'q8_0')
        if smaller:
            compare(name, 'q8_0', smaller, ids, ISAS[-1:], alone=False)
            lines.append(errors['q8_0'].pop())
            as_quantised(name, smaller, ids)
        sys.stdout.flush()
    for who, leads_of in zip(('ours', 'llama.cpp'), zip(*quantised_leads)):
        check(sum(n == N_IDS for n in leads_of) > len(leads_of) / 2,
              'learned q8_0: %s is not its arithmetic: %s' % (who, leads_of))
    if len(lines) == 5:
        mine, *theirs = np.mean(lines, 0)
        check(mine <= WORSE_MODEL * min(theirs), 'learned q8_0: further from the truth')


# --- adapters that we wrote -----------------------------------------------------------------------

class Batch(ctypes.Structure):
    _fields_ = [('n', ctypes.c_int32)] + [(name, ctypes.c_void_p) for name in (
        'tokens', 'embd', 'pos', 'n_seq_id', 'seq_id', 'logits')]


def peer_context(llama, path, n, keys=0, values=0, flash=0):
    """A model and a context for n ids, which computes as peer() has it computed, or with a cache of
    other types, of which only flash attention can read values in blocks."""
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    words = ctypes.cast(ctypes.pointer(params), ctypes.POINTER(ctypes.c_uint32))
    threads = next(i for i in range(4, 8) if words[i] == words[i + 1] and 0 < words[i] < 1025 and
                   words[i] != 512)
    words[0], words[1], words[threads], words[threads + 1] = n + 8, 2048, 1, 1
    words[threads + 6], words[26], words[27] = flash, keys, values
    return model, llama.llama_init_from_model(model, params)


def peer_rows(llama, context, ids, vocab):
    """The logits of all ids of one sequence, or None."""
    n = len(ids)
    tokens, wanted = np.array(ids, '<i4'), np.ones(n, 'i1')
    batch = Batch(n, tokens.ctypes.data, None, None, None, None, wanted.ctypes.data)
    llama.llama_decode.argtypes = [ctypes.c_void_p, Batch]
    row = llama.llama_get_logits_ith
    row.argtypes, row.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.POINTER(ctypes.c_float)
    if llama.llama_decode(context, batch) != 0:
        return None
    return np.array([np.ctypeslib.as_array(row(context, i), (vocab,)).astype('f8')
                     for i in range(n)])


def peer_adapted(path, adapter, ids, vocab, scale=1):
    """llama.cpp's logits of a model with an adapter (None: without)."""
    llama = peer_library()
    model, context = peer_context(llama, path, len(ids))
    if adapter:
        lora = llama.llama_adapter_lora_init(model, adapter.encode())
        if not check(lora, 'llama.cpp does not open %s' % adapter):
            return None
        one = ctypes.c_float(scale)
        llama.llama_set_adapters_lora(ctypes.c_void_p(context), ctypes.byref(ctypes.c_void_p(lora)),
                                      ctypes.c_size_t(1), ctypes.byref(one))
    rows = peer_rows(llama, context, ids, vocab)
    check(rows is not None, 'llama.cpp does not compute ' + path)
    llama.llama_free(ctypes.c_void_p(context))
    llama.llama_model_free(ctypes.c_void_p(model))
    return rows


def adapted_model(shape, source, vocab):
    """Learns a text for some steps; B is far from its zeros then."""
    names = [os.path.join(OUT, name) for name in ('lora.txt', 'adapter.gguf', 'merged.gguf')]
    text, adapter, merged = names
    with open(text, 'w') as f:
        f.write('Once upon a time there was a little adapter, and it said: %s.\n' % shape * 20)
    options = '--steps 8 --batch 2 --context 16 --rank 4 --rate 0.02 --threads 2'.split()
    p = subprocess.run([FINETUNE, '--model', source, '--data', text, '--out', adapter, '--merge',
                        merged, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                       timeout=300)
    if not check(p.returncode == 0, 'finetune %s: %s' % (shape, p.stdout.decode()[-300:])):
        return
    ids = random_ids(N_IDS, vocab, 1)
    result = evaluate('lora ' + shape, merged, ids)
    theirs = peer_adapted(source, adapter, ids, vocab) if result else None
    if theirs is None:
        return
    before, a = peer_adapted(source, None, ids, vocab), result[2]
    off, moved = difference(a, theirs), difference(before, theirs)
    same, every = same_argmax(a, theirs)
    print('%-16s lora  %.2e from llama.cpp with the adapter, %.2e from the truth; it moves logits '
          'by %.2e; argmax %s' % (shape, off, difference(a, result[1]), moved, same))
    check(off <= F32_BOUND and every and moved > 0.05, 'lora %s: not what llama.cpp computes' %
          shape)
    for typ, scale in (('f32', 1), ('f32', -0.75), ('q8_0', 1)):
        adapted_runs('lora ' + shape, source if typ == 'f32' else written(source, typ), adapter,
                     ids, vocab, typ, scale)


def adapted_runs(name, path, adapter, ids, vocab, typ, scale):
    """The adapter beside a model instead of in its weights."""
    ids_file = os.path.join(OUT, 'ids.txt')
    a = ours(path, ids_file, len(ids), ISAS[-1], 2, 0, '--lora', '%s:%g' % (adapter, scale))
    theirs = peer_adapted(path, adapter, ids, vocab, scale)
    if not check(a is not None and theirs is not None, '%s %s: no logits' % (name, typ)):
        return
    plain = peer_adapted(path, None, ids, vocab)
    off = difference(rows(a, len(ids)), theirs)
    same, every = same_argmax(rows(a, len(ids)), theirs)
    print('%-16s %-5s times %-5g set on the model: %.2e from llama.cpp; it moves logits by %.2e; '
          'argmax %s' % (name[5:], typ, scale, off, difference(plain, theirs), same))
    moved = difference(plain, theirs)
    check(off <= F32_BOUND and every if typ == 'f32' else off <= 0.05 * moved,
          '%s %s: not what llama.cpp computes' % (name, typ))


def adapted_models():
    source = os.path.join(OUT, 'source.gguf')
    for shape, values in {**SHAPES, mkgpt2.STEEP: mkgpt2.SHAPES[mkgpt2.STEEP]}.items():
        if ONLY not in 'lora ' + shape:
            continue
        if shape in SHAPES:
            make_random(shape, 'f32', source, 1)
        else:
            mkgpt2.write(shape, 'f32', source, 1)
        adapted_model(shape, source, values[7 if shape in SHAPES else 4])
    stories = os.path.join(SHARED, 'data', 'models', 'stories260K', 'stories260K.gguf')
    if ONLY in 'lora stories260K' and os.path.exists(stories):
        adapted_model('stories260K', stories, 512)


def peer_perplexity(path, ids, vocab, window, bos):
    """As llama-perplexity counts: windows that begin with BOS, the second half of each counts."""
    llama = peer_library()
    model, context = peer_context(llama, path, window)
    llama.llama_get_memory.restype = ctypes.c_void_p
    sum_, n = 0., 0
    for at in range(0, len(ids) - window + 1, window):
        chunk = [bos] + ids[at + 1:at + window]
        llama.llama_memory_clear(ctypes.c_void_p(llama.llama_get_memory(ctypes.c_void_p(context))),
                                 ctypes.c_bool(True))
        logits = peer_rows(llama, context, chunk, vocab)[window // 2:-1]
        most = logits.max(1)
        p = np.log(np.exp(logits - most[:, None]).sum(1)) + most
        sum_ += (p - logits[np.arange(len(p)), chunk[window // 2 + 1:]]).sum()
        n += len(p)
    return np.exp(sum_ / n), n


def perplexity():
    """Of a text, by build/perplexity and by llama.cpp: a GGUF file, and what quantize makes of
    a safetensors model with its tokenizer.json."""
    if ONLY not in 'perplexity':
        return
    models = os.path.join(SHARED, 'data', 'models')
    stories = os.path.join(models, 'stories260K', 'stories260K.gguf')
    hf = os.path.join(models, 'tinystories-656k', 'model.safetensors')
    text = os.path.join(SHARED, 'data', 'text', 'wikitext2-test.txt')
    if not all(map(os.path.exists, (stories, hf, text))):
        skip('no %s, %s or %s' % (stories, hf, text))
        return
    converted = os.path.join(OUT, 'tinystories-656k.gguf')
    subprocess.run([QUANTIZE, hf, converted, 'F32'], stdout=subprocess.PIPE, check=True)
    for path, vocab in (stories, 512), (converted, 2048):
        perplexity_of(path, vocab, text)


def perplexity_of(path, vocab, text):
    name = os.path.basename(path)
    p = subprocess.run([PERPLEXITY, '-m', path, '-f', text, '--kv', 'f32', '-n', '100'],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    words = p.stdout.decode().splitlines()[-1].split()
    with open(text, 'rb') as f:
        ids = our_ids(path, [f.read(1 << 18)])[0]  # the peer's: same_ids, tests/bpe_peer.sh
    window = int(words[-1].rstrip(')'))
    want, n = peer_perplexity(path, ids[:100 * window], vocab, window, 1)
    off = abs(float(words[1]) / want - 1)
    print('perplexity of %s, WikiText-2, %d ids: %s, llama.cpp %.6f, %.1e apart' %
          (name, n, words[1], want, off))
    check(off <= PERPLEXITY_BOUND and int(words[4].lstrip('(')) == n,
          'perplexity: %s: %s' % (name, ' '.join(words)))


KV_TYPES = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0']


def peer_kv(llama, path, windows, keys, values, vocab):
    """llama.cpp's logits of some windows, or None where it cannot have such a cache."""
    flash = values in ('q8_0', 'q4_0')
    model, context = peer_context(llama, path, len(windows[0]), mkgpt2.GGML_TYPES[keys],
                                  mkgpt2.GGML_TYPES[values], flash)
    rows = []
    llama.llama_get_memory.restype = ctypes.c_void_p
    for window in windows if context else []:
        memory = ctypes.c_void_p(llama.llama_get_memory(ctypes.c_void_p(context)))
        llama.llama_memory_clear(memory, ctypes.c_bool(True))
        rows.append(peer_rows(llama, context, window, vocab))
    if context:
        llama.llama_free(ctypes.c_void_p(context))
    llama.llama_model_free(ctypes.c_void_p(model))
    return np.concatenate(rows) if rows and all(r is not None for r in rows) else None


def own_kv(path, windows, kv):
    name, out = os.path.join(OUT, 'ids.txt'), []
    for window in windows:
        with open(name, 'w') as f:
            f.write(' '.join(map(str, window)))
        data = ours(path, name, len(window), ISAS[-1], 1, 64, '--kv', kv)
        out.append(rows(data, len(window)) if data else None)
    return np.concatenate(out) if all(o is not None for o in out) else None


def kv_perplexity(path, text, kv):
    p = subprocess.run([PERPLEXITY, '-m', path, '-f', text, '--kv', kv, '-n', '12'],
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
    words = p.stdout.decode().splitlines()[-1].split()
    return float(words[1]) if p.returncode == 0 else np.inf


def kv_model(name, path, text, types):
    """What every pair of cache types does to the logits of a model that has learned something."""
    with open(text, 'rb') as f:
        ids = our_ids(path, [f.read(1 << 14)])[0]
    m, llama = Gguf(path), peer_library()
    size = 256
    windows = [ids[i * size:(i + 1) * size] for i in range(4)]
    truth = own_kv(path, windows, 'f32')
    if not check(truth is not None, 'no logits of ' + path):
        return
    vocab = truth.shape[1]
    heads = m.key('attention.head_count')
    elems = m.key('block_count') * m.key('attention.head_count_kv', heads) * \
        m.key('embedding_length') // heads
    peer_truth = peer_kv(llama, path, windows, 'f32', 'f32', vocab)
    print('%s: keys, values, bytes of a token; from F32, largest and mean error in ranges; '
          'perplexity; llama.cpp from its F32' % name)
    for keys in types:
        for values in types:
            a = own_kv(path, windows, keys + ',' + values)
            theirs = peer_kv(llama, path, windows, keys, values, vocab)
            if not check(a is not None, 'no logits with %s,%s' % (keys, values)):
                continue
            mine, line = mean_error(a, truth), 'none'
            if theirs is not None:
                line = '%.2e %.2e' % (difference(theirs, peer_truth),
                                      mean_error(theirs, peer_truth))
                check(mine <= WORSE_KV * mean_error(theirs, peer_truth) + 1e-9,
                      '%s,%s: further from F32 than llama.cpp' % (keys, values))
            print('%-5s %-5s %6.0f  %.2e %.2e  %.4f  %s' %
                  (keys, values, sum(mkgpt2.row_bytes(t, elems) for t in (keys, values)),
                   difference(a, truth), mine, kv_perplexity(path, text, keys + ',' + values),
                   line))
            sys.stdout.flush()


def kv_types():
    if ONLY not in 'kv types':
        return
    text = os.path.join(OUT, 'held.txt')
    with open(text, 'wb') as f:
        subprocess.run([TAVERN, '--scenes', '30', '--seed', '1', '--held-out'], stdout=f,
                       timeout=60)
    path = written('examples/tavern.gguf', 'f32')  # no activations are rounded
    if path:
        kv_model('tavern, weights in F32', path, text, KV_TYPES)
    path = os.path.join(SHARED, 'data', 'models', 'stories260K', 'stories260K.gguf')
    wiki = os.path.join(SHARED, 'data', 'text', 'wikitext2-test.txt')
    if not os.path.exists(path) or not os.path.exists(wiki):
        skip('no %s or no %s' % (path, wiki))
        return
    kv_model('stories260K', path, wiki, KV_TYPES[:3])


# --- families -------------------------------------------------------------------------------------

# For every type that there is: FAMILY_TYPES=all.
FAMILY_TYPES = os.environ.get('FAMILY_TYPES', 'f32 f16 q8_0 q4_0 q4_k q6_k').split()
GELU_BOUND = 1e-3  # where llama.cpp looks GELU up in a table of halves
GELU_ARCHS = 'gpt2 phi2 starcoder2 gptneox gemma gemma2 gemma3'.split()
WORSE_FAMILY, WORSE_FAMILIES = 1.3, 1.03  # allowed: models so small deviate by 15 %
# What llama.cpp does not compute, or not so: the truth alone is the reference.
NO_PEER = {
    'mistral': 'has no such name', 'mistral-window': 'has no such name',
    'cs336': 'has no such name',
    'phi3-window': 'takes no notice of the window', 'exaone4-window': 'has it in 64 layers only',
    'command-r-plus': 'has these norms from 64 layers on', 'bitnet-relu2': 'has SiLU there',
}


def family_shapes(typ):
    """Of mkmodels.c."""
    if typ in mkgpt2.BLOCKS and mkgpt2.BLOCKS[typ][0] == 256:
        return ['k']
    return ['even', 'odd', 'wide'] if typ == 'f32' else ['odd']


def family_file(name, arch, typ, shape):
    """(largest difference from the peer, from the truth, mean errors of ours and of the builds)"""
    path, what = os.path.join(OUT, 'family.gguf'), 'family %s %s %s' % (name, shape, typ)
    p = subprocess.run([MKMODELS, name, shape, typ.upper(), '1', path], stdout=subprocess.PIPE,
                       stderr=subprocess.STDOUT)
    if not check(p.returncode == 0, 'mkmodels %s: %s' % (what, p.stdout.decode()[-300:])):
        return None
    model = Gguf(path)
    ids = random_ids(N_IDS, model.tensors['token_embd.weight'].shape[0], 1)
    ids_file = os.path.join(OUT, 'ids.txt')
    with open(ids_file, 'w') as f:
        f.write('\n'.join(map(str, ids)) + '\n')
    a = ours(path, ids_file, N_IDS, ISAS[-1], 2, 0)
    builds = [] if name in NO_PEER else [peer(path, ids_file, N_IDS, p) for p in PEERS]
    if not check(a is not None and None not in builds, what + ': an engine failed'):
        return None
    a, builds = rows(a, N_IDS), [rows(b, N_IDS) for b in builds]
    truth = families.forward(model, ids)
    from_truth, from_peer = difference(a, truth), None
    if typ == 'f32':
        same, every = same_argmax(a, truth)
        check(from_truth <= F32_BOUND and every,
              '%s: %.1e from the truth, argmax %s' % (what, from_truth, same))
    if builds:
        from_peer = max(difference(a, b) for b in builds)
        _, beyond = beyond_noise(builds, truth)
        if typ == 'f32' and arch not in GELU_ARCHS:
            beyond[:] = True
        same, every = same_argmax(a, builds[-1], beyond)
        bound = GELU_BOUND if arch in GELU_ARCHS else F32_BOUND
        check(every and (typ != 'f32' or from_peer <= bound),
              '%s: %.1e from llama.cpp, argmax %s' % (what, from_peer, same))
    return from_peer, from_truth, [mean_error(x, truth) for x in (a, *builds)]


def family_models():
    """The table of the README: a family's largest difference from llama.cpp in each type, in ranges
    of a position's logits, and how far both are from the truth."""
    p = subprocess.run([MKMODELS], stdout=subprocess.PIPE)
    types = [t for t in mkgpt2.BLOCKS if t in FAMILY_TYPES or FAMILY_TYPES == ['all']]
    types = [t for t in types if ONLY in 'families ' + t]
    ratios = {t: [] for t in types}
    if not types:
        return
    print('\n| family | F32 from the truth | ' + ' | '.join(t.upper() for t in types) + ' |')
    print('|---|---|' + '---|' * len(types))
    for name, arch in (line.split() for line in p.stdout.decode().splitlines()):
        cells, far = [], None
        for typ in types if arch != 'cs336' else []:
            got = [family_file(name, arch, typ, shape) for shape in family_shapes(typ)]
            if None in got:
                cells.append('failed')
                continue
            if typ == 'f32':
                far = max(g[1] for g in got)
            if name in NO_PEER:
                cells.append('')
                continue
            cells.append('%.0e' % max(g[0] for g in got))
            mine, *theirs = np.mean([g[2] for g in got], 0)
            if typ in ('f32', 'f16', 'bf16'):
                continue
            ratios[typ].append([mine, min(theirs)])
            check(mine <= WORSE_FAMILY * min(theirs), '%s %s: %.3f as far from the truth as '
                  'llama.cpp' % (name, typ, mine / min(theirs)))
        if cells:
            why = ' (llama.cpp %s)' % NO_PEER[name] if name in NO_PEER else ''
            print('| %s%s | %s | %s |' % (name, why, cell(far), ' | '.join(cells)))
            sys.stdout.flush()
    for typ, errs in ratios.items():
        if errs:
            mine, theirs = np.mean(errs, 0)
            print('%s: mean error by llama.cpp\'s %.4f, of %d families' %
                  (typ, mine / theirs, len(errs)))
            check(mine <= WORSE_FAMILIES * theirs, typ + ': families further from the truth')


def peer_embeddings(path, seqs, pooling, encoder):
    """llama.cpp's rows of all ids (pooling 0), or of each sequence (1 mean, 2 first, 3 last)."""
    llama, n = peer_library(), sum(map(len, seqs))
    model = llama.llama_model_load_from_file(path.encode(), llama.llama_model_default_params())
    params = llama.llama_context_default_params()
    words = ctypes.cast(ctypes.pointer(params), ctypes.POINTER(ctypes.c_int32))
    threads = next(i for i in range(4, 8) if words[i] == words[i + 1] and 0 < words[i] < 1025 and
                   words[i] != 512)
    words[0], words[1], words[2], words[3] = 4 * n, 2048, 2048, len(seqs)
    words[threads] = words[threads + 1] = 1
    words[threads + 4], words[threads + 6], words[26], words[27] = pooling, 0, 0, 0
    ctypes.cast(words, ctypes.POINTER(ctypes.c_uint8))[4 * (threads + 25) + 5] = 1  # one KV cache,
    # else a sequence is cut into several passes, and only the last one is pooled
    context = ctypes.c_void_p(llama.llama_init_from_model(model, params))
    llama.llama_set_embeddings(context, ctypes.c_bool(True))
    ids = np.concatenate(seqs).astype('<i4')
    positions = np.concatenate([np.arange(len(s)) for s in seqs]).astype('<i4')
    owner = np.repeat(np.arange(len(seqs)), [len(s) for s in seqs]).astype('<i4')
    owners = owner.ctypes.data + 4 * np.arange(n).astype('<u8')
    ones, wanted = np.ones(n, '<i4'), np.ones(n, 'i1')
    batch = Batch(n, ids.ctypes.data, None, *(a.ctypes.data for a in (positions, ones, owners,
                                                                      wanted)))
    run_pass = llama.llama_encode if encoder else llama.llama_decode
    run_pass.argtypes = [ctypes.c_void_p, Batch]
    row = llama.llama_get_embeddings_seq if pooling else llama.llama_get_embeddings_ith
    row.argtypes, row.restype = [ctypes.c_void_p, ctypes.c_int32], ctypes.POINTER(ctypes.c_float)
    got = None
    if run_pass(context, batch) == 0:
        width = llama.llama_model_n_embd(ctypes.c_void_p(model))
        got = np.array([np.ctypeslib.as_array(row(context, i), (width,)).astype('f8')
                        for i in range(len(seqs) if pooling else n)])
    llama.llama_free(context)
    llama.llama_model_free(ctypes.c_void_p(model))
    return got


def embeddings():
    path, ids_file = (os.path.join(OUT, name) for name in ('embed.gguf', 'ids.txt'))
    for name in ('bert', 'bert-steep', 'nomic-bert', 'qwen3', 'llama', 'qwen2'):
        for shape in ('even', 'odd'):
            if ONLY not in 'embeddings %s %s' % (name, shape):
                continue
            subprocess.run([MKMODELS, name, shape, 'F32', '1', path], check=True)
            seqs = [random_ids(n, 331, n) for n in (7, 300, 1, 64)]
            with open(ids_file, 'w') as f:
                f.write('\n'.join(' '.join(map(str, s)) for s in seqs) + '\n')
            off = []
            for pooling in range(4):
                want = peer_embeddings(path, seqs, pooling, 'bert' in name)
                p = subprocess.run([EMBEDDINGS, path, str(pooling + 2), '0', ids_file],
                                   stdout=subprocess.PIPE, timeout=120)
                if not check(want is not None and len(p.stdout) == 4 * want.size,
                             'embeddings %s %s: an engine failed' % (name, shape)):
                    return
                got = np.frombuffer(p.stdout, '<f4').reshape(want.shape)
                off.append(np.abs(got - want).max() / np.abs(want).max())
            print('embeddings %-11s %-4s none %.1e mean %.1e first %.1e last %.1e from llama.cpp' %
                  (name, shape, *off))
            check(max(off) <= (2e-4 if name == 'bert' else F32_BOUND),
                  'embeddings %s %s: not what llama.cpp computes' % (name, shape))


def peer_shifted(llama, path, ids, at, start, end, vocab, kind):
    """llama.cpp's logits of ids[at:], when what is in [start, end) was removed before; or None."""
    number, rows = mkgpt2.GGML_TYPES[kind], None
    model, context = peer_context(llama, path, len(ids), number, number)
    llama.llama_get_memory.restype = ctypes.c_void_p
    llama.llama_memory_can_shift.restype = llama.llama_memory_seq_rm.restype = ctypes.c_bool
    memory = ctypes.c_void_p(llama.llama_get_memory(ctypes.c_void_p(context)))
    if llama.llama_memory_can_shift(memory) and \
            peer_rows(llama, context, ids[:at], vocab) is not None and \
            llama.llama_memory_seq_rm(memory, 0, start, end):
        llama.llama_memory_seq_add(memory, 0, end, -1, start - end)
        rows = peer_rows(llama, context, ids[at:], vocab)
    llama.llama_free(ctypes.c_void_p(context))
    llama.llama_model_free(ctypes.c_void_p(model))
    return rows


def own_shifted(path, ids, at, start, end, kind):
    name = os.path.join(OUT, 'ids.txt')
    with open(name, 'w') as f:
        f.write(' '.join(map(str, ids)))
    number = str(mkgpt2.GGML_TYPES[kind])
    p = subprocess.run([SHIFTED, path, name, str(at), str(start), str(end), number, number],
                       stdout=subprocess.PIPE)
    return rows(p.stdout, len(ids) - at) if p.returncode == 0 else None


# Where a shift of llama.cpp's is another one: keys of these are no more those of their places
# (which ours are, by test_shift.c).
NO_SHIFT = {'smollm3': 'rotates layers without rotation', 'cohere2': 'rotates layers without it',
            'phi3-long': 'does something else to keys with longrope factors'}


def shifted():
    """What follows when tokens were removed and those behind them moved forward."""
    p = subprocess.run([MKMODELS], stdout=subprocess.PIPE)
    llama, path = peer_library(), os.path.join(OUT, 'family.gguf')
    kinds = ['f32', 'f16']  # with others llama.cpp ends the process
    for name, arch in (line.split() for line in p.stdout.decode().splitlines()):
        what = 'shifted ' + name
        if name in NO_PEER or arch == 'gpt2' or ONLY not in what:
            continue
        if name in NO_SHIFT:
            print('%-26s not compared after a shift: llama.cpp %s' % (name, NO_SHIFT[name]))
            continue
        subprocess.run([MKMODELS, name, 'even', 'F32', '1', path], check=True)
        ids = random_ids(N_IDS, Gguf(path).tensors['token_embd.weight'].shape[0], 2)
        cells = []
        for kind in kinds:
            a = own_shifted(path, ids, 48, 5, 24, kind)
            if not check(a is not None, '%s %s: no logits' % (what, kind)):
                continue
            b = peer_shifted(llama, path, ids, 48, 5, 24, a.shape[1], kind)
            if not check(b is not None, '%s %s: llama.cpp has no logits' % (what, kind)):
                continue
            cells.append('%.1e' % difference(a, b))
            bound = GELU_BOUND if arch in GELU_ARCHS else F32_BOUND
            check(kind != 'f32' or difference(a, b) <= bound,
                  '%s: %.1e from llama.cpp' % (what, difference(a, b)))
        print('%-26s after a shift, from llama.cpp with keys and values in %s: %s' %
              (name, ' '.join(kinds), ' '.join(cells)))
        sys.stdout.flush()


def averages():
    for typ, lines in errors.items():
        if not lines or typ == 'f32':
            continue
        mine, *theirs = np.mean(lines, 0)
        ratio = mine / min(theirs)
        print('%-4s mean error of %d files: ours %.3e, llama.cpp %s: ratio %.4f' %
              (typ, len(lines), mine, ' '.join('%.3e' % t for t in theirs), ratio))
        if not ONLY and typ in TYPES:  # else too few files for so small a tolerance
            check(ratio <= WORSE_TYPE,
                  typ + ': further from the truth than llama.cpp on average')
    for typ, lead in leads.items():
        if lead:
            print('%-4s llama.cpp\'s logits in the first %.1f positions, in the mean of %d files' %
                  (typ, np.mean(lead), len(lead)))
            check(np.median(lead) >= 1, typ + ': not even the first position is as llama.cpp\'s')


def main():
    print('float64 is the truth; ours at %s; llama.cpp: %s' %
          (' '.join(ISAS), ' '.join(PEERS) or 'none'))
    print('differences and mean errors in ranges of a position\'s logits')
    print(LINE % HEAD)
    for typ in DECODERS:
        if ONLY in 'blocks ' + typ:
            compare_blocks(typ)
    for typ in TYPES:
        random_models(typ, os.path.join(OUT, 'model.gguf'))
    if ONLY in 'stories260K f32':
        trained_model()
    if PEERS:
        family_models()
        learned_models()
        converted_models()
        quantised_models()
        adapted_models()
        embeddings()
        perplexity()
        kv_types()
        shifted()
    if not PEERS:
        skip('llama.cpp: not compared')
    averages()
    print('%(passed)d passed, %(failed)d failed, %(skipped)d skipped' % counts)
    return counts['failed'] > 0


sys.exit(main())

"""families.py - a forward pass in float64 of every family, from a GGUF file's own keys and
tensors: the truth that parity.py measures engines by, written from the families' papers and
reference code, not from ours. m: parity.py's Gguf."""
import numpy as np

LAYER_NORM = 'gpt2 phi2 starcoder2 gptneox stablelm command-r cohere2'.split()
PAIRS = 'llama mistral granite granitemoe smollm3 internlm2 command-r cohere2'.split()  # the rope's
# With a window in the file: every n-th layer sees all keys. Others: none does, or there is none.
ALL_EVERY = {'gemma2': 2, 'gemma3': 6, 'olmo2': 4, 'exaone4': 4, 'cohere2': 4}
WINDOWS = ['mistral', 'phi3', *ALL_EVERY]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x ** 3)))


def silu(x):
    return x / (1 + np.exp(-x))


def relu2(x):
    return np.maximum(x, 0) ** 2


def act_of(m):
    """The activation, and whether it gates."""
    if m.arch in ('gpt2', 'phi2', 'starcoder2', 'gptneox'):
        return gelu, False
    if m.arch.startswith('gemma'):
        return gelu, True
    return relu2 if m.key('hidden_activation') == 'relu2' else silu, True


def normed(m, x, name, bias=True):
    """Over the last dimension; a weight of two dimensions is one for each head."""
    w = m.tensors.get(name + '.weight')
    if w is None:
        return x
    if m.arch in LAYER_NORM:
        eps = m.key('attention.layer_norm_epsilon')
        x = x - x.mean(-1, keepdims=True)
    else:
        eps = m.key('attention.layer_norm_rms_epsilon')
    y = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w
    return y + m.tensors.get(name + '.bias', 0) if bias else y


def linear(m, x, name):
    t = m.tensors
    return x @ t[name + '.weight'].T * t.get(name + '.scale', 1) + t.get(name + '.bias', 0)


def rotate(m, x, base, long, scaled):
    """x: positions, heads, dim. The first n_rot elements, as pairs of neighbours or of halves."""
    n, _, dim = x.shape
    n_rot = m.key('rope.dimension_count', dim)
    freq = base ** (-np.arange(0, n_rot, 2) / n_rot)
    magnitude = 1.0
    if scaled:
        name = 'rope_factors_%s.weight' % ('long' if long else 'short')
        freq = freq / m.tensors.get(name, m.tensors.get('rope_freqs.weight', 1.0))
        freq = freq / (m.key('rope.scaling.factor') or 1.0)
        magnitude = m.key('rope.scaling.attn_factor', 1.0)
    angle = np.outer(np.arange(n), freq)[:, None]
    c, s = np.cos(angle) * magnitude, np.sin(angle) * magnitude
    r, rest = x[..., :n_rot], x[..., n_rot:]
    if m.arch in PAIRS:
        a, b = r[..., ::2], r[..., 1::2]
        r = np.stack([a * c - b * s, a * s + b * c], -1).reshape(r.shape)
    else:
        a, b = r[..., :n_rot // 2], r[..., n_rot // 2:]
        r = np.concatenate([a * c - b * s, a * s + b * c], -1)
    return np.concatenate([r, rest], -1)


def capped(x, cap):
    return cap * np.tanh(x / cap) if cap else x


def score_scale(m, dim, heads):
    layers = {'gemma2': 46, 'gemma3': 62}.get(m.arch)  # the 27B models
    if m.key('block_count') == layers:
        return (m.key('embedding_length') // heads) ** -0.5
    return m.key('attention.scale') or dim ** -0.5


def attention(m, h, i, window, n_ctx):
    b, n = 'blk.%d.' % i, len(h)
    heads = m.key('attention.head_count')
    kv_heads = m.key('attention.head_count_kv', heads)
    dim = m.key('attention.key_length', m.key('embedding_length') // heads)
    if b + 'attn_qkv.weight' in m.tensors:
        qkv = linear(m, h, b + 'attn_qkv')
        q, k, v = np.split(qkv, [heads * dim, (heads + kv_heads) * dim], 1)
    else:
        q, k, v = (linear(m, h, b + 'attn_' + c) for c in 'qkv')
    if m.arch in ('olmo2', 'olmoe'):  # the norms of q and k as whole rows
        q, k = normed(m, q, b + 'attn_q_norm'), normed(m, k, b + 'attn_k_norm')
    q, k, v = (y.reshape(n, -1, dim) for y in (q, k, v))
    if m.arch not in ('olmo2', 'olmoe'):
        q, k = normed(m, q, b + 'attn_q_norm'), normed(m, k, b + 'attn_k_norm')
    base, scaled = m.key('rope.freq_base', 10000.0), True
    if window and m.arch in ('gemma3', 'olmo2'):
        base = m.key('rope.freq_base_swa', 10000.0 if m.arch == 'gemma3' else base)
        scaled = False
    bare = m.arch == 'gpt2' or (m.arch == 'smollm3' and i % 4 == 3)
    if m.arch in ('cohere2', 'exaone4'):
        bare = not window and bool(m.key('attention.sliding_window'))
    if not bare:
        long = n_ctx > m.key('rope.scaling.original_context_length', m.key('context_length'))
        q, k = (rotate(m, y, base, long, scaled) for y in (q, k))
    k, v = (np.repeat(y, heads // kv_heads, 1) for y in (k, v))
    scores = np.einsum('ihd,jhd->hij', q, k) * score_scale(m, dim, heads)
    scores = capped(scores, m.key('attn_logit_softcapping'))
    behind = np.arange(n)[:, None] - np.arange(n)
    scores[:, (behind < 0) | (behind >= (window or n))] = -np.inf
    p = np.exp(scores - scores.max(-1, keepdims=True))
    o = np.einsum('hij,jhd->ihd', p / p.sum(-1, keepdims=True), v).reshape(n, -1)
    return linear(m, normed(m, o, b + 'attn_sub_norm'), b + 'attn_output')


def feed_forward(m, h, i):
    b = 'blk.%d.' % i
    act, gated = act_of(m)
    up = linear(m, h, b + 'ffn_up')
    if not gated:
        up = act(up)
    elif b + 'ffn_gate.weight' in m.tensors:
        up = act(linear(m, h, b + 'ffn_gate')) * up
    else:  # phi3: the gate is the first half
        gate, up = np.split(up, 2, 1)
        up = act(gate) * up
    return linear(m, normed(m, up, b + 'ffn_sub_norm'), b + 'ffn_down')


def mixture(m, h, i):
    """The experts with the largest weights, each as if it were alone; and the one that all have."""
    b, t = 'blk.%d.' % i, m.tensors
    scores = linear(m, h, b + 'ffn_gate_inp')
    p = np.exp(scores - scores.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    p[p < np.sort(p, -1)[:, [-m.key('expert_used_count')]]] = 0
    if m.arch in ('llama', 'qwen3moe', 'granitemoe'):
        p /= p.sum(-1, keepdims=True)

    def expert(gate, up, down):
        return (silu(h @ gate.T) * (h @ up.T)) @ down.T

    names = [b + 'ffn_%s_exps.weight' % c for c in ('gate', 'up', 'down')]
    out = sum(p[:, [e]] * expert(*(t[n][e] for n in names)) for e in range(p.shape[1]))
    if b + 'ffn_up_shexp.weight' in t:
        y = expert(*(t[n.replace('exps', 'shexp')] for n in names))
        if b + 'ffn_gate_inp_shexp.weight' in t:
            y = y / (1 + np.exp(-h @ t[b + 'ffn_gate_inp_shexp.weight']))[:, None]
        out = out + y
    return out


def window_of(m, i):
    window = m.key('attention.sliding_window') if m.arch in WINDOWS else None
    every = m.key('attention.sliding_window_pattern', ALL_EVERY.get(m.arch, 0))
    return None if every and i % every == every - 1 else window


def forward(m, ids, n_ctx=None):
    """Logits of all positions. n_ctx: the context's, for the choice of long rope factors."""
    t, n_ctx = m.tensors, n_ctx or len(ids)
    x = t['token_embd.weight'][ids] * (m.key('embedding_scale') or 1.0)
    if m.arch.startswith('gemma'):
        x = x * np.sqrt(m.key('embedding_length'))
    if m.arch == 'gpt2':
        x = x + t['position_embd.weight'][:len(ids)]
    add = m.key('residual_scale') or 1.0
    for i in range(m.key('block_count')):
        b = 'blk.%d.' % i
        own = b + 'ffn_norm.weight' in t
        h = normed(m, x, b + 'attn_norm')
        a = normed(m, attention(m, h, i, window_of(m, i), n_ctx), b + 'post_attention_norm') * add
        parallel = m.key('use_parallel_residual', b + 'attn_norm.weight' in t and not own)
        if not parallel:
            x, a = x + a, 0
        h = h if parallel and not own else normed(m, x, b + 'ffn_norm')
        y = mixture(m, h, i) if b + 'ffn_gate_inp.weight' in t else feed_forward(m, h, i)
        x = x + a + normed(m, y, b + 'post_ffw_norm') * add
    head = 'output' if 'output.weight' in t else 'token_embd'
    logits = linear(m, normed(m, x, 'output_norm'), head)
    scale = m.key('logit_scale') or 1.0
    logits = logits / scale if m.arch.startswith('granite') else logits * scale
    return capped(logits, m.key('final_logit_softcapping'))

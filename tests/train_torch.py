"""train_torch.py - the trainer beside PyTorch: the same architectures, written again for autograd.

Called by train_torch.sh, which names everything by environment variables. For every case
train_dump.c makes a model, gives weights, batches, gradients and the course of some steps, and
PyTorch, in float64 and in float32, gives the same from the same weights. Then
  loss   of the first batch is within 1e-6 of PyTorch's, relatively
  norm,  for every tensor, g our gradient and r PyTorch's: |g - r| <= 2e-5 |r| in the Euclidean
  max    norm, and max |g - r| <= 2e-5 max |r|
  curve, the loss of each of 20 steps of torch.optim (clip_grad_norm_, matrices decay, norms and
  norms  biases do not, the schedule's formula from the manual) is within 1e-5, relatively; the
         gradients' norm within 5e-5, the rate within 1e-6
  final  for every tensor, |p - r| / |r - p0|, of all that the steps changed, is 1e-3 at most
With compute=1 (BF16), the first loss and the gradients of the smallest models are within the same
bounds of float64's. In larger ones some factor lies on the edge between two BF16 numbers and goes
to the other side for its last bit (PyTorch's own two types part there): all is within 2^-7, and so
are the losses of 20 steps.
PyTorch takes each batch as one: micro-batches, checkpoints and threads are ours alone.

AdamW's epsilon is 1e-5 in most cases. With 1e-8 a gradient that is zero but for its rounding moves
its weight as far as any other: then PyTorch's float32 parts from its float64 too, in 20 steps by
5e-5 of the loss for one seed of seven.

What the trainer calculates is left as it is. That the checks can fail is shown by cases in which
PyTorch does something wrong, or gradients are changed after they were read.

FAULT=gradient changes one element of one gradient by 1e-3 of the largest: then cases must fail."""
import json
import math
import os
import subprocess
import sys

import numpy as np
import torch
import torch.nn.functional as F

OUT = os.environ['OUT']
DUMP = os.environ['DUMP']
MODELS = os.path.join(os.environ['SHARED'], 'data', 'models')
ONLY = os.environ.get('ONLY', '')
FAULT = os.environ.get('FAULT', '')
REQUIRE_DATA = os.environ.get('REQUIRE_DATA') == '1'

F32 = {'loss': 1e-6, 'norm': 2e-5, 'max': 2e-5, 'length': 2e-5,
       'curve': 1e-5, 'norms': 5e-5, 'rate': 1e-6, 'final': 1e-3}
EDGE = 2.0 ** -7
BF16 = {**F32, 'curve': EDGE, 'norms': 8 * EDGE, 'final': 16 * EDGE}
BF16_EDGES = {**BF16, 'loss': EDGE / 16, 'norm': EDGE, 'max': EDGE, 'length': EDGE}
TYPES = {'float64': torch.float64, 'float32': torch.float32}


# --- what train_dump wrote ------------------------------------------------------------------------

class Dump:
    """hp: numbers; params, grads, final: tensors by name; and the batches and results."""

    def __init__(self, path, arch, rope):
        self.arch, self.rope = arch, rope
        self.hp, self.params, self.grads, self.final, rest = {}, {}, {}, {}, {}
        groups = {'hp': self.hp, 'param': self.params, 'grad': self.grads, 'final': self.final}
        with open(path, 'rb') as f:
            data = f.read()
        at = 0
        while at < len(data):
            name = data[at:at + 64].rstrip(b'\0').decode()
            kind, rows, columns = np.frombuffer(data, '<i4', 3, at + 64)
            dtype = np.dtype({ord('f'): '<f4', ord('d'): '<f8', ord('i'): '<i4'}[kind])
            values = np.frombuffer(data, dtype, rows * columns, at + 76).reshape(rows, columns)
            at += 76 + values.nbytes
            group, _, key = name.partition('.')
            groups.get(group, rest)[key or group] = values
        self.hp = {key: values.item() for key, values in self.hp.items()}
        self.loss, self.norm = rest['loss'].item(), rest['norm'].item()
        self.curve = rest['curve']
        shape = (-1, int(self.hp['seqs']), int(self.hp['tokens']))
        self.tokens = torch.tensor(rest['tokens'].astype(np.int64).reshape(shape))
        self.targets = torch.tensor(rest['targets'].astype(np.int64).reshape(shape))

    def int(self, key):
        return int(self.hp[key])

    def f32(self, key):
        """A setting as the trainer has it."""
        return float(np.float32(self.hp[key]))


# --- the architectures ----------------------------------------------------------------------------

def rms_norm(x, weight, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps) * weight


def rotate_pairs(x, base):
    """x [B, T, H, D]; elements 2i and 2i + 1 are a complex number (Su et al. 2021)."""
    length, dim = x.shape[1], x.shape[3]
    angles = torch.outer(torch.arange(length, dtype=torch.float64),
                         base ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim))
    turn = torch.polar(torch.ones_like(angles), angles)
    turn = turn.to(torch.complex128 if x.dtype == torch.float64 else torch.complex64)
    z = torch.view_as_complex(x.reshape(*x.shape[:3], dim // 2, 2))
    return torch.view_as_real(z * turn[None, :, None]).reshape(x.shape)


def rotate_half(x, base):
    """Elements i and i + D/2 are, as GPT-NeoX has them."""
    dim = x.shape[3]
    order = torch.arange(dim).reshape(2, dim // 2).t().reshape(dim)
    return rotate_pairs(x[..., order], base)[..., torch.argsort(order)]


class RoundedProduct(torch.autograd.Function):
    """x w^T, all products with their factors rounded to bfloat16: compute=1."""

    @staticmethod
    def round(x):
        return x.to(torch.float32).to(torch.bfloat16).to(x.dtype)

    @staticmethod
    def forward(ctx, x, w):
        x, w = RoundedProduct.round(x), RoundedProduct.round(w)
        ctx.save_for_backward(x, w)
        return x @ w.t()

    @staticmethod
    def backward(ctx, dy):
        x, w = ctx.saved_tensors
        dy = RoundedProduct.round(dy)
        return dy @ w, dy.flatten(0, -2).t() @ x.flatten(0, -2)


class Model:
    """Weights under GGUF's names; logits(tokens) is all there is to it."""

    def __init__(self, dump, dtype):
        self.d = dump
        vectors = {n for n, p in dump.params.items() if p.shape[0] == 1 and n.endswith('.bias')
                   or n.endswith('norm.weight')}
        self.p = {name: torch.tensor(p.reshape(-1) if name in vectors else p, dtype=dtype)
                  .requires_grad_() for name, p in dump.params.items()}

    def norm(self, name, x):
        weight, bias = self.p[name + '.weight'], self.p.get(name + '.bias')
        eps = self.d.f32('eps')
        if self.d.arch == 'gpt2':
            return F.layer_norm(x, weight.shape, weight, bias, eps)
        return rms_norm(x, weight, eps)

    def linear(self, name, x):
        weight, bias = self.p[name + '.weight'], self.p.get(name + '.bias')
        if not self.d.int('compute'):
            return F.linear(x, weight, bias)
        y = RoundedProduct.apply(x, weight)
        return y if bias is None else y + bias

    def qkv(self, blk, x):
        """[B, T, heads, head_dim] each."""
        heads, kv, dim = (self.d.int(key) for key in ('heads', 'kv', 'head'))
        if self.d.arch == 'gpt2':
            parts = self.linear(blk + 'attn_qkv', x).split([heads * dim, kv * dim, kv * dim], -1)
        else:
            parts = [self.linear(blk + 'attn_' + name, x) for name in 'qkv']
        q, k, v = (part.reshape(*x.shape[:2], -1, dim) for part in parts)
        if self.d.arch == 'qwen3':
            q, k = self.norm(blk + 'attn_q_norm', q), self.norm(blk + 'attn_k_norm', k)
        if self.d.rope:
            q, k = (self.d.rope(part, self.d.f32('base')) for part in (q, k))
        return q, k, v

    def attention(self, blk, x):
        q, k, v = self.qkv(blk, x)
        k, v = (part.repeat_interleave(q.shape[2] // k.shape[2], 2) for part in (k, v))
        scores = torch.einsum('bihd,bjhd->bhij', q, k) / math.sqrt(q.shape[3])
        later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        o = torch.einsum('bhij,bjhd->bihd', weights, v)
        return self.linear(blk + 'attn_output', o.reshape(*x.shape[:2], -1))

    def feed_forward(self, blk, x):
        up = self.linear(blk + 'ffn_up', x)
        if self.d.arch == 'gpt2':
            h = F.gelu(up, approximate='tanh')
        elif self.d.arch == 'cs336':
            h = F.gelu(up)
        else:
            h = F.silu(self.linear(blk + 'ffn_gate', x)) * up
        return self.linear(blk + 'ffn_down', h)

    def logits(self, tokens):
        x = F.embedding(tokens, self.p['token_embd.weight'])
        if 'position_embd.weight' in self.p:
            x = x + self.p['position_embd.weight'][:tokens.shape[1]]
        for layer in range(self.d.int('layers')):
            blk = 'blk.%d.' % layer
            x = x + self.attention(blk, self.norm(blk + 'attn_norm', x))
            x = x + self.feed_forward(blk, self.norm(blk + 'ffn_norm', x))
        x = self.norm('output_norm', x)
        return self.linear('output' if 'output.weight' in self.p else 'token_embd', x)

    def loss(self, i):
        """Of the i-th batch: the mean over the targets that are not -1."""
        logits = self.logits(self.d.tokens[i])
        return F.cross_entropy(logits.reshape(-1, logits.shape[-1]), self.d.targets[i].reshape(-1),
                               ignore_index=-1)


# --- its training ---------------------------------------------------------------------------------

def rate_at(d, step):
    """Step from 0, by the manual's words."""
    rate, warmup, total = d.f32('rate'), d.int('warmup'), d.int('total')
    if step < warmup:
        return rate * (step + 1) / warmup
    if d.int('schedule') == 0:
        return rate
    assert d.int('schedule') == 1
    t = min((step - warmup) / (total - warmup), 1.0)
    low = rate * d.f32('final')
    return low + (rate - low) * (1 + math.cos(math.pi * t)) / 2


def train(model, fault):
    """[steps, 3]: loss, norm and rate of each step; the model is changed."""
    d = model.d
    decay = d.f32('decay')
    vectors = [p for p in model.p.values() if p.dim() == 1]
    groups = [{'params': [p for p in model.p.values() if p.dim() == 2], 'weight_decay': decay},
              {'params': vectors, 'weight_decay': decay if fault == 'decay' else 0.0}]
    if d.int('optimizer') == 0:
        opt = torch.optim.AdamW(groups, lr=1.0, betas=(d.f32('beta1'), d.f32('beta2')),
                                eps=1e-8 if fault == 'epsilon' else d.f32('epsilon'))
    else:  # torch.optim.SGD adds the decay to the gradient; ours is decoupled
        opt = torch.optim.SGD(list(model.p.values()), lr=1.0, momentum=d.f32('momentum'))
    curve = []
    for step in range(d.int('steps')):
        rate = rate_at(d, step + (fault == 'schedule'))
        for group in opt.param_groups:
            group['lr'] = rate
        opt.zero_grad()
        loss = model.loss(1 + step)
        loss.backward()
        clip = d.f32('clip') if d.hp['clip'] and fault != 'clip' else math.inf
        norm = torch.nn.utils.clip_grad_norm_(list(model.p.values()), clip)
        with torch.no_grad():
            for p in groups[0]['params'] if d.int('optimizer') else []:
                p.mul_(1 - rate * decay)
            if fault == 'correction':  # what the moments' correction would do, undone
                b1, b2 = (1 - d.f32(key) ** (step + 1) for key in ('beta1', 'beta2'))
                for group in opt.param_groups:
                    group['lr'] = rate * b1 / math.sqrt(b2)
                    group['weight_decay'] *= rate / group['lr']
        opt.step()
        for group, was in zip(opt.param_groups, groups):
            group['weight_decay'] = was['weight_decay'] if d.int('optimizer') == 0 else 0.0
        curve.append((loss.item(), norm.item(), rate))
    return np.array(curve)


# --- the comparison -------------------------------------------------------------------------------

def ratio(difference, size):
    """0 / 0 is 0: what must be zero is."""
    return difference / size if size else math.inf if difference else 0.0


def far(got, want, start=None):
    """|got - want| by |want| (or |want - start|), Euclidean and of the largest element."""
    got, want = (np.asarray(a, np.float64).reshape(-1) for a in (got, want))
    size = want if start is None else want - np.asarray(start, np.float64).reshape(-1)
    return (ratio(np.linalg.norm(got - want), np.linalg.norm(size)),
            ratio(np.abs(got - want).max(), np.abs(size).max()))


class Result:
    """Of a case against one of PyTorch's types: the worst of everything, and complaints."""

    def __init__(self, d, dtype=torch.float64):
        self.worst, self.wrong, self.bounds = {}, [], F32
        if d.int('compute'):
            exact = dtype == torch.float64 and d.int('embd') < 16
            self.bounds = BF16 if exact else BF16_EDGES

    def take(self, what, name, value):
        if not value <= self.worst.get(what, 0.0):  # NaN too
            self.worst[what] = value
        if not value <= self.bounds[what]:
            self.wrong.append('%s %s %.2g' % (what, name, value))


def check_gradients(d, model, result):
    if next(iter(model.p.values())).grad is None:
        model.first = model.loss(0)
        model.first.backward()
    loss = model.first.item()
    result.take('loss', '', ratio(abs(d.loss - loss), abs(loss)))
    squares = 0.0
    for name, p in model.p.items():
        g = p.grad.numpy()
        norm, largest = far(d.grads[name], g)
        result.take('norm', name, norm)
        result.take('max', name, largest)
        squares += float((g.astype(np.float64) ** 2).sum())
    result.take('length', '', far([d.norm], [math.sqrt(squares)])[0])


def moves(d, name, tensor):
    """What of a tensor is compared at the end. A constant added to all keys changes no softmax, so
    the gradient of the keys' bias is nothing but rounding, which AdamW makes steps of."""
    tensor = np.asarray(tensor).reshape(-1)
    if d.arch == 'gpt2' and name.endswith('attn_qkv.bias'):
        q = d.int('heads') * d.int('head')
        return np.concatenate([tensor[:q], tensor[q + d.int('kv') * d.int('head'):]])
    return tensor


def check_steps(d, model, result, fault=''):
    curve = train(model, fault)
    for step, (ours, want) in enumerate(zip(d.curve, curve)):
        result.take('curve', 'step %d' % step, abs(ours[0] - want[0]) / want[0])
        result.take('norms', 'step %d' % step, abs(ours[1] - want[1]) / want[1])
        result.take('rate', 'step %d' % step, abs(ours[2] - want[2]) / want[2])
    for name, p in model.p.items():
        ours, want, start = (moves(d, name, a) for a in
                             (d.final[name], p.detach().numpy(), d.params[name]))
        result.take('final', name, far(ours, want, start)[0])


def compare(d):
    results = {}
    for name, dtype in TYPES.items():
        results[name] = Result(d, dtype)
        model = Model(d, dtype)
        check_gradients(d, model, results[name])
        check_steps(d, Model(d, dtype), results[name])
    return results


# --- the cases ------------------------------------------------------------------------------------

ADAMW = ('rate=0.01 schedule=1 warmup=5 total=20 final=0.1 decay=0.2 clip=0.7 beta2=0.98 '
         'epsilon=1e-5 ctx=12 tokens=11 seqs=5 batch=2 accum=3 ignore=15')
WIDE = 'vocab=301 embd=48 heads=6 kv=3 head=8 ff=88 layers=3'
CASES = [  # name, architecture, settings
    ('llama', 'llama', ''),
    ('llama epsilon 1e-8', 'llama', 'epsilon=1e-8'),
    ('llama tied', 'llama', 'tied=1'),
    ('llama eps, base', 'llama', 'eps=0.05 base=100'),
    ('llama wide', 'llama', WIDE),
    ('llama wide checkpoint', 'llama', WIDE + ' checkpoint=1 threads=2'),
    ('llama tied checkpoint 2', 'llama', WIDE + ' tied=1 checkpoint=2 threads=3'),
    ('llama multi-query', 'llama', 'kv=1 head=6'),
    ('llama SGD', 'llama', 'optimizer=1 momentum=0.9 rate=0.1'),
    ('llama long', 'llama', 'vocab=1030 embd=40 heads=4 kv=2 head=10 ff=300 ctx=150 tokens=140 '
     'batch=3 accum=2'),
    ('llama few targets', 'llama', 'ignore=85'),
    ('qwen2', 'qwen2', ''),
    ('qwen2 tied', 'qwen2', 'tied=1'),
    ('qwen2 wide checkpoint', 'qwen2', WIDE + ' checkpoint=1'),
    ('qwen3', 'qwen3', 'head=6'),
    ('qwen3 tied', 'qwen3', 'tied=1 eps=0.01'),
    ('qwen3 wide checkpoint', 'qwen3', WIDE + ' head=16 checkpoint=2 threads=2'),
    ('gpt2', 'gpt2', 'tied=1 kv=4 head=3'),
    ('gpt2 untied', 'gpt2', 'kv=4 head=3 eps=0.02'),
    ('gpt2 wide checkpoint', 'gpt2', WIDE + ' kv=6 tied=1 checkpoint=1 threads=2'),
    ('llama BF16', 'llama', 'compute=1'),
    ('qwen2 BF16', 'qwen2', 'compute=1 seed=2'),
    ('gpt2 BF16', 'gpt2', 'tied=1 kv=4 head=3 compute=1'),
    ('cs336 BF16', 'cs336', 'kv=4 head=3 compute=1 seed=3'),
    ('llama long BF16', 'llama', 'vocab=1030 embd=40 heads=4 kv=2 head=10 ff=300 ctx=150 '
     'tokens=140 batch=3 accum=2 compute=1'),
    ('qwen3 wide BF16', 'qwen3', WIDE + ' head=16 checkpoint=2 threads=2 compute=1'),
    ('gpt2 wide BF16', 'gpt2', WIDE + ' kv=6 tied=1 checkpoint=1 threads=2 compute=1'),
    ('cs336', 'cs336', 'kv=4 head=3'),
    ('cs336 wide checkpoint', 'cs336', WIDE + ' kv=6 checkpoint=2'),
]
CS336 = {'model_type': 'cs336', 'vocab_size': 100, 'context_length': 64, 'd_model': 128,
         'num_layers': 2, 'num_heads': 2, 'd_ff': 512}
SMALL = ' rate=0.001 seqs=3'  # what was trained already
FILES = [  # name, architecture, file, config, settings
    ('cs336 file', 'cs336', 'cs336/transformer_lm_weights.safetensors', CS336,
     'vocab=100 embd=128 heads=2 kv=2 head=64 ff=512 ctx=64 tokens=60' + SMALL),
    ('llama GGUF file', 'llama', 'stories260K/stories260K.gguf', None,
     'vocab=512 embd=64 layers=5 heads=8 kv=4 head=8 ff=172 ctx=64 tokens=50' + SMALL),
    ('llama HF file', 'llama', 'tinystories-656k/model.safetensors', None,
     'vocab=2048 embd=128 heads=8 kv=4 head=16 ff=384 ctx=64 tokens=50 tied=1 eps=1e-6' + SMALL),
    ('gpt2 file', 'gpt2', 'tiny-random-gpt2/model.safetensors', None,
     'vocab=1000 embd=32 layers=5 heads=4 kv=4 head=8 ff=37 ctx=64 tokens=50 tied=1' + SMALL),
]
ROPES = {'llama': rotate_pairs, 'qwen2': rotate_half, 'qwen3': rotate_half}


class Skip(Exception):
    pass


def dump(name, arch, settings, model=None, config=None):
    path = os.path.join(OUT, name.replace(' ', '_').replace(',', '') + '.bin')
    words = [DUMP, path, 'arch=' + arch, *ADAMW.split(), *settings.split()]
    rope = ROPES.get(arch)
    if model:
        file = os.path.join(MODELS, model)
        if not os.path.exists(file):
            raise Skip('no ' + file)
        words.append('model=' + file)
        if file.endswith('.safetensors') and rope:
            rope = rotate_half  # Hugging Face's order of a llama's rows
    if config:
        words.append('config=' + path + '.json')
        with open(path + '.json', 'w') as f:
            json.dump(config, f)
    subprocess.run(words, check=True)
    d = Dump(path, arch, rope)
    os.remove(path)
    if FAULT == 'gradient':
        name = sorted(d.grads)[0]
        d.grads[name] = spoilt(d.grads[name])
    return d


def spoilt(g):
    g = g.copy()
    g.flat[g.size // 2] += 1e-3 * np.abs(g).max()
    return g


HEAD = ('case', 'torch', 'loss', 'norm', 'max', 'curve', 'norms', 'final')


def run_case(name, arch, settings, model=None, config=None):
    """None, or what was wrong."""
    d = dump(name, arch, settings, model, config)
    wrong = []
    for dtype, result in compare(d).items():
        print('%-24s %-8s' % (name, dtype), *('%8.1e' % result.worst.get(k, 0) for k in HEAD[2:]),
              flush=True)
        wrong += [dtype + ': ' + text for text in result.wrong]
    return wrong


# --- that the checks can fail ---------------------------------------------------------------------

def unseen_gradients(change):
    """Tensors, of one model each architecture, whose changed gradients nobody noticed."""
    unseen, n = [], 0
    for name, arch, settings in CASES:
        if name not in ROPES and name not in ('gpt2', 'cs336'):
            continue
        d = dump(name, arch, settings)
        model = Model(d, torch.float64)
        right = dict(d.grads)
        for tensor in right:
            d.grads = {**right, tensor: change(right[tensor])}
            result = Result(d)
            check_gradients(d, model, result)
            n += 1
            if not any(text.split()[1] == tensor for text in result.wrong):
                unseen.append(name + ' ' + tensor)
    return unseen + ([] if n > 50 else ['only %d tensors' % n])


def unseen_fault(fault):
    d = dump('llama', 'llama', '')
    result = Result(d)
    check_steps(d, Model(d, torch.float64), result, fault)
    if result.wrong:
        print('%-24s seen by: %s' % ('', ', '.join(result.wrong[:3])))
        return []
    return ['nobody noticed']


def unseen_rounding():
    """PyTorch's products without theirs."""
    d = dump('llama', 'llama', 'compute=1')
    bounds = Result(d)
    d.hp['compute'] = 0
    check_gradients(d, Model(d, torch.float64), bounds)
    return [] if len(bounds.wrong) > len(d.params) else ['seen by %d' % len(bounds.wrong)]


def unseen_exit():
    """The same, with all that is around it: this program fails, and says so."""
    run = subprocess.run([sys.executable, '-B', __file__], stdout=subprocess.PIPE, text=True,
                         env={**os.environ, 'FAULT': 'gradient', 'ONLY': 'qwen2 tied'})
    last = run.stdout.strip().splitlines()[-1]
    return [] if run.returncode == 1 and last == '0 passed, 1 failed, 0 skipped' else [last]


FAULTS = [
    ('a wrong gradient is seen: one element by 1e-3', lambda: unseen_gradients(spoilt)),
    ('a wrong gradient is seen: all by 1e-3', lambda: unseen_gradients(lambda g: g * 1.001)),
    ('a wrong gradient fails the program', unseen_exit),
    ('factors that are not rounded are seen', unseen_rounding),
    ('decay of norms is seen', lambda: unseen_fault('decay')),
    ('no bias correction is seen', lambda: unseen_fault('correction')),
    ('no clipping is seen', lambda: unseen_fault('clip')),
    ('another epsilon is seen', lambda: unseen_fault('epsilon')),
    ('a schedule one step early is seen', lambda: unseen_fault('schedule')),
]


def main():
    torch.set_num_threads(2)
    passed = failed = skipped = 0
    jobs = [(case[0], lambda case=case: run_case(*case)) for case in CASES]
    jobs += [(name, lambda args=(name, arch, settings, model, config): run_case(*args))
             for name, arch, model, config, settings in FILES]
    jobs += FAULTS if not FAULT else []
    print('%-24s %-8s' % HEAD[:2], *('%8s' % h for h in HEAD[2:]))
    for name, job in jobs:
        if ONLY not in name:
            continue
        try:
            wrong = job()
        except Skip as why:
            print('%-24s skipped: %s' % (name, why))
            failed, skipped = failed + REQUIRE_DATA, skipped + (not REQUIRE_DATA)
            continue
        except subprocess.CalledProcessError as why:
            wrong = ['train_dump stopped with %d' % why.returncode]
        passed, failed = passed + (not wrong), failed + bool(wrong)
        if len(name) > 24 or name in dict(FAULTS):
            print('%-50s %s' % (name, 'no' if wrong else 'yes'), flush=True)
        for text in wrong[:5]:
            print('FAIL  %s: %s' % (name, text))
    print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
    return 1 if failed or not passed + skipped else 0


if __name__ == '__main__':
    sys.exit(main())

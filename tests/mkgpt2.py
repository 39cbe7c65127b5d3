#!/usr/bin/python3
"""Writes a GGUF file of a GPT-2 with random weights, so that two engines can run the same file.

    mkgpt2.py SHAPE TYPE OUT [--seed N]     TYPE: f32 f16 bf16 q8_0 q4_0

Needs numpy only: rounding and quantising are done here, from the formats' definitions.
parity.py uses the tables and the dequantisation as well, which knows more types."""
import os
import struct
import sys

import numpy as np

#          layers, dim, heads, ff, vocab, positions, tied
SHAPES = {
    'gpt2_tied': (3, 64, 4, 256, 512, 512, True),
    'gpt2_odd': (2, 160, 5, 608, 1009, 128, False),  # a vocabulary that no tile divides
    'gpt2_deep': (6, 96, 2, 384, 301, 96, True),
    'gpt2_steep': (3, 64, 4, 256, 512, 512, True),
}
# llama.cpp reads GELU from a table of float16, which alone moves logits by 2e-4 of their range, but
# not below -10 and above 10. In this shape every value lies there, so that all the rest of the
# network can be compared to a float32's accuracy.
STEEP = 'gpt2_steep'
GGML_TYPES = {'f32': 0, 'f16': 1, 'q4_0': 2, 'q4_1': 3, 'q5_0': 6, 'q5_1': 7, 'q8_0': 8,
              'q2_k': 10, 'q3_k': 11, 'q4_k': 12, 'q5_k': 13, 'q6_k': 14, 'iq4_nl': 20,
              'iq4_xs': 23, 'bf16': 30, 'tq1_0': 34, 'tq2_0': 35, 'mxfp4': 39}
BLOCKS = {'f32': (1, 4), 'f16': (1, 2), 'bf16': (1, 2), 'q8_0': (32, 34), 'q4_0': (32, 18),
          'q4_k': (256, 144), 'q5_k': (256, 176), 'q6_k': (256, 210), 'q4_1': (32, 20),
          'q5_0': (32, 22), 'q5_1': (32, 24), 'iq4_nl': (32, 18), 'mxfp4': (32, 17),
          'q2_k': (256, 84), 'q3_k': (256, 110), 'iq4_xs': (256, 136), 'tq1_0': (256, 54),
          'tq2_0': (256, 66)}  # elements, bytes
FILE_TYPES = {'f32': 0, 'f16': 1, 'q4_0': 2, 'q8_0': 7, 'bf16': 32}


# --- types: float32 array [rows, cols] -> bytes, and back -----------------------------------------

def round_half_away(x):
    return np.trunc(x + np.copysign(np.float32(0.5), x))


def inverse(d):
    return np.divide(np.float32(1), d, out=np.zeros_like(d), where=d != 0)


def encode(w, typ):
    w = np.ascontiguousarray(w, '<f4')
    if typ == 'f32':
        return w.tobytes()
    if typ == 'f16':
        return w.astype('<f2').tobytes()
    if typ == 'bf16':  # round half to even; no NaN is ever written here
        u = w.view('<u4')
        return ((u + 0x7fff + (u >> 16 & 1)) >> 16).astype('<u2').tobytes()
    b = w.reshape(-1, 32)
    if typ == 'q8_0':
        d = np.abs(b).max(1, keepdims=True) / np.float32(127)
        q = round_half_away(b * inverse(d)).astype('i1').view('u1')
    elif typ == 'q4_0':  # the largest value, sign included, becomes -8
        d = np.take_along_axis(b, np.abs(b).argmax(1)[:, None], 1) / np.float32(-8)
        n = np.clip(np.floor(b * inverse(d) + np.float32(8.5)), 0, 15).astype('u1')
        q = n[:, :16] | n[:, 16:] << 4
    else:
        raise ValueError(typ)
    return np.concatenate([d.astype('<f2').view('u1'), q], 1).tobytes()


def decode(data, typ, count):
    """float64. A value is a float32, or the difference of two: nothing is lost."""
    if typ == 'f32':
        return np.frombuffer(data, '<f4', count).astype('f8')
    if typ == 'f16':
        return np.frombuffer(data, '<f2', count).astype('f8')
    if typ == 'bf16':
        return (np.frombuffer(data, '<u2', count).astype('<u4') << 16).view('<f4').astype('f8')
    elements, width = BLOCKS[typ]
    b = np.frombuffer(data, 'u1', count // elements * width).reshape(-1, width)
    return {'q8_0': decode_q8_0, 'q4_0': decode_q4_0, 'q4_k': decode_q4_q5, 'q5_k': decode_q4_q5,
            'q6_k': decode_q6_k, 'q4_1': decode_q4_1, 'q5_0': decode_q5_0, 'q5_1': decode_q5_1,
            'iq4_nl': decode_iq4_nl, 'mxfp4': decode_mxfp4, 'q2_k': decode_q2_k,
            'q3_k': decode_q3_k, 'iq4_xs': decode_iq4_xs, 'tq1_0': decode_tq1_0,
            'tq2_0': decode_tq2_0}[typ](b).ravel()


def halves(b):
    """The float16 numbers in bytes [blocks, 2 n]."""
    return b.copy().view('<f2').astype('f8')


def decode_q8_0(b):
    return halves(b[:, :2]) * b[:, 2:].view('i1')


def decode_q4_0(b):
    q = b[:, 2:]
    return halves(b[:, :2]) * (np.concatenate([q & 15, q >> 4], 1).astype('f8') - 8)


def nibbles(q):
    return np.concatenate([q & 15, q >> 4], -1)


def decode_q4_1(b):
    return halves(b[:, :2]) * nibbles(b[:, 4:]) + halves(b[:, 2:4])


def fives(b):
    """32 bits, the fifth ones of 16 bytes of nibbles."""
    return nibbles(b[:, 4:]) | np.unpackbits(b[:, :4], axis=1, bitorder='little') << 4


def decode_q5_0(b):
    return halves(b[:, :2]) * (fives(b[:, 2:]).astype('f8') - 16)


def decode_q5_1(b):
    return halves(b[:, :2]) * fives(b[:, 4:]) + halves(b[:, 2:4])


IQ4 = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113], 'f8')
FLOATS4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6], 'f8')  # sign, 2 bits of exponent, 1 of mantissa
FLOATS4 = np.concatenate([FLOATS4, -FLOATS4])
FLOATS4[8] = 0  # ggml has no -0


def decode_iq4_nl(b):
    return halves(b[:, :2]) * IQ4[nibbles(b[:, 2:])]


def decode_mxfp4(b):
    return np.ldexp(FLOATS4[nibbles(b[:, 1:])], b[:, :1].astype('i4') - 127)


def twos(q):
    """For each half 32 bytes: two bits of elements i, 32 + i, 64 + i, 96 + i."""
    q = q.reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype='u1')[:, None] & 3
    return q.reshape(-1, 256).astype('f8')


def decode_q2_k(b):
    """16 bytes: scale and minimum of a sub-block of 16; 256 times two bits; d, dmin: f16."""
    d, dmin = np.split(halves(b[:, 80:]), 2, 1)
    q = twos(b[:, 16:80]).reshape(-1, 16, 16)
    return (d * (b[:, :16] & 15))[..., None] * q - (dmin * (b[:, :16] >> 4))[..., None]


def decode_q3_k(b):
    """Third bits; two bits; 16 scales: nibbles, then the two upper bits; d: f16."""
    high = b[:, None, :32] >> np.arange(8, dtype='u1')[:, None] & 1
    q = twos(b[:, 32:96]) + 4. * high.reshape(-1, 256) - 4
    top = b[:, None, 104:108] >> np.arange(0, 8, 2, dtype='u1')[:, None] & 3
    scale = nibbles(b[:, 96:104]) | top.reshape(-1, 16) << 4
    return (halves(b[:, 108:]) * (scale - 32.))[..., None] * q.reshape(-1, 16, 16)


def decode_iq4_xs(b):
    """d: f16; the two upper bits of 8 scales; their nibbles; 8 times 16 bytes of steps."""
    top = b[:, 2:4, None] >> np.arange(0, 8, 2, dtype='u1') & 3
    low = np.stack([b[:, 4:8] & 15, b[:, 4:8] >> 4], 2)
    scale = halves(b[:, :2]) * ((low.reshape(-1, 8) | top.reshape(-1, 8) << 4) - 32.)
    return scale[..., None] * IQ4[nibbles(b[:, 8:].reshape(-1, 8, 16))]


def decode_tq1_0(b):
    """Bytes are numbers in base 3 after the point: the whole part of 3^(g + 1) b / 256 ends in
    digit g."""
    digits = b[:, None, :52].astype('i4') * 3 ** np.arange(5)[:, None] % 256 * 3 // 256
    parts = digits[..., :32], digits[..., 32:48], digits[:, :4, 48:]
    q = np.concatenate([p.reshape(len(b), -1) for p in parts], 1)
    return halves(b[:, 52:]) * (q - 1.)


def decode_tq2_0(b):
    return halves(b[:, 64:]) * (twos(b[:, :64]) - 1)


def decode_q4_q5(b):
    """d, dmin: f16; 12 bytes of 6-bit scales and minima of 8 sub-blocks of 32; in Q5_K, 32 bytes
    whose bit j is the fifth of sub-block j; 4 times 32 bytes with two sub-blocks' nibbles each."""
    d, dmin = np.split(halves(b[:, :4]), 2, 1)
    first, second, rest = np.split(b[:, 4:16], 3, 1)
    scale = np.concatenate([first & 63, rest & 15 | first >> 6 << 4], 1)
    least = np.concatenate([second & 63, rest >> 4 | second >> 6 << 4], 1)
    low = b[:, -128:].reshape(-1, 4, 1, 32)
    q = np.concatenate([low & 15, low >> 4], 2).reshape(-1, 8, 32)
    if b.shape[1] > 144:
        q = q | (b[:, 16:48].reshape(-1, 1, 32) >> np.arange(8, dtype='u1')[:, None] & 1) << 4
    return (d * scale)[..., None] * q - (dmin * least)[..., None]


def decode_q6_k(b):
    """For each half, 64 bytes: the low nibbles of elements 0 - 63, the high ones of 64 - 127; then
    for each half 32 bytes: two bits of elements i, 32 + i, 64 + i, 96 + i; 16 scales; d: f16."""
    low = b[:, :128].reshape(-1, 2, 1, 64)
    low = np.concatenate([low & 15, low >> 4], 2).reshape(-1, 2, 4, 32)
    high = b[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype='u1')[:, None] & 3
    q = (low | high << 4).astype('f8') - 32
    scale = halves(b[:, 208:]) * b[:, 192:208].view('i1')
    return scale[..., None] * q.reshape(-1, 16, 16)


def row_bytes(typ, n):
    elements, width = BLOCKS[typ]
    return n // elements * width


# --- vocabulary -----------------------------------------------------------------------------------

def byte_letters():
    """GPT-2's printable letter for every byte: itself where it prints, else from U+0100 on."""
    prints = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in prints]
    return {**{b: chr(b) for b in prints}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def vocabulary(size):
    letters = byte_letters()
    tokens, merges = [letters[b] for b in range(256)], []
    space = letters[32]
    for left, right in [('t', 'h'), ('h', 'e'), ('i', 'n'), ('th', 'e'), (space, 'the'),
                        ('e', 'r'), (space, 'a'), ('o', 'n'), (space, 'in'), ('in', 'g')]:
        merges.append(left + ' ' + right)
        tokens.append(left + right)
    tokens.append('<|endoftext|>')
    assert size >= len(tokens)
    kinds = [1] * (len(tokens) - 1) + [3]
    end = len(tokens) - 1
    tokens += ['extra%d' % i for i in range(size - len(tokens))]
    kinds += [1] * (size - len(kinds))
    return tokens, kinds, merges, end


# --- the file -------------------------------------------------------------------------------------

def text(s):
    s = s.encode()
    return struct.pack('<Q', len(s)) + s


def metadata(shape, typ):
    layers, dim, heads, ff, vocab, positions, _ = SHAPES[shape]
    tokens, kinds, merges, end = vocabulary(vocab)
    strings = lambda v: struct.pack('<IIQ', 9, 8, len(v)) + b''.join(map(text, v))
    u32 = lambda v: struct.pack('<II', 4, v)
    string = lambda v: struct.pack('<I', 8) + text(v)
    return {
        'general.architecture': string('gpt2'),
        'general.name': string(shape + ' random'),
        'general.file_type': u32(FILE_TYPES[typ]),
        'gpt2.block_count': u32(layers),
        'gpt2.context_length': u32(positions),
        'gpt2.embedding_length': u32(dim),
        'gpt2.feed_forward_length': u32(ff),
        'gpt2.attention.head_count': u32(heads),
        'gpt2.attention.layer_norm_epsilon': struct.pack('<If', 6, 1e-5),
        'tokenizer.ggml.model': string('gpt2'),
        'tokenizer.ggml.pre': string('gpt-2'),
        'tokenizer.ggml.tokens': strings(tokens),
        'tokenizer.ggml.token_type':
            struct.pack('<IIQ', 9, 5, vocab) + np.array(kinds, '<i4').tobytes(),
        'tokenizer.ggml.merges': strings(merges),
        'tokenizer.ggml.bos_token_id': u32(end),
        'tokenizer.ggml.eos_token_id': u32(end),
    }


def tensors(shape):
    """name -> (rows, cols) or (n,), mean, deviation"""
    layers, dim, _, ff, vocab, positions, tied = SHAPES[shape]
    t = {'token_embd.weight': ((vocab, dim), 0, .1),
         'position_embd.weight': ((positions, dim), 0, .1)}

    def norm(name):
        t[name + '.weight'] = (dim,), 1, .1
        t[name + '.bias'] = (dim,), 0, .1

    def linear(name, rows, cols):
        t[name + '.weight'] = (rows, cols), 0, cols ** -.5
        t[name + '.bias'] = (rows,), 0, .1

    for i in range(layers):
        b = 'blk.%d.' % i
        norm(b + 'attn_norm')
        linear(b + 'attn_qkv', 3 * dim, dim)
        linear(b + 'attn_output', dim, dim)
        norm(b + 'ffn_norm')
        linear(b + 'ffn_up', ff, dim)
        linear(b + 'ffn_down', dim, ff)
    norm('output_norm')
    if not tied:
        t['output.weight'] = (vocab, dim), 0, dim ** -.5
    return t


def write(shape, typ, path, seed=1):
    rng = np.random.default_rng(seed)
    infos, blobs, offset = b'', [], 0
    listed, meta = tensors(shape), metadata(shape, typ)
    for name, (dims, mean, deviation) in listed.items():
        # As converters do: vectors and positions stay float32.
        t = 'f32' if len(dims) == 1 or name == 'position_embd.weight' else typ
        w = (mean + deviation * rng.standard_normal(dims)).astype('<f4')
        if shape == STEEP and name.endswith('ffn_up.bias'):
            w = np.where(w < 0, -20, 20).astype('<f4')
        if shape == STEEP and name.endswith('ffn_down.weight'):
            w *= np.float32(0.1)  # keeps what the large values add in proportion
        data = encode(w, t)
        infos += text(name) + struct.pack('<I', len(dims))
        infos += struct.pack('<%dQ' % len(dims), *dims[::-1])
        infos += struct.pack('<IQ', GGML_TYPES[t], offset)
        blobs.append(data + bytes(-len(data) % 32))
        offset += len(blobs[-1])
    head = struct.pack('<4sIQQ', b'GGUF', 3, len(listed), len(meta))
    head += b''.join(text(k) + v for k, v in meta.items()) + infos
    with open(path, 'wb') as f:
        f.write(head + bytes(-len(head) % 32) + b''.join(blobs))


if __name__ == '__main__':
    if len(sys.argv) not in (4, 6) or sys.argv[1] not in SHAPES or sys.argv[2] not in FILE_TYPES:
        sys.exit(__doc__ + '\nSHAPE: ' + ' '.join(SHAPES))
    write(*sys.argv[1:4], seed=int(sys.argv[5]) if len(sys.argv) == 6 else 1)
    print(sys.argv[3], os.path.getsize(sys.argv[3]))

"""tokens.py - ids of random texts beside llama.cpp's, for every kind of vocabulary.

Called by tokens.sh, which names everything by environment variables. Vocabulary-only GGUF files are
written for every rule of tokenizer.ggml.pre in smallmind.h (ALL=1: every name; with the tokens and
merges of GPT-2), for WordPiece and for Unigram (vocabularies made here); the texts have
characters of all planes, broken UTF-8, and long repeats. Both engines read the same file; every id
must be equal. llama.cpp throws an exception, and the program ends, on a sequence for a number above
U+10FFFF: such texts are left out.

    python3 tests/tokens.py FOLDER          writes WordPiece and Unigram as tokenizer.json
    python3 tests/tokens.py FOLDER TEXT...  writes such as GGUF, of the texts, to measure with"""
import base64
import collections
import ctypes
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import unicodedata

OUT, IDS, PEER, DATA = (os.environ.get(k, '') for k in ('OUT', 'IDS', 'PEER', 'DATA'))
COUNT = int(os.environ.get('TEXTS', '2000'))
ONLY, ALL = os.environ.get('ONLY', ''), os.environ.get('ALL', '')
U8, I8, I32, F32, BOOL, STRING, ARRAY, U32 = 0, 1, 5, 6, 7, 8, 9, 4
SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]


# --- GGUF: metadata alone -------------------------------------------------------------------------

def read_gguf(path):
    """{key: (type, element type, value)}; arrays of numbers stay bytes."""
    with open(path, 'rb') as file:
        data = file.read()
    at, meta = 8, {}

    def take(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, data, at - struct.calcsize(form))[0]

    def string():
        nonlocal at
        n = take('<Q')
        at += n
        return data[at - n:at]

    def value(kind):
        nonlocal at
        if kind == STRING:
            return string()
        at += SIZES[kind]
        return data[at - SIZES[kind]:at]

    take('<Q')
    for _ in range(take('<Q')):
        key, kind, of = string().decode(), take('<I'), None
        if kind == ARRAY:
            of = take('<I')
            meta[key] = (kind, of, [value(of) for _ in range(take('<Q'))])
        else:
            meta[key] = (kind, of, value(kind))
    return meta


def write_gguf(path, meta):
    def string(s):
        s = s if isinstance(s, bytes) else s.encode()
        return struct.pack('<Q', len(s)) + s

    def value(kind, v):
        if kind == STRING:
            return string(v)
        if isinstance(v, bytes):
            return v
        return struct.pack({U8: 'B', I8: 'b', I32: '<i', U32: '<I', F32: '<f', BOOL: '?'}[kind], v)

    parts = [b'GGUF', struct.pack('<IQQ', 3, 0, len(meta))]
    for key, (kind, of, v) in meta.items():
        parts += [string(key), struct.pack('<I', kind)]
        if kind == ARRAY:
            parts += [struct.pack('<IQ', of, len(v))] + [value(of, x) for x in v]
        else:
            parts.append(value(kind, v))
    with open(path, 'wb') as file:
        file.write(b''.join(parts))


# --- the texts ------------------------------------------------------------------------------------

WORDS = ('the cat sat on a mat. Once upon a time there was a little girl named Lily! It\'s DON\'T '
         'I\'LL we\'ve \'S 12 1234567 3.14159 1,000,000 x=y+1; {} ... --- \u00e9t\u00e9 na\u00efve '
         'stra\u00dfe \u4f60\u597d\u4e16\u754c \u3053\u3093\u306b\u3061\u306f \u30ab\u30bf '
         '\u043f\u0440\u0438\u0432\u0435\u0442 \u041c\u041e\u0421\u041a\u0412\u0410 '
         '\u0645\u0631\u062d\u0628\u0627 \ud55c\uad6d\uc5b4 \u0e20\u0e32\u0e29\u0e32\u0e44 '
         '\U0001f600\U0001f680 \u0905\u0928\u0941\u0935\u093e\u0926 \u2581 \u00a0 e\u0301 A\u030a '
         'camelCase XMLHttpRequest ABC123def foo_bar <s> </s> [CLS] <|im_end|> http://a.b/c?d=e '
         '\u00bd \u2167 \u0967\u0968\u0969 \ufb01 \uff21\uff22 \u212b \u01c5 \u0130 \u2019s '
         '<sentinel:123> IMGIMGABCZ IMGIMGZ <sentinel:> ABCDEFGHIJKLMNOP').split(' ')
GAPS = [' ', ' ', ' ', ' ', '  ', '   ', '    ', '\n', '\n\n', '\r\n', '\t', '', '', ' \n ',
        '\u3000', '\u00a0', '\u2028', '\x85', '/', '\n/', ' \n\n  ']
UNITS = ['a', ' ', '\n', '1', '!', '\u00e9', '\u4e2d', '\U0001f600', 'ab', ' a', '\u0301', '/', 'A',
         '\x01', '\r\n', '12', "'s", '\u00bd', '\u2581', '.', 'aB', '\u3000', '<', 'IMG', '\t']


def character(rng):
    kind = rng.randrange(9)
    if kind == 0:
        return chr(rng.randrange(1, 128))
    if kind == 1:
        return chr(rng.randrange(0x80, 0x600))
    if kind == 2:
        return chr(rng.randrange(0x600, 0x3400))
    if kind == 3:
        return chr(rng.randrange(0x3400, 0xd800))
    if kind == 4:
        return chr(rng.randrange(0xe000, 0x10000))
    if kind == 5:
        return chr(rng.randrange(0x10000, 0x20000))
    if kind == 6:
        return chr(rng.randrange(0x20000, 0x110000))
    return chr(rng.choice([0x300, 0x301, 0x4e00, 0x1f600, 0xac01, 0x200d, 0xfe0f, 0xad, 0x2000,
                           0x37e]))


def too_high(data):
    return re.search(rb'[\xf5-\xf7][\x80-\xbf]{3}|\xf4[\x90-\xbf][\x80-\xbf]{2}', data)


def text(rng):
    parts = []
    for _ in range(rng.randrange(1, 12)):
        kind = rng.randrange(12)
        if kind < 6:
            parts.append(rng.choice(WORDS).encode())
        elif kind < 9:
            parts.append(''.join(character(rng) for _ in range(rng.randrange(1, 5))).encode())
        elif kind == 9:
            parts.append(rng.choice(UNITS).encode() * rng.randrange(1, rng.choice([9, 40, 400])))
        elif kind == 10:
            whole = character(rng).encode() + rng.choice(WORDS).encode()
            parts.append(whole[:rng.randrange(len(whole))])
        else:
            parts.append(bytes(rng.randrange(1, 256) for _ in range(rng.randrange(1, 5))))
        parts.append(rng.choice(GAPS).encode())
    data = b''.join(parts)
    return text(rng) if too_high(data) or b'\0' in data else data


# --- the engines ----------------------------------------------------------------------------------

class Params(ctypes.Structure):
    """llama.cpp's parameters by value: more room than they take."""
    _fields_ = [('bytes', ctypes.c_ubyte * 1024)]


QUIET = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)


def peer_library():
    names = sorted(os.listdir(PEER))
    libraries = [ctypes.CDLL(os.path.join(PEER, name), ctypes.RTLD_GLOBAL)
                 for part in ('libggml-base', 'libggml.', 'libllama.')
                 for name in names if name.startswith(part)]
    llama = libraries[-1]
    llama.llama_log_set(QUIET, None)
    llama.llama_model_default_params.restype = Params
    for name, *args in (('llama_model_load_from_file', ctypes.c_char_p, Params),
                        ('llama_model_get_vocab', ctypes.c_void_p)):
        llama[name].restype, llama[name].argtypes = ctypes.c_void_p, args
    llama.llama_model_free.argtypes = [ctypes.c_void_p]
    llama.llama_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32,
                                     ctypes.c_void_p, ctypes.c_int32, ctypes.c_bool, ctypes.c_bool]
    return llama


def peer_ids(path, texts, special):
    llama = peer_library()
    params = llama.llama_model_default_params()
    # Behind pointers and numbers come the switches: vocab_only, and soon one that is on.
    first = next(i for i in range(64, 96, 8) if not params.bytes[i] and 1 in params.bytes[i:i + 4])
    params.bytes[first] = 1
    model = llama.llama_model_load_from_file(path.encode(), params)
    if not model:
        return None
    vocab, room = llama.llama_model_get_vocab(model), 1 << 16
    out, ids = (ctypes.c_int32 * room)(), []
    for t in texts:
        n = llama.llama_tokenize(vocab, t, len(t), out, room, True, special)
        ids.append(list(out[:n]))
    llama.llama_model_free(model)
    return ids


def our_ids(path, texts, special):
    name = os.path.join(OUT, 'texts')
    with open(name, 'wb') as file:
        file.write(b'\0'.join(texts))
    p = subprocess.run([IDS, path, name] + (['special'] if special else []),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if p.returncode:
        return p.stderr.decode().strip()
    return [[int(i) for i in line.split()] for line in p.stdout.decode().split('\n')[:-1]]


passed = failed = 0


def compare(name, path, texts, special=False):
    global passed, failed
    theirs = peer_ids(path, texts, special)
    ours = our_ids(path, texts, special)
    if theirs is None or isinstance(ours, str):
        print('%s: %s' % (name, 'llama.cpp does not open it' if theirs is None else ours))
        failed += 1
        return
    bad = [i for i in range(len(texts)) if i >= len(ours) or ours[i] != theirs[i]]
    n = len(texts)
    print('%s: %d of %d texts have the ids of llama.cpp' % (name, n - len(bad), n))
    for i in bad[:3]:
        a, b = ours[i], theirs[i]
        k = next((j for j in range(min(len(a), len(b))) if a[j] != b[j]), min(len(a), len(b)))
        print('   %r\n      at %d: ours %s peer %s' % (texts[i][:200], k, a[k:k + 9], b[k:k + 9]))
    passed, failed = passed + (not bad), failed + bool(bad)


# --- the vocabularies -----------------------------------------------------------------------------

def pre_names():
    with open('smallmind.h', encoding='utf-8') as file:
        header = file.read()
    start = header.index('static const sm__pre sm__pres[]')
    rows = header[start:header.index('};', start)]
    rows = rows[:rows.index('no name in GGUF')]
    names, seen = [], set()
    for name, row in re.findall(r'\{"([^"]+)", (SM__RULE[^}]*)\}', rows):
        if ALL or name == ONLY or row not in seen:
            names.append(name)
        seen.add(row)
    return names


def bpe_files():
    meta = read_gguf(os.path.join(DATA, 'tokenizers', 'ggml-vocab-gpt-2.gguf'))
    path = os.path.join(OUT, 'bpe.gguf')
    for name in pre_names():
        if name == 'default':
            meta['tokenizer.ggml.pre'] = (STRING, None, b'default')
        meta['tokenizer.ggml.pre'] = (STRING, None, name.encode())
        write_gguf(path, meta)
        yield 'pre ' + name, path


def vocabulary(rng):
    """Texts of tokens: single characters and pieces of words."""
    pieces = {c for w in WORDS for c in w} | {chr(c) for c in range(33, 127)}
    pieces |= {chr(rng.randrange(0xa1, 0x250)) for _ in range(150)}
    pieces |= {chr(rng.randrange(0x370, 0x3000)) for _ in range(300)}
    pieces |= {chr(rng.randrange(0x4e00, 0x9fff)) for _ in range(200)}
    words = [w for w in WORDS if w] + [w.lower() for w in WORDS]
    words += [''.join(rng.choice('etaoinshrdlu') for _ in range(rng.randrange(2, 6)))
              for _ in range(400)]
    for w in words:
        for _ in range(6):
            a = rng.randrange(len(w))
            pieces.add(w[a:rng.randrange(a, len(w)) + 1])
        pieces.add(w)
    return sorted(p for p in pieces if p and not p.isspace() and '\u2581' not in p)


def write_wpm(path, tokens, lower=None, strip=None):
    meta = {
        'general.architecture': (STRING, None, 'bert'),
        'tokenizer.ggml.model': (STRING, None, 'bert'),
        'tokenizer.ggml.tokens': (ARRAY, STRING, [t for t, _ in tokens]),
        'tokenizer.ggml.token_type': (ARRAY, I32, [k for _, k in tokens]),
        'tokenizer.ggml.bos_token_id': (U32, None, 2),
        'tokenizer.ggml.unknown_token_id': (U32, None, 1),
        'tokenizer.ggml.seperator_token_id': (U32, None, 3),
        'tokenizer.ggml.padding_token_id': (U32, None, 0),
    }
    if lower is not None:
        meta['tokenizer.ggml.normalizer.lowercase'] = (BOOL, None, lower)
    if strip is not None:
        meta['tokenizer.ggml.normalizer.strip_accents'] = (BOOL, None, strip)
    write_gguf(path, meta)


WPM_SPECIAL = [('[PAD]', 3), ('[UNK]', 2), ('[CLS]', 3), ('[SEP]', 3), ('[MASK]', 3)]


def wpm_files(rng):
    for lower, strip in ((None, None), (False, None), (True, False), (False, True)):
        pieces = {unicodedata.normalize('NFD', p)[:1] if len(p) == 1 else p
                  for p in vocabulary(rng)}
        pieces -= {t for t, _ in WPM_SPECIAL}
        tokens = WPM_SPECIAL + [('\u2581' + p, 1) for p in sorted(pieces)]
        tokens += [(p, 1) for p in sorted(pieces) if rng.randrange(3) or len(p) == 1]
        path = os.path.join(OUT, 'wpm.gguf')
        write_wpm(path, tokens, lower, strip)
        yield 'wordpiece lowercase %s strip_accents %s' % (lower, strip), path


def chars_files(rng):
    """Merges of characters, not of bytes: each of these rules has a vocabulary of its own."""
    for pre in ('gemma4', 'granite-embed-multi-311m', 'sarvam-moe', 'whitespace', 'gemma4 bytes'):
        for inside in (True, False):
            space = ' ' if pre == 'whitespace' else '\u2581'
            tokens = [(t, 3) for t in ('<pad>', '<eos>', '<bos>', '<unk>')]
            tokens += [('<0x%02X>' % i, 6) for i in range(256) if 'bytes' not in pre or i % 7]
            known, merges = {t for t, _ in tokens}, []

            def add(text):
                if text not in known:
                    known.add(text)
                    tokens.append((text, 1))

            for c in {c for w in WORDS for c in w} | set('\n\t\r ') - {' '} | {space}:
                add(c)
            for _ in range(3000):
                word = rng.choice(WORDS) if rng.randrange(9) else '\n' * rng.randrange(2, 5)
                word = (space if rng.randrange(2) else '') + word
                word += space + 'a' if inside and rng.randrange(9) == 0 else ''
                a = rng.randrange(len(word))
                cut = word[a:a + rng.randrange(2, 5)]
                k = rng.randrange(1, max(len(cut), 2))
                parts = cut[:k], cut[k:]
                if len(cut) > 1 and ' ' not in cut and all(p in known for p in parts) and \
                        parts not in merges:
                    merges.append(parts)
                    add(cut)
            meta = {
                'general.architecture': (STRING, None, 'llama'),
                'tokenizer.ggml.model': (STRING, None, pre.split()[0] if inside and 'gemma4' in pre
                                         else 'gpt2'),
                'tokenizer.ggml.pre': (STRING, None, pre.split()[0]),
                'tokenizer.ggml.tokens': (ARRAY, STRING, [t for t, _ in tokens]),
                'tokenizer.ggml.token_type': (ARRAY, I32, [k for _, k in tokens]),
                'tokenizer.ggml.merges': (ARRAY, STRING, [' '.join(m) for m in merges]),
                'tokenizer.ggml.bos_token_id': (U32, None, 2),
                'tokenizer.ggml.eos_token_id': (U32, None, 1),
            }
            path = os.path.join(OUT, 'chars.gguf')
            write_gguf(path, meta)
            yield 'merges of characters, %s %d' % (pre, inside), path


def double_array(pairs):
    """A charsmap: for every text what replaces it. Units as SentencePiece (Darts) has them: base
    << 10 | leaf << 8 | label; the value of a text is the unit at base ^ 0, with bit 31 set."""
    trie, texts = {}, bytearray()
    for source, target in sorted(pairs.items()):
        node = trie
        for b in source:
            node = node.setdefault(b, {})
        node[-1] = len(texts)
        texts += target + b'\0'
    units, used = {0: 0}, {0}

    def place(index, node):
        labels = [0 if b < 0 else b for b in node]
        base = 1
        while any((index ^ base ^ b) in used for b in labels):
            base += 1
        units[index] = units.get(index, 0) | base << 10 | (256 if -1 in node else 0)
        for b, child in node.items():
            used.add(index ^ base ^ max(b, 0))
        for b, child in node.items():
            at = index ^ base ^ max(b, 0)
            if b < 0:
                units[at] = 1 << 31 | child
            else:
                units[at] = b
                stack.append((at, child))

    stack = [(0, trie)]
    while stack:
        place(*stack.pop())
    size = (max(units) // 256 + 1) * 256
    blob = b''.join(struct.pack('<I', units.get(i, 0)) for i in range(size))
    return struct.pack('<I', len(blob)) + blob + bytes(texts)


def charsmap():
    """Something like nmt_nfkc: controls off, white space to spaces, NFKC of some characters."""
    pairs = {}
    for code in [*range(1, 0x500), *range(0x1e00, 0x2190), *range(0x3000, 0x3100),
                 *range(0xfb00, 0xfb07), *range(0xff00, 0xff80)]:
        c = chr(code)
        norm = unicodedata.normalize('NFKC', c)
        if c in '\t\n\r' or (c.isspace() and c != ' '):
            norm = ' '
        elif unicodedata.category(c) == 'Cc':
            norm = ''
        if norm != c:
            pairs[c.encode()] = norm.encode()
        nfd = unicodedata.normalize('NFD', c)
        if nfd != c and len(nfd) > 1:
            pairs[nfd.encode()] = c.encode()
    return double_array(pairs)


def write_ugm(path, tokens, maps, prefix, merge):
    meta = {
        'general.architecture': (STRING, None, 't5'),
        'tokenizer.ggml.model': (STRING, None, 't5'),
        'tokenizer.ggml.tokens': (ARRAY, STRING, [t for t, _, _ in tokens]),
        'tokenizer.ggml.token_type': (ARRAY, I32, [k for _, k, _ in tokens]),
        'tokenizer.ggml.scores': (ARRAY, F32, [s for _, _, s in tokens]),
        'tokenizer.ggml.eos_token_id': (U32, None, 1),
        'tokenizer.ggml.unknown_token_id': (U32, None, 2),
    }
    if maps:
        meta['tokenizer.ggml.precompiled_charsmap'] = (ARRAY, U8, list(maps))
    if prefix is not None:
        meta['tokenizer.ggml.add_space_prefix'] = (BOOL, None, prefix)
    if merge is not None:
        meta['tokenizer.ggml.remove_extra_whitespaces'] = (BOOL, None, merge)
    write_gguf(path, meta)


UGM_SPECIAL = [('<pad>', 3, 0.0), ('</s>', 3, 0.0), ('<unk>', 2, 0.0)]


def ugm_files(rng):
    maps = charsmap()
    for mapped, prefix, merge, inside in (
            (True, True, True, True), (True, True, True, False), (False, None, None, True),
            (False, None, None, False), (True, True, False, False), (True, False, True, True),
            (True, False, True, False)):
        pieces = vocabulary(rng)
        tokens = UGM_SPECIAL + [('\u2581', 1, -2.5)]
        tokens += [(p, 1, -rng.uniform(2, 14)) for p in pieces]
        tokens += [('\u2581' + p, 1, -rng.uniform(2, 14)) for p in pieces if rng.randrange(2)]
        tokens += [('\u2581%s\u2581%s' % (rng.choice(pieces), rng.choice(pieces)), 1,
                    -rng.uniform(2, 9)) for _ in range(20 if inside else 0)]
        seen, kept = set(), []
        for t in tokens:
            if t[0] not in seen:
                kept.append(t)
                seen.add(t[0])
        kept += [('<extra_id_%d>' % i, 4, 0.0) for i in range(3)] + [('\uff21user', 4, -1.0)]
        path = os.path.join(OUT, 'ugm.gguf')
        write_ugm(path, kept, maps if mapped else None, prefix, merge)
        name = mapped, prefix, merge, inside
        yield 'unigram, charsmap %s prefix %s merge %s inside %s' % name, path


# --- the same kinds as tokenizer.json, for hf_ids.mjs ---------------------------------------------

def json_files(folder):
    rng = random.Random(2)
    names = []

    def write(name, value):
        names.append(os.path.join(folder, name + '.json'))
        with open(names[-1], 'w', encoding='utf-8') as file:
            json.dump(value, file, ensure_ascii=bool(len(names) & 1))

    def added(*texts):
        return [{'id': i, 'content': t, 'single_word': False, 'lstrip': t == '[MASK]',
                 'rstrip': False, 'normalized': False, 'special': True}
                for i, t in enumerate(texts)]

    special = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]']
    template = {
        'type': 'TemplateProcessing', 'pair': [],
        'single': [{'SpecialToken': {'id': '[CLS]', 'type_id': 0}},
                   {'Sequence': {'id': 'A', 'type_id': 0}},
                   {'SpecialToken': {'id': '[SEP]', 'type_id': 0}}],
        'special_tokens': {t: {'id': t, 'ids': [special.index(t)], 'tokens': [t]}
                           for t in ('[CLS]', '[SEP]')}}
    for number, (clean, han, strip, lower) in enumerate((
            (True, True, None, True), (True, True, None, False), (False, False, True, True),
            (True, True, False, True), (True, False, True, False), (0, 0, 0, 0))):
        pieces = [p for p in vocabulary(rng) if p not in special]
        pieces += sorted({unicodedata.normalize('NFD', p) for p in pieces if len(p) == 1} -
                         set(pieces))
        tokens = special + pieces + ['##' + p for p in pieces if rng.randrange(3)]
        post = template if number % 2 else {'type': 'BertProcessing', 'sep': ['[SEP]', 3],
                                            'cls': ['[CLS]', 2]}
        write('wordpiece%d' % number, {
            'added_tokens': added(*special), 'post_processor': post, 'decoder': None,
            'normalizer': {'type': 'BertNormalizer', 'clean_text': clean, 'lowercase': lower,
                           'handle_chinese_chars': han, 'strip_accents': strip}
            if number < 5 else {'type': 'Sequence', 'normalizers': [
                {'type': 'NFD'}, {'type': 'Lowercase'}, {'type': 'StripAccents'}]},
            'pre_tokenizer': {'type': 'BertPreTokenizer'},
            'model': {'type': 'WordPiece', 'unk_token': '[UNK]', 'continuing_subword_prefix': '##',
                      'max_input_chars_per_word': 100 if number < 3 else 12,
                      'vocab': {t: i for i, t in enumerate(tokens)}}})
    maps = {'type': 'Precompiled',
            'precompiled_charsmap': base64.b64encode(charsmap()).decode()}
    space = {'type': 'Metaspace', 'replacement': '\u2581', 'prepend_scheme': 'always'}
    chains = [
        (maps, {'type': 'Sequence', 'pretokenizers': [{'type': 'WhitespaceSplit'}, space]}),
        ({'type': 'Sequence', 'normalizers': [maps, {
            'type': 'Strip', 'strip_left': False, 'strip_right': True}, {
                'type': 'Replace', 'pattern': {'Regex': ' {2,}'}, 'content': '\u2581'}]}, space),
        (None, dict(space, prepend_scheme='first', split=False)),
        (None, dict(space, prepend_scheme='never')),
    ]
    for number, (normalizer, cut) in enumerate(chains):
        special = ['<s>', '<pad>', '</s>', '<unk>']
        pieces = [p for p in vocabulary(rng) if p not in special]
        tokens = [[t, 0.0] for t in special] + [['\u2581', -2.5]]
        tokens += [[p, -rng.uniform(2, 14)] for p in pieces]
        tokens += [['\u2581' + p, -rng.uniform(2, 14)] for p in pieces if rng.randrange(2)]
        if number == 2:
            tokens += [['<0x%02X>' % i, -20.0] for i in range(256)]
        write('unigram%d' % number, {
            'added_tokens': added(*special), 'post_processor': None, 'decoder': None,
            'normalizer': normalizer, 'pre_tokenizer': cut,
            'model': {'type': 'Unigram', 'unk_id': 3, 'byte_fallback': number == 2,
                      'vocab': tokens}})
    # Merges of characters with U+2581: Metaspace, whole or in words, and Gemma's way.
    split = {'type': 'Split', 'pattern': {'String': ' '}, 'behavior': 'MergedWithPrevious',
             'invert': False}
    for number, (normalizer, cut) in enumerate((
            (None, space), (None, dict(space, split=False)),
            (None, dict(space, prepend_scheme='first')),
            (None, dict(space, prepend_scheme='never', split=False)),
            ({'type': 'Replace', 'pattern': {'String': ' '}, 'content': '\u2581'}, split))):
        vocab, merges = {'<s>': 0, '<unk>': 1}, []
        for i in range(256):
            vocab['<0x%02X>' % i] = 2 + i
        for c in sorted({c for w in WORDS for c in w} | {'\u2581'}):
            vocab.setdefault(c, len(vocab))
        for _ in range(4000):
            word = ' '.join(rng.choice(WORDS) for _ in range(3)) + '  '
            a = rng.randrange(len(word))
            cut_ = word[a:a + rng.randrange(2, 6)].replace(' ', '\u2581')
            k = rng.randrange(1, max(len(cut_), 2))
            parts = [cut_[:k], cut_[k:]]
            if len(cut_) > 1 and '<s>' not in cut_ and parts not in merges and \
                    all(p in vocab for p in parts):
                merges.append(parts)
                vocab.setdefault(cut_, len(vocab))
        write('chars%d' % number, {
            'added_tokens': added('<s>'), 'post_processor': None, 'decoder': None,
            'normalizer': normalizer, 'pre_tokenizer': cut,
            'model': {'type': 'BPE', 'unk_token': '<unk>', 'byte_fallback': True,
                      'fuse_unk': True, 'vocab': vocab, 'merges': merges}})
    one = [dict(type=kind) for kind in ('NFC', 'NFD', 'NFKC', 'NFKD', 'StripAccents', 'Lowercase',
                                        'Nmt')]
    strip = {'type': 'Strip', 'strip_left': True, 'strip_right': True}

    def replace(kind, pattern, content):
        return {'type': 'Replace', 'pattern': {kind: pattern}, 'content': content}

    quotes = [replace('String', '``', '"'), replace('String', "''", '"')]
    chains = [[step] for step in one] + [
        [one[1], one[4]], quotes + [one[3], one[4], one[5], maps], [one[5], one[1], one[4]],
        [strip, maps, replace('Regex', ' {2,}', ' ')],
        [replace('Regex', r'\s+', ' '), dict(strip, strip_left=False)],
        [replace('Regex', r'[\r\n\t]', ' '), one[2]],
        [replace('Regex', r'[!-/:-@\[-`{-~]', ''), strip],
        [replace('Regex', r'\s{2,3}', '__'), one[3], one[0], maps]]
    for number, chain in enumerate(chains):
        write('normal%d' % number, {
            'added_tokens': [], 'post_processor': None, 'decoder': None, 'pre_tokenizer': None,
            'normalizer': {'type': 'Sequence', 'normalizers': chain},
            'model': {'type': 'BPE', 'unk_token': '<unk>', 'byte_fallback': True, 'merges': [],
                      'vocab': {'<unk>': 256, **{'<0x%02X>' % i: i for i in range(256)}}}})
    split_files(rng, write)
    decoder_files(rng, write)
    added_files(rng, write)
    bpe_options(rng, write)
    print('\n'.join(names))


BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous']
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_chars():
    """GPT-2's characters for bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return [chr(b) if b in plain else chr(256 + [x for x in range(256) if x not in plain].index(b))
            for b in range(256)]


def pieces_of(rng, alphabet, split, count):
    """A vocabulary and merges of pieces of the words, written by split(text)."""
    vocab, merges = {c: i for i, c in enumerate(alphabet)}, []
    for _ in range(count):
        word = split(' '.join(rng.choice(WORDS) for _ in range(2)) + rng.choice(GAPS))
        a = rng.randrange(len(word))
        piece = word[a:a + rng.randrange(2, 6)]
        k = rng.randrange(1, max(len(piece), 2))
        parts = [piece[:k], piece[k:]]
        if len(piece) > 1 and parts not in merges and all(p in vocab for p in parts):
            merges.append(parts)
            vocab.setdefault(piece, len(vocab))
    return vocab, merges


def split_model(rng, kind, space):
    """A model that tells words apart: what begins one is another token, or ends a merge."""
    signs = {c for w in WORDS for c in w} | {c for g in GAPS for c in g} | {space, '\u2581'}
    if kind == 'WordPiece':
        pieces = sorted(signs | set(vocabulary(rng)))
        texts = ['[UNK]'] + pieces + ['##' + p for p in pieces if p != ' ' and p[0] != ' ']
        return {'type': kind, 'unk_token': '[UNK]', 'continuing_subword_prefix': '##',
                'max_input_chars_per_word': 100, 'vocab': {t: i for i, t in enumerate(texts)}}
    if kind == 'WordLevel':
        texts = sorted({rng.choice(['', ' ', space]) + p for p in vocabulary(rng)} | signs |
                       {g for g in GAPS if g} | {rng.choice(WORDS) + g for g in GAPS})
        return {'type': kind, 'unk_token': '[UNK]',
                'vocab': {t: i for i, t in enumerate(['[UNK]'] + texts)}}
    if kind == 'Unigram':
        texts = sorted(signs | {p.replace(' ', space) for _ in range(3) for p in vocabulary(rng)} |
                       {' '.join(rng.choice(WORDS) for _ in range(2)).replace(' ', space)
                        for _ in range(60)})
        return {'type': kind, 'unk_id': 0,
                'vocab': [['<unk>', 0.0]] + [[t, -rng.uniform(2, 14)] for t in texts]}
    if kind == 'ByteLevel':
        chars = byte_chars()
        vocab, merges = pieces_of(rng, chars, lambda w: ''.join(
            chars[b] for b in w.replace(' ', space).encode()), 3000)
        return {'type': 'BPE', 'vocab': vocab, 'merges': merges}
    vocab, merges = pieces_of(rng, ['<unk>'] + sorted(signs), lambda w: w.replace(' ', space), 3000)
    return {'type': 'BPE', 'unk_token': '<unk>', 'fuse_unk': bool(rng.randrange(2)),
            'vocab': vocab, 'merges': merges}


def split_chains():
    """Pre-tokenizers, for what kinds of models."""
    def one(kind, **more):
        return dict(more, type=kind)

    def split(behavior, invert=False, **pattern):
        return one('Split', pattern=pattern, behavior=behavior, invert=invert)

    def meta(scheme, whole=False, mark='\u2581'):
        return one('Metaspace', replacement=mark, prepend_scheme=scheme, split=not whole)

    def level(front=False, regex=True):
        return one('ByteLevel', add_prefix_space=front, trim_offsets=True, use_regex=regex)

    white, words, bert = one('WhitespaceSplit'), one('Whitespace'), one('BertPreTokenizer')
    digits, digit = one('Digits', individual_digits=False), one('Digits', individual_digits=True)
    marks = {b: one('Punctuation', behavior=b) for b in BEHAVIORS}
    every = ['WordPiece', 'Unigram', 'BPE', 'WordLevel']
    chains = [(every, [words]), (every, [white]), (['Unigram', 'BPE', 'WordLevel'], [bert]),
              (every, [digits]), (every, [digit]), (['WordPiece', 'BPE'], []),
              (every, [one('CharDelimiterSplit', delimiter='\u00e9')]),
              (['WordPiece'], [one('Punctuation')])]
    chains += [(every[:3], [m]) for m in marks.values()]
    for number, behavior in enumerate(BEHAVIORS):
        kinds = [every[number % 3]]
        for invert in (False, True):
            chains += [(kinds, [split(behavior, invert, String='a')]),
                       (kinds, [split(behavior, invert, String=' ')]),
                       (kinds, [split(behavior, invert, String='12')]),
                       (kinds, [split(behavior, invert, Regex=r'\s+')]),
                       (kinds, [split(behavior, invert, Regex=r'[0-9]')]),
                       (kinds, [split(behavior, invert, Regex=GPT2)]),
                       (['ByteLevel'], [split(behavior, invert, Regex=LLAMA3), level(regex=False)]),
                       (kinds, [split(behavior, invert, Regex=r'\p{N}{1,3}'), white])]
    chains += [
        (every, [white, marks['Isolated'], digit]), (every, [one('Sequence', pretokenizers=[
            white, one('Sequence', pretokenizers=[marks['Contiguous'], digits])]), digit]),
        (every, [white, meta('always')]), (every, [marks['Contiguous'], meta('always')]),
        (every, [digit, meta('always', True)]), (every, [marks['MergedWithNext'], meta('first')]),
        (every, [meta('always')]), (every, [meta('first')]), (every, [meta('never')]),
        (every, [meta('always', True), digit]), (every, [meta('never'), marks['Isolated']]),
        (every, [meta('first', True), words]), (every, [meta('always'), white]),
        (every, [meta('always', True), split('Isolated', String='\u2581')]),
        (every, [meta('always', False, '_')]), (every, [white, meta('first', True, '\u00e9')]),
        (['ByteLevel'], [level(True)]), (['ByteLevel'], [level(False, False)]),
        (['ByteLevel'], [words, level(True)]), (['ByteLevel'], [digit, level(True, False)]),
        (['ByteLevel'], [marks['Contiguous'], digits, level()]),
        (['ByteLevel'], [white, level(True, False)]), (['ByteLevel'], [meta('always'), level()]),
        (['ByteLevel'], [split('Removed', String=' '), level()]),
        (['ByteLevel'], [split('MergedWithNext', String=' '), level(False, False)])]
    return chains


def split_files(rng, write):
    """Every way of cutting text into words, with the kinds of models that tell it."""
    number = 0
    for kinds, chain in split_chains():
        space = next((s['replacement'] for s in chain if s['type'] == 'Metaspace'), ' ')
        for kind in kinds:
            write('split%d-%s' % (number, kind), {
                'added_tokens': [], 'normalizer': None, 'post_processor': None, 'decoder': None,
                'pre_tokenizer': chain[0] if len(chain) == 1 else
                {'type': 'Sequence', 'pretokenizers': chain} if chain else None,
                'model': split_model(rng, kind, space)})
        number += 1


def decoder_files(rng, write):
    """Every decoder, over tokens of every kind."""
    def one(kind, **more):
        return dict(more, type=kind)

    def replace(content, **pattern):
        return one('Replace', pattern=pattern, content=content)

    def strip(start, stop, content=' '):
        return one('Strip', content=content, start=start, stop=stop)

    def meta(scheme):
        return one('Metaspace', replacement='\u2581', prepend_scheme=scheme, split=True)

    level = one('ByteLevel', add_prefix_space=True, trim_offsets=True, use_regex=True)
    fallback, fuse, space = one('ByteFallback'), one('Fuse'), replace(' ', String='\u2581')
    chains = [
        [], [level], [meta('always')], [meta('first')], [meta('never')], [fallback], [fuse],
        [one('WordPiece', prefix='##', cleanup=True)],
        [one('WordPiece', prefix='##', cleanup=False)], [one('BPEDecoder', suffix='</w>')],
        [space, fallback, fuse, strip(1, 0)], [space, fallback, fuse], [strip(1, 0)],
        [strip(0, 1)], [strip(0, 1, '\u2581')], [replace('x', Regex='[a-c]+'), strip(1, 0, 'x')],
        [replace('', String='##'), one('BPEDecoder', suffix='</w>'), fuse],
        [fuse, strip(3, 0)], [replace('--', String='a'), level, strip(2, 0)],
        [space, one('WordPiece', prefix='##', cleanup=True), fuse]]
    signs = {c for w in WORDS for c in w} | {g for g in GAPS if g} | {'\u2581', ' ', '##', '</w>'}
    pieces = {rng.choice(['', '', '\u2581', '\u2581\u2581', '##', ' ', 'a']) + p +
              rng.choice(['', '', '', '</w>', ' ', '\u2581'])
              for _ in range(2) for p in vocabulary(rng)}
    ends = {' ' + t for t in ('.', '?', "n't", "'s", "'m", 'do not', ' ', "' x")}
    texts = sorted(signs | pieces | ends | {"do not . n't", 'x . y', "'s", '.', "n't", '##.'})
    texts = ['[UNK]', '<s>'] + ['<0x%02X>' % i for i in range(256)] + texts
    texts += [''.join(byte_chars()[b] for b in w.encode()) for w in WORDS if len(w) > 3]
    vocab = {}
    for text in texts:
        vocab.setdefault(text, len(vocab))
    tokens = [{'id': vocab.setdefault(t, len(vocab)), 'content': t, 'single_word': False,
               'lstrip': False, 'rstrip': False, 'normalized': False, 'special': special}
              for t, special in (('<s>', True), ('[X]', False), ('\u00e9\u00e9', False),
                                 ('\u2581z ', True), ('##q', False), ('e</w>', True))]
    for number, chain in enumerate(chains):
        write('decode%d' % number, {
            'added_tokens': tokens, 'normalizer': None, 'pre_tokenizer': None,
            'post_processor': None,
            'decoder': chain[0] if len(chain) == 1 else
            {'type': 'Sequence', 'decoders': chain} if number else None,
            'model': {'type': 'WordLevel', 'unk_token': '[UNK]', 'vocab': vocab}})


def added_files(rng, write):
    """Added tokens of every sort, in text that is normalized in many ways, and cut."""
    def one(kind, **more):
        return dict(more, type=kind)

    def meta(scheme):
        return one('Metaspace', replacement='\u2581', prepend_scheme=scheme, split=True)

    bert = one('BertNormalizer', clean_text=True, handle_chinese_chars=True, strip_accents=None,
               lowercase=True)
    level = one('ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True)
    marks = one('Sequence', normalizers=[one('Prepend', prepend='\u2581'),
                                         one('Replace', pattern={'String': ' '},
                                             content='\u2581')])
    lower = one('Sequence', normalizers=[one('NFKC'), one('Lowercase')])
    strip = one('Strip', strip_left=True, strip_right=True)
    texts = ['<s>', '[MASK]', 'Lily', 'the', 'cat ', ' on', '\u00c9t\u00e9', '12', '<S>x', '  ',
             '\ufb01', 'Once upon', '\n\n', '...', '\u4f60', 'xyz_', '\u2581a', 'UP']
    for number, (kind, normalizer, cut) in enumerate((
            ('WordPiece', bert, one('BertPreTokenizer')), ('WordPiece', bert, None),
            ('WordLevel', lower, one('Whitespace')), ('Unigram', None, meta('always')),
            ('Unigram', lower, meta('first')), ('Unigram', strip, meta('never')),
            ('BPE', marks, None), ('BPE', marks, meta('always')), ('BPE', None, meta('first')),
            ('BPE', lower, one('Sequence', pretokenizers=[one('WhitespaceSplit'), meta('always')])),
            ('ByteLevel', None, level), ('ByteLevel', lower, level), ('BPE', marks, one(
                'Digits', individual_digits=True)), ('BPE', None, None), ('Unigram', bert, None))):
        model = split_model(rng, kind, '\u2581' if normalizer == marks or cut and
                            'Metaspace' in str(cut) else ' ')
        vocab = [t for t, _ in model['vocab']] if kind == 'Unigram' else list(model['vocab'])
        tokens, strips = [], number % 3
        for text in texts:
            if rng.randrange(3) and (not strips or text.strip() == text):
                known = text in vocab # by the model: then control tokens are ours by name only
                special = bool(rng.randrange(2)) and not known
                tokens.append({
                    'id': vocab.index(text) if known else len(vocab), 'content': text,
                    'single_word': not rng.randrange(2) and not (
                        known and special),
                    'lstrip': bool(strips and rng.randrange(2)),
                    'rstrip': bool(strips and rng.randrange(2)),
                    'normalized': bool(rng.randrange(3)), 'special': special})
                vocab += [] if known else [text]
        write('added%d' % number, {
            'added_tokens': tokens, 'normalizer': normalizer, 'pre_tokenizer': cut,
            'post_processor': None, 'decoder': one('Fuse'), 'model': model})


def bpe_options(rng, write):
    """Merges with every option of the model."""
    white = {'type': 'WhitespaceSplit'}
    level = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True,
             'use_regex': True}
    chars = byte_chars()
    for number, (front, end, whole, fallback, fuse, unknown, cut) in enumerate((
            ('', '</w>', 0, 0, 0, 1, white), ('##', '', 0, 0, 1, 1, white),
            ('@', '$', 0, 0, 1, 1, white), ('@@', '</w>', 1, 0, 0, 0, white),
            ('', '', 1, 0, 1, 1, white), ('', '', 1, 1, 1, 1, None), ('', '', 0, 1, 0, 0, white),
            ('', '', 0, 0, 0, 0, white), ('', '', 0, 0, 0, 0, None), ('', '', 1, 0, 1, 1, None),
            ('', '</w>', 0, 0, 1, 1, level), ('#', '', 1, 0, 0, 0, level),
            ('', '', 0, 0, 0, 1, level), ('', '', 0, 0, 1, 1, level), ('', '', 0, 0, 0, 0, level))):
        vocab, merges = {'<unk>': 0} if unknown else {}, []
        if fallback:
            for i in range(256):
                vocab['<0x%02X>' % i] = len(vocab)

        def piece(word, a, b):
            return (front if a else '') + word[a:b] + (end if b == len(word) else '')

        words = [''.join(chars[b] for b in w.encode()) for w in WORDS] if cut == level else WORDS
        words = words + ['aaaa', 'abab', words[0] + words[1], 'x y' if not cut else 'xy']
        for word in words:
            for i in range(len(word)):
                if rng.randrange(12):
                    vocab.setdefault(piece(word, i, i + 1), len(vocab))
                    vocab.setdefault(piece(word[i], 0, 1), len(vocab))
        for _ in range(3000):
            word = rng.choice(words)
            a = rng.randrange(len(word))
            b = min(len(word), a + rng.randrange(2, 7))
            k = rng.randrange(a, b)
            parts = [piece(word, a, k), piece(word, k, b)]
            if a < k and parts not in merges and all(p in vocab for p in parts):
                merges.append(parts)
                vocab.setdefault(piece(word, a, b), len(vocab))
        for word in words[::3]:
            vocab.setdefault(word, len(vocab))
        write('bpe%d' % number, {
            'added_tokens': [], 'normalizer': None, 'pre_tokenizer': cut, 'post_processor': None,
            'decoder': {'type': 'BPEDecoder', 'suffix': end} if end else None,
            'model': {'type': 'BPE', 'dropout': None, 'unk_token': '<unk>' if unknown else None,
                      'continuing_subword_prefix': front or None,
                      'end_of_word_suffix': end or None, 'fuse_unk': bool(fuse),
                      'byte_fallback': bool(fallback), 'ignore_merges': bool(whole),
                      'vocab': vocab, 'merges': merges}})


def bench_files(folder, *names):
    """Vocabularies of the size of real ones, from the pieces of words that texts have most."""
    pieces, total = collections.Counter(), 0
    for name in names:
        with open(name, encoding='utf-8') as file:
            words = collections.Counter(file.read().split())
        for word, count in words.items():
            word = '\u2581' + word
            total += count * len(word)
            for a in range(len(word)):
                for b in range(a + 1, min(len(word), a + 16) + 1):
                    pieces[word[a:b]] += count
    best = sorted(pieces, key=lambda p: (len(p) > 1, -pieces[p] * len(p), p))[:32000]
    best = [p for p in best if p != '<unk>']
    write_ugm(os.path.join(folder, 'ugm.gguf'), UGM_SPECIAL + [
        (p, 1, math.log(pieces[p] / total)) for p in best], charsmap(), True, True)
    write_wpm(os.path.join(folder, 'wpm.gguf'), WPM_SPECIAL + [
        (p, 1) for p in best if p == p.lower() and p != '\u2581'])


def main():
    rng = random.Random(1)
    texts = [text(rng) for _ in range(COUNT)]
    files = [(n, os.path.join(DATA, 'tokenizers', 'ggml-vocab-%s.gguf' % n))
             for n in ('llama-spm', 'phi-3', 'gpt-2', 'llama-bpe', 'qwen2')]
    for name, path in files:
        if ONLY in name:
            compare(name, path, texts)
            compare(name + ', special tokens in text', path, texts, True)
    for make in (bpe_files(), wpm_files(rng), ugm_files(rng), chars_files(rng)):
        for name, path in make:
            if ONLY in name and 'whitespace' in name: # two spaces in a row end llama.cpp here
                compare(name, path, [re.sub(r'\s+', ' ', t.decode(errors='ignore')).encode()
                                     for t in texts])
            elif ONLY in name:
                compare(name, path, texts)
    print('%d passed, %d failed, 0 skipped' % (passed, failed))
    return 1 if failed or not passed else 0


if __name__ == '__main__':
    sys.exit(main() if len(sys.argv) < 2 else
             json_files(sys.argv[1]) if len(sys.argv) < 3 else bench_files(*sys.argv[1:]))

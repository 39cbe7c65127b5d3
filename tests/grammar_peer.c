/* grammar_peer.c - our masks beside llama.cpp's, by its library, which is opened at run time:
 * random texts under grammars, a token at a time, and before each of them which tokens may come.
 * Compared are tokens that say whole characters, and ends. The peer takes control tokens for their
 * names, and with bytes that are a part of a character, which it reads as a range, it is not exact.
 * Run by grammar_peer.sh.
 *
 *     PEER=folder of libllama ./grammar_peer VOCABULARY.gguf FILE.gbnf... */
#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

#include "../bench/peer.h"

static const void *vocab; /* the peer's */
static int passed, failed;

static uint64_t state = 1;
static int below(int n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (int)((state >> 33) % (uint64_t)n);
}

/* Whether a token says whole characters, none of them zero. */
static int whole(const char *text, size_t n) {
    uint32_t code;
    size_t at;
    int length = 1;
    for (at = 0; at < n && length > 0; at += (size_t)length) {
        length = sm__utf8_read((const unsigned char *)text + at, n - at, &code);
        if (!code) return 0;
    }
    return at == n && length > 0;
}

/* One random text. */
static void one_text(const sm_trie *t, sm_matcher *m, const sm_grammar *g, const char *name,
                    const char *text, peer_token *data, const float *zeros, uint32_t *mask) {
    void *theirs = peer.grammar(vocab, text, "root");
    int turn, i, pick, seen;
    if (!theirs || sm_matcher_start(m, g) != SM_OK) {
        printf("%s: not read, or too large\n", name);
        failed++;
        return;
    }
    for (turn = 0; turn < 30; turn++) {
        peer_tokens a = peer_candidates(data, zeros, t->n_vocab);
        int differ = 0;
        peer.apply(theirs, &a);
        if (sm_matcher_mask(m, mask) != SM_OK) differ++;
        for (i = 0, pick = -1, seen = 0; i < t->n_vocab; i++) {
            size_t bytes;
            int ours = (int)(mask[i >> 5] >> (i & 31) & 1), their = data[i].logit == 0.0f;
            const char *s = sm__token_says(t->model, i, &bytes);
            if (s ? !whole(s, bytes) : !sm_token_is_end(t->model, i)) continue;
            if (ours != their && differ++ < 3)
                printf("%s: token %d \"%.*s\" at %d: %d, by the peer %d\n", name, i, (int)bytes,
                       s ? s : "", turn, ours, their);
            if (ours && their && s && below(++seen) == 0) pick = i;
        }
        if (differ) failed++;
        else passed++;
        if (pick < 0) break;
        peer.accept(theirs, pick);
        if (sm_matcher_accept(m, pick) != SM_OK) failed++;
    }
    peer.free(theirs);
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_model *model;
    sm_trie *trie;
    sm_error error;
    size_t room = (size_t)16 << 20;
    sm_matcher *matcher;
    peer_token *data;
    float *zeros;
    uint32_t *mask;
    int i, k;
    if (argc < 3) return fprintf(stderr, "usage: PEER=folder grammar_peer V G...\n"), 2;
    mp.file.path = argv[1];
    mp.vocab_only = 1;
    if (sm_model_open(&mp, &model, &error) || sm_trie_create(model, NULL, &trie, &error))
        return fprintf(stderr, "%s\n", error.text), 2;
    snprintf(error.text, sizeof error.text, "its library does not open the file");
    if (!peer_open(error.text, sizeof error.text) || !(vocab = peer_vocab(argv[1])))
        return fprintf(stderr, "llama.cpp, for %s: %s\n", argv[1], error.text), 2;
    data = (peer_token *)malloc((size_t)trie->n_vocab * sizeof *data);
    zeros = (float *)calloc((size_t)trie->n_vocab, sizeof *zeros);
    mask = (uint32_t *)malloc((size_t)trie->n_words * sizeof *mask);
    matcher = sm_matcher_init(malloc(room), room, trie);
    for (i = 2; i < argc; i++) {
        static char text[1 << 16];
        FILE *f = fopen(argv[i], "rb");
        sm_grammar_params p = sm_grammar_default();
        sm_grammar *g = NULL;
        if (!f) return fprintf(stderr, "cannot read %s\n", argv[i]), 2;
        text[fread(text, 1, sizeof text - 1, f)] = 0;
        fclose(f);
        p.text = text;
        p.model = model;
        if (sm_grammar_create(&p, &g, &error)) {
            printf("%s: %s\n", argv[i], error.text);
            failed++;
            continue;
        }
        for (k = 0; k < 2; k++) one_text(trie, matcher, g, argv[i], text, data, zeros, mask);
        sm_grammar_destroy(g);
    }
    printf("%d passed, %d failed, 0 skipped\n", passed, failed);
    return failed > 0;
}

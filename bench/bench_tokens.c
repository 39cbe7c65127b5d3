/* bench_tokens.c - text to ids, in MB a second on one thread: ours, and llama.cpp's beside it when
 * PEER names the folder of its libraries, on the same vocabulary, alternating, the best of several.
 *
 *     cc -O2 bench/bench_tokens.c -o bench_tokens -lpthread -ldl
 *     PEER=folder ./bench_tokens -m vocabulary.gguf -f text.txt
 *
 * A tokenizer that has seen no text before is made for each run: what it remembers of words, it
 * learns while the clock runs. See bench/tokens_peer.sh for tiktoken. */
static const char usage[] = "usage: bench_tokens -m FILE -f TEXT [options]\n"
                            "  -m FILE     GGUF, tokenizer.json or .tiktoken\n"
                            "  -p PRE      how text is cut into words, for .tiktoken\n"
                            "  -r N        runs (7)\n";
#include "bench.h"
#include "peer.h"

static char *text_read(const char *name, size_t *n) {
    FILE *file = fopen(name, "rb");
    char *text = (char *)bench_alloc(64u << 20);
    if (!file) arg_fail("%s cannot be opened", name);
    *n = fread(text, 1, 64u << 20, file);
    fclose(file);
    return text;
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

int main(int argc, char **argv) {
    const char *model = NULL, *name = NULL;
    const void *vocab = NULL;
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_error error;
    double ours = 1e30, theirs = 1e30;
    int i, runs = 7, n_ids = 0, n_peer = 0, n_same = 0;
    int32_t *ids, *peers;
    char *text;
    char why[512];
    size_t n;
    for (i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-m")) model = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-f")) name = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-p")) mp.pre = arg_text(argc, argv, &i);
        else if (!strcmp(argv[i], "-r")) runs = arg_int(argc, argv, &i, 1, 1000);
        else arg_fail("what is \"%s\"?", argv[i]);
    }
    if (!model || !name) arg_fail("which vocabulary, and which text?");
    if (strstr(model, ".gguf")) mp.file.path = model;
    else mp.tokenizer.path = model;
    mp.vocab_only = 1;
    if (sm_model_open(&mp, &m, &error)) arg_fail("%s", error.text);
    if (getenv("PEER") && mp.file.path) {
        if (!peer_open(why, sizeof why)) arg_fail("%s", why);
        vocab = peer_vocab(model);
        if (!vocab) arg_fail("llama.cpp does not open %s", model);
    }
    text = text_read(name, &n);
    ids = (int32_t *)bench_alloc((3 * n + 3) * sizeof *ids);
    peers = (int32_t *)bench_alloc((3 * n + 3) * sizeof *peers);
    for (i = 0; i < runs; i++) {
        sm_tokenizer *t = NULL;
        double t0;
        if (sm_tokenizer_create(m, n, NULL, &t, &error)) arg_fail("%s", error.text);
        t0 = bench_now();
        if (sm_tokenize(t, text, n, 0, ids, (int)(3 * n + 3), &n_ids)) arg_fail("no room");
        ours = bench_now() - t0 < ours ? bench_now() - t0 : ours;
        sm_tokenizer_destroy(t);
        if (!vocab) continue;
        t0 = bench_now();
        n_peer = peer.tokenize(vocab, text, (int32_t)n, peers, (int32_t)(3 * n + 3), 0, 0);
        theirs = bench_now() - t0 < theirs ? bench_now() - t0 : theirs;
    }
    while (n_same < n_ids && n_same < n_peer && ids[n_same] == peers[n_same]) n_same++;
    say(stdout, "%-28s %-22s %8d ids  ours %7.2f MB/s", base_name(model), base_name(name), n_ids,
        1e-6 * (double)n / ours);
    if (vocab)
        say(stdout, "  llama.cpp %6.2f  ratio %5.1f  ids %s", 1e-6 * (double)n / theirs,
            theirs / ours, n_same == n_ids && n_ids == n_peer ? "equal" : "DIFFER");
    say(stdout, "\n");
    sm_model_close(m);
    return 0;
}

/* generate.c - text from a prompt, as the model would go on.
 *
 *     cc -O2 examples/generate.c -o generate -lpthread
 *     ./generate -m stories260K.gguf -p "Once upon a time"
 *
 * The generated text (with --ids: the ids; with --logprobs N: a line for each, with its logarithm
 * of the probability and the N most likely) alone goes to stdout, timings go to stderr. Without -p
 * the prompt is the model's begin-of-text id alone. */
static const char usage[] =
    "usage: generate -m MODEL [options]\n"
    "  -m FILE        the model: .gguf, llama2.c .bin, .safetensors\n"
    "  -z FILE        tokenizer.bin or tokenizer.json (a .gguf has its own)\n"
    "  -p TEXT        prompt                       -n N         new tokens (256; 0 = no limit)\n"
    "  --threads T    0 = all processors (0)       --lora F[:S] a LoRA adapter [times S]\n"
    "  --ctx N        tokens of the context        --shift K    a full one keeps the first K\n"
    "                 (0 = enough)                              tokens, and the newer half\n"
    "  --isa LEVEL    scalar sse41 avx2 avx512 amx neon\n"
    "  --ids          print token ids\n";
#define COMMON_SAMPLING
#include "common.h"

typedef struct options {
    const char *model, *tokenizer, *prompt, *lora;
    int max_tokens, threads, isa, ids, n_ctx;
} options;

static options parse(int argc, char **argv, sampling *s) {
    options o;
    int i;
    memset(&o, 0, sizeof o);
    o.prompt = "";
    o.max_tokens = 256;
    s->gen->sampler.seed = 1;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) o.model = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-z")) o.tokenizer = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-p")) o.prompt = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-n")) o.max_tokens = arg_int(argc, argv, &i, 0, 1 << 30);
        else if (!strcmp(a, "--threads")) o.threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--isa")) o.isa = arg_isa(argc, argv, &i);
        else if (!strcmp(a, "--lora")) o.lora = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--ids")) o.ids = 1;
        else if (!strcmp(a, "--ctx")) o.n_ctx = arg_int(argc, argv, &i, 0, 1 << 20);
        else if (!strcmp(a, "--shift"))
            s->gen->shift = 1, s->gen->n_keep = arg_int(argc, argv, &i, 0, 1 << 20);
        else if (!arg_sampling(argc, argv, &i, s)) arg_fail("what is \"%s\"?", a);
    }
    if (!o.model) arg_fail("-m MODEL is missing");
    return o;
}

/* A line: each id and its logarithm of the probability, the chosen one first. */
static void print_logprobs(const sm_gen *gen) {
    int i, n;
    const sm_logprob *list = sm_gen_logprobs(gen, &n);
    for (i = 0; i < n; i++)
        say(stdout, "%s%d %.4f", i ? "  " : "", (int)list[i].id, (double)list[i].logprob);
    if (n) say(stdout, "\n");
}

/* Step by step instead of sm_generate, because --ids wants the ids. */
static sm_status run(sm_ctx *ctx, const sm_gen_params *params, int ids, sm_gen_stats *stats) {
    sm_gen *gen;
    sm_status status = sm_gen_start(ctx, params, &gen);
    int n = 0;
    if (status) return status;
    do {
        size_t bytes = 0;
        const char *piece;
        status = sm_gen_step(gen, -1);
        if (status < 0) break;
        piece = sm_gen_piece(gen, &bytes);
        if (params->n_logprobs) print_logprobs(gen);
        else if (ids && sm_gen_token(gen) >= 0)
            say(stdout, n++ ? " %d" : "%d", (int)sm_gen_token(gen));
        else if (!ids) fwrite(piece, 1, bytes, stdout);
        fflush(stdout);
    } while (status == SM_PENDING);
    *stats = sm_gen_get_stats(gen);
    return status;
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_gen_params gp = sm_gen_default();
    sampling s;
    options o;
    sm_gen_stats stats;
    sm_model *model = NULL;
    sm_adapter *lora = NULL;
    sm_ctx *ctx = NULL;
    sm_error error;
    sm_status status;
    float share = 1.0f;
    memset(&s, 0, sizeof s);
    s.gen = &gp;
    o = parse(argc, argv, &s);
    mp.file.path = o.model, mp.tokenizer.path = o.tokenizer;
    cp.n_threads = o.threads, cp.isa = o.isa, cp.amx = 1, cp.n_ctx = o.n_ctx;
    if (sm_model_open(&mp, &model, &error) ||
        (o.lora && open_lora(model, o.lora, &lora, &share, &cp, &error)) ||
        open_grammar(model, &s, &cp, &error) ||
        open_ctx(model, cp, o.prompt, o.max_tokens, &ctx, &error)) {
        say(stderr, "generate: %s\n", error.text);
        close_grammar(&s);
        sm_adapter_close(lora);
        sm_model_close(model);
        return 1;
    }
    gp.prompt = o.prompt;
    gp.max_tokens = o.max_tokens;
    /* llama2.c's models end a story with the begin-of-text id. */
    gp.stop_ids = &sm_model_get_info(model)->bos;
    gp.n_stop_ids = *gp.stop_ids >= 0;
    memset(&stats, 0, sizeof stats);
    status = sm_ctx_set_adapter(ctx, lora, share);
    if (!status) status = run(ctx, &gp, o.ids, &stats);
    say(stdout, "\n");
    if (status < 0) {
        say(stderr, "generate: %s\n", sm_ctx_error(ctx));
    } else {
        double prompt_s = (double)stats.prompt_ns * 1e-9, decode_s = (double)stats.decode_ns * 1e-9;
        say(stderr, "prompt %d tokens in %.1f ms (%.0f/s), first token after %.1f ms, ",
            stats.prompt_tokens, prompt_s * 1e3, stats.prompt_tokens / (prompt_s + 1e-9),
            (double)stats.first_token_ns * 1e-6);
        say(stderr, "%d tokens at %.1f/s [%s]\n", stats.new_tokens,
            (stats.new_tokens - 1) / (decode_s + 1e-9), sm_ctx_get_stats(ctx).isa);
        if (gp.grammar && !stats.complete) say(stderr, "the text is not complete\n");
    }
    sm_ctx_destroy(ctx);
    close_grammar(&s);
    sm_adapter_close(lora);
    sm_model_close(model);
    return status < 0;
}

/* chat.c - a conversation: every turn is appended to what the sequence already holds, so only the
 * new words are evaluated.
 *
 *     cc -O2 examples/chat.c -o chat -lpthread
 *     ./chat -m model.gguf -s "You are a helpful assistant."
 *
 * Models that know <|im_start|> (ChatML: qwen, smollm) get it, others "User:/Assistant:" lines.
 * /new forgets the conversation, /quit (or end of input) leaves. */
static const char usage[] =
    "usage: chat -m MODEL [options]\n"
    "  -m FILE        the model                  -z FILE      tokenizer.bin or .json\n"
    "  -s TEXT        system message             -n N         tokens of an answer (512)\n"
    "  --threads T    0 = all processors (0); --temp is 0.7 and --top-p 0.9 unless given\n";
#define COMMON_SAMPLING
#include "common.h"

#define MAX_LINE 4096

typedef struct chat {
    sm_ctx *ctx;
    int chatml;         /* 1: ChatML, 0: User:/Assistant: */
    const char *system; /* or NULL */
    sm_gen_params gen;
} chat;

static int show(void *user, const char *piece, size_t bytes) {
    fwrite(piece, 1, bytes, (FILE *)user);
    return fflush((FILE *)user); /* a reader that went away stops the answer */
}

/* Whether the vocabulary has ChatML's begin mark as one id. */
static int knows_chatml(sm_ctx *ctx) {
    int n = 0;
    sm_tokenize(sm_ctx_tokenizer(ctx), "<|im_start|>", 12, SM_TEXT_SPECIAL, NULL, 0, &n);
    return n == 1;
}

/* The prompt of one turn. The end mark of the answer before is written here, because a generation
 * ends when the model chose it, before it was evaluated. */
static void turn(const chat *c, char *line, char *out, size_t max) {
    int first = sm_seq_length(c->ctx, c->gen.seq) == 0;
    const char *system = first && c->system ? c->system : "";
    char *mark = line;
    while ((mark = strstr(mark, "<|")) != NULL) mark[1] = ' '; /* only we write special tokens */
    if (c->chatml)
        format(out, max, "%s%s%s%s<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n",
               first ? "" : "<|im_end|>\n", *system ? "<|im_start|>system\n" : "", system,
               *system ? "<|im_end|>\n" : "", line);
    else
        format(out, max, "%s%s%sUser: %s\nAssistant:", first ? "" : "\n", system,
               *system ? "\n" : "", line);
}

static int loop(chat *c) {
    static const char *const stops[] = {"\nUser:"}; /* a plain model would play both parts */
    char line[MAX_LINE], prompt[2 * MAX_LINE + 256];
    sm_gen_stats stats;
    sm_status status;
    c->gen.append = 1;
    c->gen.prompt = prompt;
    if (!c->chatml && !c->gen.n_stops) c->gen.stops = stops, c->gen.n_stops = 1;
    for (;;) {
        say(stderr, "> ");
        if (!fgets(line, sizeof line, stdin)) return 0;
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "/quit")) return 0;
        if (!strcmp(line, "/new")) sm_seq_release(c->ctx, c->gen.seq);
        if (!line[0] || !strcmp(line, "/new")) continue;
        turn(c, line, prompt, sizeof prompt);
        c->gen.text_flags = SM_TEXT_SPECIAL;
        if (sm_seq_length(c->ctx, c->gen.seq) == 0) c->gen.text_flags |= SM_TEXT_BOS;
        status = sm_generate(c->ctx, &c->gen, show, stdout, &stats);
        say(stdout, "\n");
        if (status == SM_ERR_FULL || (status == SM_OK && stats.finish == SM_FINISH_FULL))
            say(stderr, "(the context is full: /new starts again)\n");
        else if (status < 0) return say(stderr, "chat: %s\n", sm_ctx_error(c->ctx)), 1;
    }
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    sm_error error;
    sampling s;
    chat c;
    int i, result = 1;
    memset(&s, 0, sizeof s);
    memset(&c, 0, sizeof c);
    s.gen = &c.gen;
    cp.amx = 1;
    c.gen = sm_gen_default();
    c.gen.max_tokens = 512;
    c.gen.sampler.temperature = 0.7f;
    c.gen.sampler.top_p = 0.9f;
    c.gen.sampler.seed = 1;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) mp.file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-z")) mp.tokenizer.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-s")) c.system = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-n")) c.gen.max_tokens = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--threads")) cp.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!arg_sampling(argc, argv, &i, &s)) arg_fail("what is \"%s\"?", a);
    }
    if (!mp.file.path) arg_fail("-m MODEL is missing");
    if (c.system && strlen(c.system) >= MAX_LINE) arg_fail("-s: at most %d bytes", MAX_LINE - 1);
    if (sm_model_open(&mp, &model, &error) || sm_ctx_create(model, &cp, &c.ctx, &error)) {
        say(stderr, "chat: %s\n", error.text);
    } else if (!sm_ctx_tokenizer(c.ctx)) {
        say(stderr, "chat: %s has no vocabulary (-z tokenizer.json)\n", mp.file.path);
    } else {
        c.chatml = knows_chatml(c.ctx);
        result = loop(&c);
    }
    sm_ctx_destroy(c.ctx);
    sm_model_close(model);
    return result;
}

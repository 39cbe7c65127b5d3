/* chat.c - a conversation with a model: its own chat template, a history that can be saved, undone
 * and changed, and only what is new evaluated at every turn.
 *
 *     cc -O2 examples/chat.c -o chat -lpthread
 *     ./chat -m model.gguf -s "You are a helpful assistant."
 *
 * The answer goes to stdout, all else to stderr. Ctrl-C ends an answer, twice the program. */
static const char usage[] =
    "usage: chat -m MODEL [options]\n"
    "  -m FILE        the model                  -z FILE      tokenizer.bin or .json\n"
    "  -s TEXT        system message             -n N         tokens of an answer (512; 0 = all)\n"
    "  --template T   a file of Jinja, or a name: the model's, chatml, llama3 ... plain\n"
    "  --ctx N        tokens that are remembered --overflow P drop (old turns), shift, error\n"
    "  --load FILE    a saved conversation       --threads T  0 = all processors (0)\n"
    "--temp is 0.7 and --top-p 0.9 unless given\n";
#define COMMON_SAMPLING
#include "common.h"
#include <signal.h>
#include <time.h>

#define MAX_LINE 16384

static const char commands[] =
    "/help /system TEXT /retry /undo /clear /save FILE /load FILE /quit\n";

static volatile sig_atomic_t stopped; /* by Ctrl-C */

static void on_signal(int number) {
    if (stopped++) signal(number, SIG_DFL);
}

/* "reading 512 of 2000" while a long prompt is evaluated. */
static void progress(const sm_chat *chat, int *shown) {
    sm_chat_stats s = sm_chat_get_stats(chat);
    if (!isatty(2)) return;
    if (s.n_read < s.n_ids) say(stderr, "\rreading %d of %d ", s.n_read, s.n_ids), *shown = 1;
    else if (*shown) say(stderr, "\r%28s\r", ""), *shown = 0;
}

/* One answer, streamed. */
static void answer(sm_ctx *ctx, sm_chat *chat, const sm_gen_params *gen) {
    sm_status status = sm_chat_start(chat, gen);
    sm_gen_stats stats;
    size_t bytes;
    int shown = 0;
    stopped = 0;
    while (!status || status == SM_PENDING) {
        const char *piece;
        status = sm_chat_step(chat, 50000);
        if (status == SM_PENDING && stopped) sm_chat_stop(chat), status = SM_OK;
        progress(chat, &shown);
        piece = sm_gen_piece(sm_chat_gen(chat), &bytes);
        fwrite(piece, 1, bytes, stdout);
        fflush(stdout);
        if (status != SM_PENDING) break;
    }
    say(stdout, "\n");
    fflush(stdout);
    if (status < 0) {
        say(stderr, "(%s)\n", sm_ctx_error(ctx));
        return;
    }
    stats = sm_gen_get_stats(sm_chat_gen(chat));
    if (stats.finish == SM_FINISH_FULL) say(stderr, "(the context is full)\n");
    if (stats.finish == SM_FINISH_LENGTH) say(stderr, "(cut: -n)\n");
    if (stats.finish == SM_FINISH_CANCELLED) say(stderr, "(stopped)\n");
}

static void say_to(sm_ctx *ctx, sm_chat *chat, const char *role, const char *text) {
    sm_message m = {NULL, NULL, NULL};
    m.role = role;
    m.content = text;
    if (sm_chat_add(chat, &m)) say(stderr, "(%s)\n", sm_ctx_error(ctx));
}

static void save(sm_chat *chat, const char *path) {
    size_t bytes = 0;
    char *json;
    FILE *file;
    sm_chat_save(chat, NULL, 0, &bytes);
    json = (char *)malloc(bytes + 1);
    file = json && !sm_chat_save(chat, json, bytes + 1, &bytes) ? fopen(path, "wb") : NULL;
    if (!file || fwrite(json, 1, bytes, file) != bytes) say(stderr, "(cannot write %s)\n", path);
    else say(stderr, "(%d messages in %s)\n", sm_chat_count(chat), path);
    if (file) fclose(file);
    free(json);
}

static int load(sm_ctx *ctx, sm_chat *chat, const char *path) {
    size_t bytes;
    char *json = read_file(path, &bytes);
    int bad = !json || sm_chat_load(chat, json, bytes), i;
    if (bad) say(stderr, "(%s: %s)\n", path, json ? sm_ctx_error(ctx) : "cannot be read");
    free(json);
    for (i = 0; !bad && i < sm_chat_count(chat); i++) {
        const sm_message *m = sm_chat_message(chat, i);
        say(stderr, "%s: ", m->role ? m->role : "?");
        if (m->content) fwrite(m->content, 1, strlen(m->content), stderr);
        say(stderr, "\n");
    }
    return bad;
}

/* Back to behind the last message of a role; 0 = there is none. */
static int back_to(sm_chat *chat, const char *role) {
    int n = sm_chat_count(chat);
    while (n > 0) {
        const sm_message *m = sm_chat_message(chat, n - 1);
        if (m->role && !strcmp(m->role, role)) break;
        n--;
    }
    if (n) sm_chat_keep(chat, n);
    return n;
}

/* A line that begins with a slash; 1 = an answer is wanted. */
static int command(sm_ctx *ctx, sm_chat *chat, char *line) {
    char *rest = line + strcspn(line, " ");
    if (*rest) *rest++ = 0;
    if (!strcmp(line, "/retry")) return back_to(chat, "user");
    if (!strcmp(line, "/undo")) {
        int n = back_to(chat, "user");
        if (n) sm_chat_keep(chat, n - 1);
    } else if (!strcmp(line, "/clear")) {
        int n = back_to(chat, "system");
        sm_chat_keep(chat, n);
    } else if (!strcmp(line, "/system")) {
        sm_chat_keep(chat, 0);
        if (*rest) say_to(ctx, chat, "system", rest);
    } else if (!strcmp(line, "/save") && *rest) {
        save(chat, rest);
    } else if (!strcmp(line, "/load") && *rest) {
        load(ctx, chat, rest);
    } else {
        say(stderr, commands);
    }
    return 0;
}

static void loop(sm_ctx *ctx, sm_chat *chat, const sm_gen_params *gen) {
    static char line[MAX_LINE];
    for (;;) {
        int wanted = 1;
        if (isatty(0)) say(stderr, "> ");
        if (!fgets(line, sizeof line, stdin)) return;
        line[strcspn(line, "\r\n")] = 0;
        if (!strcmp(line, "/quit")) return;
        if (!line[0]) continue;
        if (line[0] == '/') wanted = command(ctx, chat, line);
        else say_to(ctx, chat, "user", line);
        if (wanted) answer(ctx, chat, gen);
    }
}

/* The template that was asked for, the model's own, or one that the vocabulary suggests. */
static void choose_template(sm_template_params *t, const sm_model *model, const char *asked) {
    size_t bytes;
    char text[8];
    if (asked && !(t->source = read_file(asked, &bytes))) t->name = asked;
    if (asked || sm_model_meta(model, "tokenizer.chat_template", text, sizeof text)) return;
    t->name = "plain";
    say(stderr, "(the model has no chat template: lines of User: and Assistant:)\n");
}

typedef struct options {
    const char *tmpl, *system, *load;
    sm_model_params model;
    sm_ctx_params ctx;
    sm_chat_params chat;
} options;

static void parse(int argc, char **argv, options *o, sampling *s) {
    int i;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) o->model.file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-z")) o->model.tokenizer.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-s")) o->system = arg_text(argc, argv, &i);
        else if (!strcmp(a, "-n")) s->gen->max_tokens = arg_int(argc, argv, &i, 0, 1 << 30);
        else if (!strcmp(a, "--template")) o->tmpl = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--load")) o->load = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--ctx")) o->ctx.n_ctx = arg_int(argc, argv, &i, 8, 1 << 24);
        else if (!strcmp(a, "--threads")) o->ctx.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (!strcmp(a, "--overflow")) {
            const char *how = arg_text(argc, argv, &i);
            if (!strcmp(how, "drop")) o->chat.overflow = SM_OVERFLOW_DROP;
            else if (!strcmp(how, "shift")) o->chat.overflow = SM_OVERFLOW_SHIFT;
            else if (!strcmp(how, "error")) o->chat.overflow = SM_OVERFLOW_ERROR;
            else arg_fail("--overflow drop, shift or error");
        } else if (!arg_sampling(argc, argv, &i, s)) arg_fail("what is \"%s\"?", a);
    }
    if (!o->model.file.path) arg_fail("-m MODEL is missing");
}

int main(int argc, char **argv) {
    sm_gen_params gen = sm_gen_default();
    sampling s;
    options o;
    sm_model *model = NULL;
    sm_ctx *ctx = NULL;
    sm_chat *chat = NULL;
    sm_error error;
    int bad;
    memset(&s, 0, sizeof s);
    memset(&o, 0, sizeof o);
    s.gen = &gen;
    gen.max_tokens = 512;
    gen.sampler.temperature = 0.7f;
    gen.sampler.top_p = 0.9f;
    gen.sampler.seed = 1;
    o.model = sm_model_default();
    o.ctx = sm_ctx_default();
    o.ctx.amx = 1;
    o.chat = sm_chat_default();
    o.chat.overflow = SM_OVERFLOW_DROP;
    o.chat.now = (int64_t)time(NULL);
    parse(argc, argv, &o, &s);
    bad = sm_model_open(&o.model, &model, &error) || open_grammar(model, &s, &o.ctx, &error) ||
          sm_ctx_create(model, &o.ctx, &ctx, &error);
    if (!bad) {
        choose_template(&o.chat.tmpl, model, o.tmpl);
        if (o.chat.tmpl.name && !strcmp(o.chat.tmpl.name, "plain") && !gen.n_stops)
            gen.stops = (s.stops[0] = "\nUser:", s.stops), gen.n_stops = 1;
        bad = sm_chat_create(ctx, &o.chat, &chat, &error);
    }
    if (bad) {
        say(stderr, "chat: %s\n", error.text);
    } else {
        if (o.system) say_to(ctx, chat, "system", o.system);
        if (o.load) bad = load(ctx, chat, o.load);
        signal(SIGINT, on_signal);
        if (!bad) loop(ctx, chat, &gen);
    }
    sm_chat_destroy(chat);
    free((void *)(uintptr_t)o.chat.tmpl.source);
    sm_ctx_destroy(ctx);
    close_grammar(&s);
    sm_model_close(model);
    return bad != 0;
}

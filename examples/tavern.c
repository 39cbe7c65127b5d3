/* tavern.c - a tavern whose guests are played by a small model: what a game does with one.
 *
 *     cc -O2 examples/tavern.c -o tavern -lpthread
 *     ./tavern -m examples/tavern.gguf --talk
 *
 * Reads scenes as tavern_corpus writes them and plays them anew: the facts are shown to the model,
 * then every line of the player, and the others' lines are the model's. Without a file it plays a
 * scene of its own. --talk: afterwards (without a file: at once) you are the player, line by line;
 * an empty line leaves. */
static const char usage[] =
    "usage: tavern -m MODEL [SCENES.txt] [options]\n"
    "  --talk      you are the player           --temp T      temperature, 0 = greedy (0.3)\n"
    "  --seed S    of the random numbers (1)    --threads T   0 = all processors (0)\n"
    "  --scenes N  play the first N only\n";
#include "common.h"

#define MAX_TEXT 4096

static const char own_scene[] = "Scene: The Copper Kettle, evening, rain.\n"
                                "Mira: innkeeper, grumpy. Sells ale 3, stew 5.\n"
                                "Tobin: miller, sad.\n"
                                "Rumour: Hugo the smith saw a white stag by the old mill last "
                                "night.\n"
                                "Purse: 12.\n";
static const char own_lines[] = "Player: Good evening.\n"
                                "Player: What do you sell?\n"
                                "Player: How much is the stew?\n"
                                "Player: I will take the stew.\n"
                                "Player: What is new around here?\n"
                                "Player: Tobin, why are you so sad?\n"
                                "Player: Farewell.\n";

enum { FACTS, FIRST, TALK, OVER }; /* FIRST: nobody has spoken yet */

typedef struct tavern {
    sm_ctx *ctx;
    sm_gen_params gen;
    char facts[MAX_TEXT];
    size_t n_facts;
    int state;
} tavern;

static int show(void *user, const char *piece, size_t bytes) {
    fwrite(piece, 1, bytes, (FILE *)user);
    return fflush((FILE *)user);
}

/* The player says something, and the model goes on until it is the player's turn again, or until it
 * ends the scene. It always has read "Player:" before: as the end of the facts, or as what it wrote
 * itself when it was stopped. */
static int turn(tavern *t, const char *text) {
    static const char *const stops[] = {"\nPlayer:"};
    char prompt[2 * MAX_TEXT + 16];
    sm_gen_stats stats;
    sm_status status;
    if (t->state == OVER) return 0;
    format(prompt, sizeof prompt, "%s %s\n", t->state == TALK ? "" : t->facts, text);
    t->gen.prompt = prompt;
    t->gen.append = t->state == TALK;
    t->gen.stops = stops;
    t->gen.n_stops = 1;
    status = sm_generate(t->ctx, &t->gen, show, stdout, &stats);
    if (status < 0 || stats.finish != SM_FINISH_END) say(stdout, "\n"); /* a scene ends with one */
    if (status < 0) return say(stderr, "tavern: %s\n", sm_ctx_error(t->ctx)), 1;
    t->state = stats.finish == SM_FINISH_STOP ? TALK : OVER;
    return 0;
}

static void open_scene(tavern *t) {
    if (t->state != FACTS) return;
    format(t->facts + t->n_facts, sizeof t->facts - t->n_facts, "Player:");
    t->state = FIRST;
}

/* The facts are what comes before the player's first line. */
static int play(tavern *t, const char *text, int n_scenes) {
    for (; *text; text += *text == '\n') {
        size_t n = strcspn(text, "\n");
        char line[MAX_TEXT];
        int player = !strncmp(text, "Player: ", 8);
        format(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), text);
        text += n;
        if (!strncmp(line, "Scene: ", 7)) {
            if (t->state != FACTS) say(stdout, "\n");
            if (n_scenes-- == 0) return 0;
            t->state = FACTS;
            t->n_facts = 0;
        }
        if (player) open_scene(t);
        if (t->state == FACTS && t->n_facts + n + 16 < sizeof t->facts) {
            format(t->facts + t->n_facts, sizeof t->facts - t->n_facts, "%s\n", line);
            t->n_facts += n + 1;
            say(stdout, "%s\n", line);
        }
        if (player && t->state != OVER) say(stdout, "%s\n", line);
        if (player && turn(t, line + 8)) return 1;
    }
    return 0;
}

static int talk(tavern *t) {
    char line[MAX_TEXT];
    while (t->state != OVER) {
        say(stdout, "Player: ");
        fflush(stdout);
        if (!fgets(line, sizeof line, stdin)) break;
        line[strcspn(line, "\r\n")] = 0;
        if (!*line) break;
        if (turn(t, line)) return 1;
    }
    return 0;
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_ctx_params cp = sm_ctx_default();
    sm_model *model = NULL;
    const char *path = NULL;
    char *text = NULL;
    size_t bytes;
    sm_error error;
    static tavern t;
    int i, talking = 0, scenes = -1, result = 1;
    t.gen = sm_gen_default();
    t.gen.max_tokens = 150;
    t.gen.sampler.temperature = 0.3f;
    t.gen.sampler.seed = 1;
    for (i = 1; i < argc; i++) {
        const char *a = argv[i];
        if (!strcmp(a, "-m")) mp.file.path = arg_text(argc, argv, &i);
        else if (!strcmp(a, "--talk")) talking = 1;
        else if (!strcmp(a, "--temp")) t.gen.sampler.temperature = arg_float(argc, argv, &i, 0, 9);
        else if (!strcmp(a, "--seed")) t.gen.sampler.seed = arg_seed(argc, argv, &i);
        else if (!strcmp(a, "--scenes")) scenes = arg_int(argc, argv, &i, 1, 1 << 30);
        else if (!strcmp(a, "--threads")) cp.n_threads = arg_int(argc, argv, &i, 0, 256);
        else if (*a == '-' || path) arg_fail("what is \"%s\"?", a);
        else path = a;
    }
    if (!mp.file.path) arg_fail("-m MODEL is missing");
    if (path && !(text = read_file(path, &bytes)))
        return say(stderr, "tavern: no file %s\n", path), 1;
    cp.n_ctx = 2048;
    if (sm_model_open(&mp, &model, &error) || sm_ctx_create(model, &cp, &t.ctx, &error)) {
        say(stderr, "tavern: %s\n", error.text);
    } else if (!sm_ctx_tokenizer(t.ctx)) {
        say(stderr, "tavern: %s has no vocabulary\n", mp.file.path);
    } else {
        result = play(&t, text ? text : own_scene, scenes);
        if (talking) open_scene(&t);
        if (!result && !text && !talking) result = play(&t, own_lines, scenes);
        if (!result && talking) result = talk(&t);
    }
    sm_ctx_destroy(t.ctx);
    sm_model_close(model);
    free(text);
    return result;
}

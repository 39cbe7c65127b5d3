/* ids.c - the ids of texts: ids VOCABULARY TEXTS [special|plain] [PRE]. VOCABULARY is a GGUF or
 * safetensors file, or a tokenizer.json or .tiktoken file (for which PRE says how words are cut).
 * The texts of the file end with a NUL byte, or the file is one text; a line of ids for each.
 * And back: ids VOCABULARY IDS shown|all; IDS has lines of ids, a text that ends with a byte 255
 * is written for each, without or with special tokens. For parity.py, tokens.py and hf_ids.mjs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

/* Lines of ids to texts. */
static int decode(const sm_model *m, const char *line, int flags, int32_t *ids, char *out,
                  size_t most) {
    int n = 0, more;
    size_t bytes;
    for (; *line; line += more) {
        int id = 0;
        more = 1;
        if (*line == '\n') {
            if (sm_detokenize(m, ids, n, flags, out, most, &bytes)) return 1;
            fwrite(out, 1, bytes, stdout);
            putchar(255);
            n = 0;
        } else if (sscanf(line, "%d%n", &id, &more) == 1) ids[n++] = id;
    }
    return 0;
}

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_tokenizer *t = NULL;
    sm_error error;
    FILE *file = argc >= 3 ? fopen(argv[2], "rb") : NULL;
    size_t most = 1 << 21, n = 0, at, end;
    char *text = (char *)malloc(most + 1);
    int32_t *ids = (int32_t *)malloc((3 * most + 3) * sizeof *ids);
    int n_ids, i, status = 1, flags = SM_TEXT_BOS;
    const char *name = argc >= 3 ? argv[1] : "";
    if (argc > 3 && !strcmp(argv[3], "special")) flags |= SM_TEXT_SPECIAL;
    if (argc > 4) mp.pre = argv[4];
    if (strstr(name, ".gguf") || strstr(name, ".safetensors")) mp.file.path = name;
    else mp.tokenizer.path = name;
    mp.vocab_only = 1;
    error.text[0] = 0;
    if (file && text && ids) n = fread(text, 1, most, file);
    if (!file || !text || !ids) fprintf(stderr, "usage: ids VOCABULARY TEXTS [special] [PRE]\n");
    else if (sm_model_open(&mp, &m, &error) || sm_tokenizer_create(m, most, NULL, &t, &error))
        fprintf(stderr, "ids: %s\n", error.text);
    else status = 0;
    if (!status && argc > 3 && (!strcmp(argv[3], "shown") || !strcmp(argv[3], "all"))) {
        char *out = (char *)malloc(1 << 20);
        text[n] = 0;
        status = !out || decode(m, text, argv[3][0] == 'a' ? SM_TEXT_RAW : 0, ids, out, 1 << 20);
        free(out);
        n = 0;
    }
    for (at = 0; !status && at < n; at = end + 1) {
        for (end = at; end < n && text[end]; end++) {
        }
        status = sm_tokenize(t, text + at, end - at, flags, ids, (int)(3 * most + 3), &n_ids);
        for (i = 0; !status && i < n_ids; i++) printf(i ? " %d" : "%d", (int)ids[i]);
        printf("\n");
    }
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    if (file) fclose(file);
    free(ids);
    free(text);
    return status;
}

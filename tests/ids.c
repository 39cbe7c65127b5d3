/* ids.c - the ids of texts: ids MODEL TEXTS [special]. The texts of the file end with a NUL byte,
 * or the file is one text; a line of ids for each. For parity.py, tokens.py and hf_ids.mjs. */
#include <stdio.h>
#include <stdlib.h>

#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_tokenizer *t = NULL;
    sm_error error;
    FILE *file = argc >= 3 ? fopen(argv[2], "rb") : NULL;
    size_t most = 1 << 21, n = 0, at, end;
    char *text = (char *)malloc(most + 1);
    int32_t *ids = (int32_t *)malloc((3 * most + 3) * sizeof *ids);
    int n_ids, i, status = 1;
    mp.file.path = argc >= 3 ? argv[1] : NULL;
    mp.vocab_only = 1;
    error.text[0] = 0;
    if (file && text && ids) n = fread(text, 1, most, file);
    if (!file || !text || !ids) fprintf(stderr, "usage: ids MODEL TEXTS [special]\n");
    else if (sm_model_open(&mp, &m, &error) || sm_tokenizer_create(m, most, NULL, &t, &error))
        fprintf(stderr, "ids: %s\n", error.text);
    else status = 0;
    for (at = 0; !status && at < n; at = end + 1) {
        for (end = at; end < n && text[end]; end++) {
        }
        status = sm_tokenize(t, text + at, end - at, SM_TEXT_BOS | (argc > 3 ? SM_TEXT_SPECIAL : 0),
                             ids, (int)(3 * most + 3), &n_ids);
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

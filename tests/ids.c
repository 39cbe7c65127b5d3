/* ids.c - the ids of a text, a line each, for parity.py: ids MODEL.gguf TEXT */
#include <stdio.h>
#include <stdlib.h>

#define SMALLMIND_IMPLEMENTATION
#include "../smallmind.h"

int main(int argc, char **argv) {
    sm_model_params mp = sm_model_default();
    sm_model *m = NULL;
    sm_tokenizer *t = NULL;
    sm_error error;
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    size_t most = 1 << 20, n = 0;
    char *text = (char *)malloc(most);
    int32_t *ids = (int32_t *)malloc((2 * most + 2) * sizeof *ids);
    int n_ids = 0, i, status = 1;
    mp.file.path = argc == 3 ? argv[1] : NULL;
    mp.vocab_only = 1;
    if (file && text && ids) n = fread(text, 1, most, file);
    if (!file || !text || !ids) fprintf(stderr, "usage: ids MODEL.gguf TEXT\n");
    else if (sm_model_open(&mp, &m, &error) || sm_tokenizer_create(m, most, NULL, &t, &error) ||
             sm_tokenize(t, text, n, SM_TEXT_BOS, ids, (int)(2 * most + 2), &n_ids))
        fprintf(stderr, "ids: %s\n", error.text);
    else status = 0;
    for (i = 0; i < n_ids; i++) printf("%d\n", (int)ids[i]);
    sm_tokenizer_destroy(t);
    sm_model_close(m);
    if (file) fclose(file);
    free(ids);
    free(text);
    return status;
}

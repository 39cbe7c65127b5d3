/* render.c - chat templates from a pipe, for tests/templates.py: records of six texts that end
 * with NUL each (template, messages, tools, documents, extra, seconds since 1970; empty: none)
 * are answered by two, the status as a number and the rendering or the error. A template that
 * begins with a colon is a name. */
#include <stdio.h>
#include <stdlib.h>

#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

enum { FIELDS = 6 };

/* The next record into buf; 0 at the end of the input. */
static int record(char **buf, size_t *room, const char **fields) {
    size_t n = 0, at[FIELDS];
    int i, c = 0;
    for (i = 0; i < FIELDS; i++) {
        at[i] = n;
        do {
            if (n == *room) *buf = (char *)realloc(*buf, *room = 2 * *room + 4096);
            if (!*buf || (c = getchar()) == EOF) return 0;
            (*buf)[n++] = (char)c;
        } while (c);
    }
    for (i = 0; i < FIELDS; i++) fields[i] = (*buf)[at[i]] ? *buf + at[i] : NULL;
    return 1;
}

int main(void) {
    char *buf = NULL;
    size_t room = 0, bytes = 0;
    const char *f[FIELDS], *text;
    while (record(&buf, &room, f)) {
        sm_template_params tp = sm_template_default();
        sm_render_params rp = sm_render_default();
        sm_template *t = NULL;
        sm_error error;
        sm_status status;
        tp.source = f[0] ? f[0] : "";
        if (f[0] && f[0][0] == ':') tp.source = NULL, tp.name = f[0] + 1;
        rp.messages_json = f[1];
        rp.tools_json = f[2];
        rp.documents_json = f[3];
        rp.extra_json = f[4];
        rp.now = f[5] ? atol(f[5]) : 0;
        status = sm_template_create(NULL, &tp, &t, &error);
        if (!status) status = sm_template_render(t, &rp, &text, &bytes, &error);
        printf("%d", (int)status);
        putchar(0);
        if (status) fputs(error.text, stdout);
        else fwrite(text, 1, bytes, stdout);
        putchar(0);
        fflush(stdout);
        sm_template_destroy(t);
    }
    free(buf);
    return 0;
}

/* decode - reads blocks of a type from stdin and writes their elements to stdout as f32, for
 * parity.py.     decode TYPE <blocks >floats     TYPE: GGUF's number of it */
#ifndef COMMON_LINKED /* the Makefile compiles the implementation once */
#define SMALLMIND_IMPLEMENTATION
#endif
#include "../smallmind.h"

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    int type = argc == 2 ? atoi(argv[1]) : SM_TYPE_AUTO;
    const sm_type_info *info = sm_type_get_info(type);
    uint8_t block[1 + 256]; /* from an odd address */
    float values[256];
    size_t bytes, elems, n;
    if (!info || info->block_bytes > 256 || info->block_elems > 256) {
        fputs("decode: no such type\n", stderr);
        return 2;
    }
    bytes = (size_t)info->block_bytes;
    elems = (size_t)info->block_elems;
    while ((n = fread(block + 1, 1, bytes, stdin)) == bytes)
        if (sm_type_decode(type, block + 1, values, elems) != SM_OK ||
            fwrite(values, sizeof *values, elems, stdout) != elems)
            return 1;
    return n == 0 && !ferror(stdin) && fflush(stdout) == 0 ? 0 : 1;
}

/* The typed loops of drivers/loops.h, for drivers that apply them to rows of their own. */
#ifndef INFOLD_MAP_H
#define INFOLD_MAP_H

#include "abi.h"

enum { INFOLD_LOOP_INPUTS = 3 };

typedef struct {
    const char *in[INFOLD_LOOP_INPUTS];
    int64_t step[INFOLD_LOOP_INPUTS]; /* bytes */
    char *out;
    int64_t out_step, n;
} infold_row;

typedef struct {
    const char *name;
    int64_t item[INFOLD_LOOP_INPUTS + 1]; /* bytes of an element of each input (0: no such input) and of the result */
    void (*run)(const infold_row *);
} infold_loop;

const infold_loop *infold_loop_at(int64_t index); /* NULL: there is none of this number */

#endif

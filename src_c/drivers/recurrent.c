/* RNN, LSTM and GRU behind the projection of their inputs: for each time step the product of the state with the recurrent weights,
 * by the matrix micro-kernel, then the gates, by the kernels of activations and maps. A thread takes sequences of the batch (and
 * directions) through all of time: they need nothing of one another. Where there are too few of them, threads share each
 * product. */
#include <math.h>
#include <string.h>

#include "drivers/check.h"
#include "drivers/fault.h"
#include "drivers/parallel.h"

enum { RNN, LSTM, GRU, GRU_LINEAR_BEFORE_RESET, KINDS };
enum { CHUNK = 64, GRAIN = 1000000 }; /* see conv.c and conv.h */
enum { STEP_GRAIN = 24000, WAIT = 16000 }; /* multiply-adds: worth a thread in one time step; done in the time that it takes to call it */
enum { MAX_GATES = 4, FUNCTIONS = 3, DIRECTIONS = 2 };
static const int64_t gates_of[KINDS] = {1, 4, 3, 3}; /* h; i o f c; z r h */

typedef struct {
    int64_t kind, steps, batch, directions, hidden;
    int64_t backward;                             /* whether the first direction is; a second one always is */
    int64_t in_step, in_batch;                    /* elements; the gates of all directions lie side by side */
    int64_t out_step, out_batch, out_direction;
    int64_t h_batch, h_direction;                 /* of h and cell */
    int64_t w_gate;                               /* elements from the panels of one gate to the next's, direction by direction */
    int64_t bias_direction;
    int64_t coupled;                              /* LSTM: the forget gate is 1 - i */
    int64_t act[FUNCTIONS * DIRECTIONS];          /* f, g, h of each direction */
    double a[FUNCTIONS * DIRECTIONS], b[FUNCTIONS * DIRECTIONS];
    double clip;                                  /* 0: none */
} recurrent_params;

/* IN: projected inputs, with the biases; BIAS: of h within the reset (linear before reset only); H and CELL: states, first the
 * initial, then the last ones; INDEX: steps of each sequence, all if absent; STAGE: gates + 1 vectors for each sequence and
 * direction. */
enum { IN, W, BIAS, H, CELL, OUT, INDEX, PEEPHOLE, STAGE };

static infold_status check(const void *params, const infold_extent *e, const infold_kernels *kernels) {
    const recurrent_params *p = params;
    CHECK(p->kind >= 0 && p->kind < KINDS && p->directions >= 1 && p->directions <= DIRECTIONS, INFOLD_EPARAM);
    CHECK(p->hidden >= 1 && p->hidden <= (int64_t)1 << 40 && p->clip >= 0, INFOLD_EPARAM);
    for (int i = 0; i < FUNCTIONS * DIRECTIONS; i++)
        CHECK(p->act[i] >= 0 && p->act[i] < INFOLD_ACT_COUNT && p->act[i] != INFOLD_PRELU, INFOLD_EPARAM);
    const int64_t gates = gates_of[p->kind], lanes = kernels->lanes, padded = (p->hidden + lanes - 1) / lanes * lanes;
    const int64_t across[3] = {p->directions, p->batch, p->steps}, all_gates = p->directions * gates;
    const int64_t side_by_side = gates * p->hidden, stage = (gates + 1) * p->hidden;
    const int64_t in[3] = {side_by_side, p->in_batch, p->in_step}, out[3] = {p->out_direction, p->out_batch, p->out_step};
    const int64_t h[2] = {p->h_direction, p->h_batch};
    int64_t panels, rows;
    CHECK(!__builtin_mul_overflow(p->hidden, padded, &panels), INFOLD_EPARAM);
    CHECK(!__builtin_mul_overflow(p->directions, p->batch, &rows), INFOLD_EPARAM);
    const infold_span run = span_of_run(p->hidden), state = span_repeat(run, 2, across, h);
    const infold_span inputs = span_repeat(span_of_run(side_by_side), 3, across, in);
    CHECK(span_fits(inputs, &e[IN], 4) && work_fits(inputs, p->hidden), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(span_of_run(panels), 1, &all_gates, &p->w_gate), &e[W], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(state, &e[H], 4), INFOLD_EBOUNDS);
    CHECK(p->kind != LSTM || span_fits(state, &e[CELL], 4), INFOLD_EBOUNDS);
    CHECK(span_fits(span_repeat(span_of_run(stage), 1, &rows, &stage), &e[STAGE], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[BIAS]))
        CHECK(span_fits(span_repeat(span_of_run(padded), 1, across, &p->bias_direction), &e[BIAS], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[OUT])) CHECK(span_fits(span_repeat(run, 3, across, out), &e[OUT], 4), INFOLD_EBOUNDS);
    if (arg_given(&e[INDEX])) CHECK(span_fits(span_of_run(p->batch), &e[INDEX], 8), INFOLD_EBOUNDS);
    if (arg_given(&e[PEEPHOLE])) CHECK(span_fits(span_of_run(p->directions * 3 * p->hidden), &e[PEEPHOLE], 4), INFOLD_EBOUNDS);
    return INFOLD_OK;
}

typedef struct {
    const recurrent_params *p;
    const infold_ctx *ctx;
    void *const *args;
    int64_t gates;
} job;

/* One sequence in one time step: its projected input, its states, where its output goes, and its gates. */
typedef struct {
    const float *x;
    float *h, *cell, *out, *z;
} sequence;

typedef struct {
    const recurrent_params *p;
    const infold_kernels *k;
    int64_t direction;
    const float *peephole;
} cell;

static void act(const cell *c, int function, int64_t n, const float *x, float *out) {
    const int64_t i = FUNCTIONS * c->direction + function;
    c->k->act((infold_act)c->p->act[i], 1, n, x, 0, out, 0, NULL, (float)c->p->a[i], (float)c->p->b[i]);
}

static void clip(const cell *c, int64_t n, float *x) {
    if (c->p->clip > 0) c->k->act(INFOLD_CLIP, 1, n, x, 0, x, 0, NULL, -(float)c->p->clip, (float)c->p->clip);
}

static void combine(const cell *c, infold_binary op, const float *a, const float *b, float *out) {
    static const int64_t dense[2] = {0, 1};
    c->k->binary(op, 1, c->p->hidden, a, dense, b, dense, out, dense);
}

/* x += weight * state, by way of the free vector */
static void peep(const cell *c, int gate, const float *state, float *x, float *room) {
    combine(c, INFOLD_MUL, c->peephole + gate * c->p->hidden, state, room);
    combine(c, INFOLD_ADD, x, room, x);
}

static void lstm(const cell *c, const sequence *s) {
    const int64_t n = c->p->hidden;
    float *i = s->z, *o = i + n, *f = o + n, *g = f + n, *room = g + n;
    if (c->peephole) {
        peep(c, 0, s->cell, i, room);
        peep(c, 2, s->cell, f, room);
        clip(c, n, i);
        act(c, 0, n, i, i);
        clip(c, 2 * n, f);
        act(c, 0, n, f, f);
    } else {
        clip(c, 4 * n, i);
        act(c, 0, 3 * n, i, i);
    }
    act(c, 1, n, g, g);
    if (c->p->coupled) c->k->act(INFOLD_LINEAR, 1, n, i, 0, f, 0, NULL, -1.0f, 1.0f);
    combine(c, INFOLD_MUL, f, s->cell, s->cell);
    combine(c, INFOLD_MUL, i, g, g);
    combine(c, INFOLD_ADD, s->cell, g, s->cell);
    if (c->peephole) {
        peep(c, 1, s->cell, o, room);
        clip(c, n, o);
        act(c, 0, n, o, o);
    }
    act(c, 2, n, s->cell, room);
    combine(c, INFOLD_MUL, o, room, s->h);
}

/* The gates z and r, and what r does to the state before its product, or to the product. */
static void gru_reset(const cell *c, const sequence *s) {
    const int64_t n = c->p->hidden;
    float *r = s->z + n, *h = r + n, *room = h + n;
    clip(c, 2 * n, s->z);
    act(c, 0, 2 * n, s->z, s->z);
    if (c->p->kind == GRU) {
        combine(c, INFOLD_MUL, r, s->h, room);
    } else {
        combine(c, INFOLD_MUL, r, h, h);
        combine(c, INFOLD_ADD, s->x + 2 * n, h, h);
    }
}

/* h = (1 - z) * new + z * h */
static void gru(const cell *c, const sequence *s) {
    const int64_t n = c->p->hidden;
    float *z = s->z, *new = z + 2 * n;
    clip(c, n, new);
    act(c, 1, n, new, new);
    combine(c, INFOLD_SUB, s->h, new, s->h);
    combine(c, INFOLD_MUL, z, s->h, s->h);
    combine(c, INFOLD_ADD, s->h, new, s->h);
}

static void rnn(const cell *c, const sequence *s) {
    clip(c, c->p->hidden, s->z);
    act(c, 0, c->p->hidden, s->z, s->h);
}

typedef struct {
    const job *j;
    int64_t direction, m, gate;
    const sequence *s;
    const float *const *a;
} gates_product;

/* z = a * weights + x for panels, counted from the first one of `gate`; without x but with the bias for the last gate of a reset
 * behind the product. */
static void panels(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    static const float zeros[2 * INFOLD_MAX_LANES];
    const gates_product *g = arg;
    const job *j = g->j;
    const recurrent_params *p = j->p;
    const infold_kernels *k = j->ctx->kernels;
    const int64_t at_row = 0, nr = k->nr, of_gate = (p->hidden + nr - 1) / nr;
    const float *x[INFOLD_MAX_MR];
    float *z[INFOLD_MAX_MR];
    for (int64_t i = 0; i < g->m; i++) x[i] = g->s[i].x, z[i] = g->s[i].z;
    infold_tile tile = {.a = g->a, .c = z, .tap = &at_row, .taps = 1, .k = p->hidden, .chunk = CHUNK, .lo = -INFINITY, .hi = INFINITY};
    for (int64_t panel = begin; panel < end; panel++) {
        const int64_t gate = g->gate + panel / of_gate, at = panel % of_gate * nr;
        const bool within = p->kind == GRU_LINEAR_BEFORE_RESET && gate == 2;
        const float *bias = within && j->args[BIAS] ? (const float *)j->args[BIAS] + g->direction * p->bias_direction : NULL;
        tile.r = within ? NULL : x;
        tile.column = gate * p->hidden + at;
        tile.n = p->hidden - at < nr ? p->hidden - at : nr;
        tile.b = (const float *)j->args[W] + (g->direction * j->gates + gate) * p->w_gate + at * p->hidden;
        tile.bias = bias ? bias + at : zeros;
        k->gemm[tile.n > k->lanes][g->m - 1](&tile);
    }
}

/* The same for the gates [first, last), by all threads. */
static void product(const job *j, int64_t direction, const sequence *s, int64_t m, const float *const *a, int64_t first, int64_t last) {
    const gates_product g = {j, direction, m, first, s, a};
    const int64_t nr = j->ctx->kernels->nr, count = (last - first) * ((j->p->hidden + nr - 1) / nr);
    infold_parallel(j->ctx, count, 1 + STEP_GRAIN / (j->p->hidden * nr), panels, &g);
}

static void step(const job *j, int64_t direction, const sequence *s, int64_t m) {
    const recurrent_params *p = j->p;
    const float *peephole = j->args[PEEPHOLE];
    const cell c = {p, j->ctx->kernels, direction, peephole ? peephole + direction * 3 * p->hidden : NULL};
    const float *a[INFOLD_MAX_MR];
    for (int64_t i = 0; i < m; i++) a[i] = s[i].h;
    product(j, direction, s, m, a, 0, p->kind == GRU ? 2 : j->gates);
    if (p->kind == GRU || p->kind == GRU_LINEAR_BEFORE_RESET)
        for (int64_t i = 0; i < m; i++) gru_reset(&c, &s[i]);
    if (p->kind == GRU) {
        for (int64_t i = 0; i < m; i++) a[i] = s[i].z + 3 * p->hidden;
        product(j, direction, s, m, a, 2, 3);
    }
    for (int64_t i = 0; i < m; i++) {
        (p->kind == LSTM ? lstm : p->kind == RNN ? rnn : gru)(&c, &s[i]);
        if (s[i].out) memcpy(s[i].out, s[i].h, (size_t)p->hidden * sizeof(float));
    }
}

static int64_t length(const job *j, int64_t row) {
    if (!j->args[INDEX]) return j->p->steps;
    const int64_t steps = ((const int64_t *)j->args[INDEX])[row];
    return steps == 0 ? 0 : 1 + index_inside(steps < 0 ? j->p->steps : steps - 1, j->p->steps, j->ctx->fault);
}

/* m sequences from `row` on, through all of time. One of no steps has no last state: zero, as in onnxruntime and OpenVINO. */
static void sequences(const job *j, int64_t direction, int64_t row, int64_t m) {
    const recurrent_params *p = j->p;
    const bool backward = direction || p->backward;
    for (int64_t i = row; i < row + m; i++) {
        const int64_t state = direction * p->h_direction + i * p->h_batch;
        if (length(j, i) > 0) continue;
        memset((float *)j->args[H] + state, 0, (size_t)p->hidden * sizeof(float));
        if (p->kind == LSTM) memset((float *)j->args[CELL] + state, 0, (size_t)p->hidden * sizeof(float));
    }
    for (int64_t at = 0; at < p->steps; at++) {
        sequence live[INFOLD_MAX_MR];
        int64_t count = 0;
        for (int64_t i = row; i < row + m; i++) {
            const int64_t steps = length(j, i), t = at >= steps || !backward ? at : steps - 1 - at;
            const int64_t state = direction * p->h_direction + i * p->h_batch;
            float *out = j->args[OUT];
            if (out) out += t * p->out_step + i * p->out_batch + direction * p->out_direction;
            if (at < steps)
                live[count++] = (sequence){
                    .x = (const float *)j->args[IN] + t * p->in_step + i * p->in_batch + direction * j->gates * p->hidden,
                    .h = (float *)j->args[H] + state,
                    .cell = p->kind == LSTM ? (float *)j->args[CELL] + state : NULL,
                    .out = out,
                    .z = (float *)j->args[STAGE] + (direction * p->batch + i) * (j->gates + 1) * p->hidden,
                };
            else if (out)
                memset(out, 0, (size_t)p->hidden * sizeof *out);
        }
        if (count) step(j, direction, live, count);
    }
}

static void rows(const void *arg, int64_t begin, int64_t end, int64_t thread) {
    (void)thread;
    const job *j = arg;
    const int64_t batch = j->p->batch, mr = j->ctx->kernels->mr;
    for (int64_t at = begin, m; at < end; at += m) {
        const int64_t row = at % batch;
        m = end - at < mr ? end - at : mr;
        if (m > batch - row) m = batch - row;
        sequences(j, at / batch, row, m);
    }
}

/* What m sequences cost that share what is read of the weights. */
static double cost(int64_t m, int64_t mr) { return (double)((m + mr - 1) / mr * 3 + m); }

/* Threads take sequences, or if that is less work for each, parts of the product in every step. */
static void run(const void *params, void *const *args, const infold_ctx *ctx) {
    const recurrent_params *p = params;
    infold_ctx alone = *ctx;
    alone.threads = 1;
    const int64_t mr = ctx->kernels->mr, all = p->directions * p->batch, each = (all + ctx->threads - 1) / ctx->threads;
    const double of_step = (double)(gates_of[p->kind] * p->hidden) * (double)p->hidden;
    const double parts = fmin((double)ctx->threads, of_step / STEP_GRAIN), wait = 4 * WAIT / of_step * (p->kind == GRU ? 2 : 1);
    const bool by_panel = parts >= 2 && (double)p->directions * (cost(p->batch, mr) / parts + wait) < cost(each, mr);
    const job j = {p, by_panel ? ctx : &alone, args, gates_of[p->kind]};
    const int64_t grain = 1 + (int64_t)(GRAIN / ((double)p->steps * of_step + 1));
    infold_parallel(by_panel ? &alone : ctx, all, grain > each ? grain : each, rows, &j);
}

const infold_op infold_op_recurrent = {
    .name = "recurrent",
    .params = "kind steps batch directions hidden backward in_step in_batch out_step out_batch out_direction h_batch h_direction "
              "w_gate bias_direction coupled act[6] a[6]:f b[6]:f clip:f",
    .args = "in w bias? h cell? out? index? peephole? stage",
    .params_size = sizeof(recurrent_params),
    .check = check,
    .run = run,
};

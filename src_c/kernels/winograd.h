/* Winograd's minimal filtering (Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016), side x side outputs of
 * a 3x3 filter at a time, vectorised over channels. The points 0, +-a (, +-b), infinity come in opposite pairs, so that lines are
 * transformed by their even and odd halves. The filters' own transform, with all the divisions, is the planner's. */

typedef struct {
    vf a, b, minus_a, minus_b, a2, b2, minus_a2, minus_b2, a3, b3, product, minus_sum; /* a2 * b2 and -(a2 + b2) */
} winograd_points;

static inline winograd_points winograd_points_of(const double *point, const int side) {
    const double a = point[0], b = side == 4 ? point[1] : 0.0;
    return (winograd_points){
        v_set1((float)a), v_set1((float)b), v_set1((float)-a), v_set1((float)-b), v_set1((float)(a * a)), v_set1((float)(b * b)),
        v_set1((float)(-a * a)), v_set1((float)(-b * b)), v_set1((float)(a * a * a)), v_set1((float)(b * b * b)),
        v_set1((float)(a * a * b * b)), v_set1((float)(-a * a - b * b))};
}

/* v = B^T d: for each point p the product of (x - q) over the other finite points q, for infinity over all of them. */
INLINE void winograd_line_in(const winograd_points *p, const int side, const vf *d, vf *v) {
    if (side == 2) {
        v[0] = v_fma(p->minus_a2, d[0], d[2]);
        v[1] = v_fma(p->a, d[1], d[2]);
        v[2] = v_fma(p->minus_a, d[1], d[2]);
        v[3] = v_fma(p->minus_a2, d[1], d[3]);
        return;
    }
    const vf even_a = v_fma(p->minus_b2, d[2], d[4]), odd_a = v_fma(p->minus_b2, d[1], d[3]);
    const vf even_b = v_fma(p->minus_a2, d[2], d[4]), odd_b = v_fma(p->minus_a2, d[1], d[3]);
    v[0] = v_fma(p->product, d[0], v_fma(p->minus_sum, d[2], d[4]));
    v[1] = v_fma(p->a, odd_a, even_a);
    v[2] = v_fma(p->minus_a, odd_a, even_a);
    v[3] = v_fma(p->b, odd_b, even_b);
    v[4] = v_fma(p->minus_b, odd_b, even_b);
    v[5] = v_fma(p->product, d[1], v_fma(p->minus_sum, d[3], d[5]));
}

/* y = A^T m: output k is the sum of p^k m[p], and the last takes the point at infinity too. */
INLINE void winograd_line_out(const winograd_points *p, const int side, const vf *m, vf *y) {
    const vf even_a = m[1] + m[2], odd_a = m[1] - m[2];
    if (side == 2) {
        y[0] = m[0] + even_a;
        y[1] = v_fma(p->a, odd_a, m[3]);
        return;
    }
    const vf even_b = m[3] + m[4], odd_b = m[3] - m[4];
    y[0] = m[0] + (even_a + even_b);
    y[1] = v_fma(p->a, odd_a, p->b * odd_b);
    y[2] = v_fma(p->a2, even_a, p->b2 * even_b);
    y[3] = v_fma(p->a3, odd_a, v_fma(p->b3, odd_b, m[5]));
}

enum { AHEAD = 4 }; /* pixels of a row fetched before their tile's turn: large images come from afar */

/* One vector of channels from c on. inner: the tile lies in the image and all lanes are live. */
INLINE void winograd_in(const infold_winograd_in *t, const winograd_points *p, const int side,
                                                              const int64_t c, const int64_t live, const bool inner) {
    const int n = side + 2;
    vf d[6], column[6], v[6][6];
    UNROLL for (int j = 0; j < n; j++) {
        const int64_t x = t->at[1] + j;
        UNROLL for (int i = 0; i < n; i++) {
            const int64_t y = t->at[0] + i;
            if (inner || (y >= 0 && y < t->size[0] && x >= 0 && x < t->size[1])) {
                const num *from = (const num *)t->in + y * t->step[0] + x * t->step[1] + c;
                if (inner && j >= n - side) __builtin_prefetch(from + AHEAD * t->step[1], 0, 3); /* no tile before read this pixel */
                d[i] = n_load(from, live);
            } else {
                d[i] = v_set1(0.0f);
            }
        }
        winograd_line_in(p, side, d, column);
        UNROLL for (int i = 0; i < n; i++) v[i][j] = column[i];
    }
    float *to = t->v + c;
    UNROLL for (int i = 0; i < n; i++) {
        winograd_line_in(p, side, v[i], d);
        UNROLL for (int j = 0; j < n; j++, to += t->position) {
            if (inner)
                v_store(to, d[j]);
            else
                v_storen(to, d[j], live);
        }
    }
}

INLINE void winograd_in_tile(const infold_winograd_in *t, const int side) {
    const winograd_points p = winograd_points_of(t->point, side);
    const bool inside = t->at[0] >= 0 && t->at[1] >= 0 && t->at[0] + side + 2 <= t->size[0] && t->at[1] + side + 2 <= t->size[1];
    int64_t c = 0;
    if (inside)
        for (; c + VL <= t->channels; c += VL) winograd_in(t, &p, side, c, VL, true);
    for (; c < t->channels; c += VL) winograd_in(t, &p, side, c, t->channels - c < VL ? t->channels - c : VL, false);
}

/* One vector of channels from c on. whole: all lanes are live, and so are all pixels. */
INLINE void winograd_out(const infold_winograd_out *t, const winograd_points *p,
                                                               const int side, const int64_t c, const int64_t live,
                                                               const bool whole) {
    const int n = side + 2;
    vf m[6], column[4], y[4][6];
    const float *from = t->m + c;
    UNROLL for (int j = 0; j < n; j++, from += t->position) {
        UNROLL for (int i = 0; i < n; i++)
            m[i] = whole ? v_load(from + i * n * t->position) : v_loadn(from + i * n * t->position, live);
        winograd_line_out(p, side, m, column);
        UNROLL for (int i = 0; i < side; i++) y[i][j] = column[i];
    }
    const vf lo = v_set1(t->lo), hi = v_set1(t->hi), bias = whole ? v_load(t->bias + c) : v_loadn(t->bias + c, live);
    UNROLL for (int i = 0; i < side; i++) {
        if (!whole && i >= t->live[0]) break;
        winograd_line_out(p, side, y[i], column);
        UNROLL for (int j = 0; j < side; j++) {
            if (!whole && j >= t->live[1]) break;
            vf x = column[j] + bias;
            if (t->r) x += n_load((const num *)t->r + i * t->r_step[0] + j * t->r_step[1] + c, live);
            n_store_either(t->out, t->sums, i * t->step[0] + j * t->step[1] + c, v_min(hi, v_max(lo, x)), live);
        }
    }
}

INLINE void winograd_out_tile(const infold_winograd_out *t, const int side) {
    const winograd_points p = winograd_points_of(t->point, side);
    int64_t c = 0;
    if (t->live[0] == side && t->live[1] == side)
        for (; c + VL <= t->channels; c += VL) winograd_out(t, &p, side, c, VL, true);
    for (; c < t->channels; c += VL) winograd_out(t, &p, side, c, t->channels - c < VL ? t->channels - c : VL, false);
}

static void winograd2_in_run(const infold_winograd_in *t) { winograd_in_tile(t, 2); }
static void winograd4_in_run(const infold_winograd_in *t) { winograd_in_tile(t, 4); }
static void winograd2_out_run(const infold_winograd_out *t) { winograd_out_tile(t, 2); }
static void winograd4_out_run(const infold_winograd_out *t) { winograd_out_tile(t, 4); }

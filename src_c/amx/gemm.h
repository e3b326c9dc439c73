/* The matrix micro-kernel on tiles: 2 x 2 tiles of sums (0 to 3), two of A (4, 5) and two of B (6, 7). The same source is compiled with
 * amx/tile.h and with amx/tile_emulated.h. */
#include "kernels/store.h"

enum {
    TILE = 16,
    TILE_NV = INFOLD_BF16_COLUMNS / VL,
    TILE_CHUNK = 256, /* with three terms float32 rounding counts: sums of so many products are summed outside the tiles */
};

typedef float tile_sums[INFOLD_BF16_ROWS][INFOLD_BF16_COLUMNS];

/* The products of rows [k, end), added to what `sums` holds if it goes `on`. tall, wide: more rows than a tile has, more columns. A
 * product adds to its tile long after the next one could start: in a narrow block the tiles on the right, which would have no columns,
 * take every second product. (Those of a block that is not tall may not: a pixel's numbers must not depend on how pixels are shared
 * out. Nor do they on blocks of depth, since INFOLD_BF16_BLOCK is an even number of products.) */
static inline __attribute__((always_inline)) void tile_block(const infold_bf16_tile *t, int64_t k, int64_t end,
                                                             float (*sums)[INFOLD_BF16_COLUMNS], bool on, const bool tall,
                                                             const bool wide) {
    const int64_t a_bytes = 2 * t->a_row, b_bytes = 4 * INFOLD_BF16_COLUMNS, s_bytes = 4 * INFOLD_BF16_COLUMNS;
    bool second = false;
    if (on) {
        tile_load(0, sums[0], s_bytes);
        tile_load(1, sums[0] + TILE, s_bytes);
        if (tall) tile_load(2, sums[t->height], s_bytes);
        if (tall) tile_load(3, sums[t->height] + TILE, s_bytes);
    } else {
        tile_zero(0);
        tile_zero(1);
        if (tall) tile_zero(2);
        if (tall) tile_zero(3);
    }
    for (; k < end; k += INFOLD_BF16_DEPTH)
        for (int64_t i = 0; i < t->terms; i++) {
            const uint16_t *a = t->a[0] + i * t->a_plane + k;
            tile_load(4, a, a_bytes);
            if (tall) tile_load(5, a + t->height * t->a_row, a_bytes);
            for (int64_t j = 0; i + j < t->terms; j++, second = !second && !wide) {
                const uint16_t *b = t->b + j * t->b_plane + k * INFOLD_BF16_COLUMNS;
                tile_load(6, b, b_bytes);
                if (second) {
                    tile_dot(1, 4, 6);
                    if (tall) tile_dot(3, 5, 6);
                } else {
                    tile_dot(0, 4, 6);
                    if (tall) tile_dot(2, 5, 6);
                }
                if (wide) {
                    tile_load(7, b + 2 * TILE, b_bytes);
                    tile_dot(1, 4, 7);
                    if (tall) tile_dot(3, 5, 7);
                }
            }
        }
    tile_store(0, sums[0], s_bytes);
    tile_store(1, sums[0] + TILE, s_bytes);
    if (tall) tile_store(2, sums[t->height], s_bytes);
    if (tall) tile_store(3, sums[t->height] + TILE, s_bytes);
}

static void tile_gemm(const infold_bf16_tile *t, int64_t m) {
    _Alignas(64) tile_sums own, more;
    float(*sums)[INFOLD_BF16_COLUMNS] = t->sums ? (float(*)[INFOLD_BF16_COLUMNS])t->sums : own;
    const int64_t chunk = t->terms < INFOLD_BF16_TERMS ? t->to - t->from : TILE_CHUNK;
    const bool tall = m > t->height, wide = t->out.n > TILE;
    for (int64_t k = t->from; k == t->from || k < t->to; k += chunk) {
        const int64_t end = t->to - k < chunk ? t->to : k + chunk;
        const bool first = k == t->from, on = first && k > 0;
        float(*to)[INFOLD_BF16_COLUMNS] = first ? sums : more;
        if (tall)
            wide ? tile_block(t, k, end, to, on, true, true) : tile_block(t, k, end, to, on, true, false);
        else
            wide ? tile_block(t, k, end, to, on, false, true) : tile_block(t, k, end, to, on, false, false);
        for (int64_t i = 0; !first && i < m; i++)
            for (int64_t j = 0; j < INFOLD_BF16_COLUMNS; j++) sums[i][j] += more[i][j];
        if (chunk == 0) break; /* an empty product */
    }
    if (t->to < t->k) return;
    for (int64_t i = 0; i < m; i++) {
        vf acc[TILE_NV];
        for (int j = 0; j < TILE_NV; j++) acc[j] = v_load(sums[i] + j * VL);
        for (int j = 0; !wide && j < TILE_NV / 2; j++) acc[j] += acc[TILE_NV / 2 + j];
        store_row(&t->out, i, acc, TILE_NV);
    }
}

static float tile_peak(int64_t iterations) {
    tile_sums sums;
    tile_begin(TILE);
    tile_zero(0);
    tile_zero(1);
    tile_zero(2);
    tile_zero(3);
    tile_zero(4);
    tile_zero(5);
    tile_zero(6);
    tile_zero(7);
    for (int64_t n = 0; n < iterations; n++) {
        tile_dot(0, 4, 6);
        tile_dot(1, 4, 7);
        tile_dot(2, 5, 6);
        tile_dot(3, 5, 7);
    }
    tile_store(0, sums[0], 4 * INFOLD_BF16_COLUMNS);
    tile_end();
    return sums[0][0];
}

const infold_bf16 ISA(infold_bf16) = {
    .mr = 2 * TILE,
    .m_step = TILE,
    .depth_step = INFOLD_BF16_DEPTH,
    .macs_per_cycle = 512, /* 16 x 16 x 32 in 16 cycles */
    .begin = tile_begin,
    .end = tile_end,
    .gemm = tile_gemm,
    BF16_IMAGES,
    .peak = tile_peak,
    .peak_macs = 4 * TILE * TILE * INFOLD_BF16_DEPTH,
};

/* The instructions of amx/tile.h in plain C.
 *
 * TDPBF16PS sums, for each element, the even and the odd products of the pairs in two chains of fused multiply-adds that start at
 * zero, then adds the chains, then the result to the sum, each rounded once to nearest even, denormals being zero on the way in and
 * out, whatever MXCSR says (Intel SDM, volume 2). */

typedef union {
    float f[16][16];
    uint16_t h[16][32];
} tile_register;

static _Thread_local tile_register tile_registers[8];
static _Thread_local int tile_height;

static int tile_rows(int t) { return t < 6 ? tile_height : 16; }

static void tile_begin(int64_t height) {
    memset(tile_registers, 0, sizeof tile_registers);
    tile_height = (int)height;
}
static void tile_end(void) { memset(tile_registers, 0xff, sizeof tile_registers); } /* NaN, should anybody go on using them */
static void tile_zero(int t) { memset(&tile_registers[t], 0, sizeof(tile_register)); }

static void tile_load(int t, const void *from, int64_t row_bytes) {
    for (int i = 0; i < tile_rows(t); i++) memcpy(tile_registers[t].f[i], (const char *)from + i * row_bytes, 64);
}

static void tile_store(int t, void *to, int64_t row_bytes) {
    for (int i = 0; i < tile_rows(t); i++) memcpy((char *)to + i * row_bytes, tile_registers[t].f[i], 64);
}

static void tile_dot(int sum, int a, int b) {
    for (int m = 0; m < tile_rows(sum); m++) {
        vf even[16 / VL], odd[16 / VL];
        for (int j = 0; j < 16 / VL; j++) even[j] = odd[j] = v_set1(0.0f);
        for (int k = 0; k < 16; k++) {
            int32_t pair;
            memcpy(&pair, &tile_registers[a].h[m][2 * k], sizeof pair);
            const vf even_a = v_even(vi_set1(pair)), odd_a = v_odd(vi_set1(pair));
            for (int j = 0; j < 16 / VL; j++) {
                vi pairs;
                memcpy(&pairs, &tile_registers[b].h[k][2 * j * VL], sizeof pairs);
                even[j] = v_flush(v_fma(even_a, v_even(pairs), even[j]));
                odd[j] = v_flush(v_fma(odd_a, v_odd(pairs), odd[j]));
            }
        }
        for (int j = 0; j < 16 / VL; j++) {
            float *to = &tile_registers[sum].f[m][j * VL];
            v_store(to, v_flush(v_flush(v_load(to)) + v_flush(even[j] + odd[j])));
        }
    }
}

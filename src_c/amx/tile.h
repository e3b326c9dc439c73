/* AMX: eight registers of 16 rows of 64 bytes, by the number in the instruction, which must be a literal. tile_emulated.h is the
 * same without the instructions. */
#include <immintrin.h>

/* Every thread configures its own registers, and lets go of them: what they hold would be saved at every switch of threads. Those
 * of B have 16 rows, the others `height`. */
static void tile_begin(int64_t height) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = t < 6 ? (uint8_t)height : 16;
    }
    __asm__ volatile("" ::"r"(&config) : "memory"); /* GCC 12's intrinsic does not say that it reads all of it */
    _tile_loadconfig(&config);
}
static void tile_end(void) { _tile_release(); }

#define tile_zero(t) _tile_zero(t)
#define tile_load(t, from, row_bytes) _tile_loadd(t, from, row_bytes)
#define tile_store(t, to, row_bytes) _tile_stored(t, to, row_bytes)
#define tile_dot(sum, a, b) _tile_dpbf16ps(sum, a, b) /* bf16 pairs: sum[m][n] += a[m][2k..] * b[k][2n..] */

/* Conversions between the element types of tensors, as ONNX's Cast has them: to integers by truncation, to half precision to the
 * nearest, ties to even. What ONNX leaves open (a number outside the integer's range) wraps, or becomes the integer of smallest
 * value, as conversions do on x86. */
#ifndef INFOLD_CONVERT_H
#define INFOLD_CONVERT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* X(name, storage, type computed with) */
#define FLOAT_TYPES(X) X(f32, float, float) X(f64, double, double)
#define HALF_TYPES(X) X(f16, uint16_t, float) X(bf16, uint16_t, float)
#define SIGNED_TYPES(X) X(i8, int8_t, int8_t) X(i16, int16_t, int16_t) X(i32, int32_t, int32_t) X(i64, int64_t, int64_t)
#define UNSIGNED_TYPES(X)                                                                                               \
    X(u8, uint8_t, uint8_t) X(u16, uint16_t, uint16_t) X(u32, uint32_t, uint32_t) X(u64, uint64_t, uint64_t)
#define INT_TYPES(X) SIGNED_TYPES(X) UNSIGNED_TYPES(X)
#define BOOL_TYPE(X) X(b8, uint8_t, uint8_t)

static inline uint32_t bits_of(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static inline float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline float f16_load(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = (uint32_t)(h & 0x7fff) << 13;
    const float small = float_of(rest) * 0x1p112f; /* exponent 15 becomes exponent 127; subnormals come out right, too */
    const uint32_t special = rest | 0x7f800000;    /* infinity and NaN */
    return float_of(sign | (rest >= 0x0f800000 ? special : bits_of(small)));
}

static inline uint16_t f16_store(float x) {
    const uint32_t sign = bits_of(x) >> 16 & 0x8000, a = bits_of(x) & 0x7fffffff;
    const uint32_t normal = (a - (112u << 23) + 0xfff + (a >> 13 & 1)) >> 13; /* round, rebias; may carry into infinity */
    const uint32_t tiny = bits_of(float_of(a) + 0.5f) - bits_of(0.5f);        /* the adder rounds to the last subnormal bit */
    const uint32_t special = a > 0x7f800000 ? 0x7e00 : 0x7c00;
    return (uint16_t)(sign | (a >= 0x47800000 ? special : a < 0x38800000 ? tiny : normal));
}

static inline float bf16_load(uint16_t h) { return float_of((uint32_t)h << 16); }

static inline uint16_t bf16_store(float x) {
    const uint32_t u = bits_of(x);
    return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? (u >> 16 | 0x40) : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

/* double to float so that a second rounding to half precision is right: what is lost sticks to the last bit ("round to odd") */
static inline float narrowed(double x) {
    const float y = (float)x;
    const uint32_t u = bits_of(y);
    if ((u & 0x7f800000) == 0x7f800000 || (double)y == x) return y;
    const bool away = x < 0 ? (double)y < x : (double)y > x;
    return float_of((away ? u - 1 : u) | 1);
}

static inline int32_t i32_of_double(double x) { return x > -2147483649.0 && x < 2147483648.0 ? (int32_t)x : INT32_MIN; }
static inline int64_t i64_of_double(double x) { return x >= -0x1p63 && x < 0x1p63 ? (int64_t)x : INT64_MIN; }
static inline uint64_t u64_of_double(double x) {
    return x >= 0x1p63 && x < 0x1p64 ? (uint64_t)x : (uint64_t)i64_of_double(x);
}

/* FROM_FLOAT_name(x), FROM_INT_name(x): a float or double, an integer or bool, as what `name` is computed with. */
#define FROM_FLOAT_f32(x) ((float)(x))
#define FROM_FLOAT_f64(x) ((double)(x))
#define FROM_FLOAT_f16(x) (sizeof(x) == 8 ? narrowed((double)(x)) : (float)(x))
#define FROM_FLOAT_bf16(x) FROM_FLOAT_f16(x)
#define FROM_FLOAT_i8(x) ((int8_t)i32_of_double((double)(x)))
#define FROM_FLOAT_i16(x) ((int16_t)i32_of_double((double)(x)))
#define FROM_FLOAT_i32(x) i32_of_double((double)(x))
#define FROM_FLOAT_i64(x) i64_of_double((double)(x))
#define FROM_FLOAT_u8(x) ((uint8_t)i32_of_double((double)(x)))
#define FROM_FLOAT_u16(x) ((uint16_t)i32_of_double((double)(x)))
#define FROM_FLOAT_u32(x) ((uint32_t)i64_of_double((double)(x)))
#define FROM_FLOAT_u64(x) u64_of_double((double)(x))
#define FROM_FLOAT_b8(x) ((uint8_t)((x) != 0))

#define FROM_INT_f32(x) ((float)(x))
#define FROM_INT_f64(x) ((double)(x))
#define FROM_INT_f16(x) ((float)(x))
#define FROM_INT_bf16(x) ((float)(x))
#define FROM_INT_i8(x) ((int8_t)(x))
#define FROM_INT_i16(x) ((int16_t)(x))
#define FROM_INT_i32(x) ((int32_t)(x))
#define FROM_INT_i64(x) ((int64_t)(x))
#define FROM_INT_u8(x) ((uint8_t)(x))
#define FROM_INT_u16(x) ((uint16_t)(x))
#define FROM_INT_u32(x) ((uint32_t)(x))
#define FROM_INT_u64(x) ((uint64_t)(x))
#define FROM_INT_b8(x) ((uint8_t)((x) != 0))

/* Between memory and the type computed with. */
#define PLAIN_LOAD(name, S, V)                                                                                          \
    static inline V name##_load(S x) { return x; }                                                                      \
    static inline S name##_store(V x) { return x; }
FLOAT_TYPES(PLAIN_LOAD)
INT_TYPES(PLAIN_LOAD)
#undef PLAIN_LOAD
static inline uint8_t b8_load(uint8_t x) { return x != 0; }
static inline uint8_t b8_store(uint8_t x) { return x; }

#endif

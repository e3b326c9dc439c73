/* Every typed elementwise operation: LOOP1(name, type of a, type of the result, expression), LOOP2 for a and b of one type, LOOP3
 * for a choice. Included once for the functions and once for the table of their names. */
/* Casts */
#define CAST_TO(to, T, from, S, kind) LOOP1(CAST_##from##_##to, S, T, to##_store(FROM_##kind##_##to(from##_load(a))))
#define CASTS(from, S, kind)                                                                                            \
    CAST_TO(f32, float, from, S, kind) CAST_TO(f64, double, from, S, kind) CAST_TO(f16, uint16_t, from, S, kind)        \
    CAST_TO(bf16, uint16_t, from, S, kind) CAST_TO(i8, int8_t, from, S, kind) CAST_TO(i16, int16_t, from, S, kind)      \
    CAST_TO(i32, int32_t, from, S, kind) CAST_TO(i64, int64_t, from, S, kind) CAST_TO(u8, uint8_t, from, S, kind)       \
    CAST_TO(u16, uint16_t, from, S, kind) CAST_TO(u32, uint32_t, from, S, kind) CAST_TO(u64, uint64_t, from, S, kind)   \
    CAST_TO(b8, uint8_t, from, S, kind)
#define FLOAT_CASTS(name, S, V) CASTS(name, S, FLOAT)
#define INT_CASTS(name, S, V) CASTS(name, S, INT)
FLOAT_TYPES(FLOAT_CASTS)
HALF_TYPES(FLOAT_CASTS)
INT_TYPES(INT_CASTS)
BOOL_TYPE(INT_CASTS)

/* Comparisons; NaN compares false. */
#define COMPARISONS(name, S, V)                                                                                         \
    LOOP2(EQUAL_##name, S, uint8_t, a == b) LOOP2(LESS_##name, S, uint8_t, a < b) LOOP2(LESS_EQUAL_##name, S, uint8_t, a <= b)
FLOAT_TYPES(COMPARISONS)
INT_TYPES(COMPARISONS)
LOOP2(EQUAL_b8, uint8_t, uint8_t, !a == !b)

/* Integer arithmetic wraps. Division truncates; by zero it gives 0. MOD has the sign of the divisor, FMOD that of the dividend. */
#define WRAP(op) ((uint64_t)a op (uint64_t)b)
#define ARITHMETIC(name, S, V)                                                                                          \
    LOOP2(ADD_##name, S, S, WRAP(+)) LOOP2(SUB_##name, S, S, WRAP(-)) LOOP2(MUL_##name, S, S, WRAP(*))                  \
    LOOP2(MIN_##name, S, S, a < b ? a : b) LOOP2(MAX_##name, S, S, a > b ? a : b)                                       \
    LOOP1(ABS_##name, S, S, (S)(a < 1 ? 0 - (uint64_t)a : (uint64_t)a)) LOOP1(NEG_##name, S, S, (S)(0 - (uint64_t)a))   \
    LOOP1(SIGN_##name, S, S, (S)((a > 0) - (a < 1 && a != 0)))
#define SIGNED_DIVISION(name, S, V)                                                                                     \
    LOOP2(DIV_##name, S, S, quotient(a, b)) LOOP2(MOD_##name, S, S, modulus(a, b)) LOOP2(FMOD_##name, S, S, remainder_of(a, b))
#define UNSIGNED_DIVISION(name, S, V)                                                                                   \
    LOOP2(DIV_##name, S, S, b ? a / b : 0) LOOP2(MOD_##name, S, S, b ? a % b : 0)                                       \
    LOOP2(FMOD_##name, S, S, b ? a % b : 0)                                                                             \
    LOOP2(SHIFT_LEFT_##name, S, S, b < 8 * sizeof(S) ? (uint64_t)a << b : 0)                                            \
    LOOP2(SHIFT_RIGHT_##name, S, S, b < 8 * sizeof(S) ? a >> b : 0)
INT_TYPES(ARITHMETIC)
SIGNED_TYPES(SIGNED_DIVISION)
UNSIGNED_TYPES(UNSIGNED_DIVISION)

/* float64 (float32 has kernels of its own, but for results that are joined at an index), and what float32 kernels have not; a NaN
 * on either side wins */
#define FLOAT_LOOPS(name, S, V)                                                                                         \
    LOOP2(ADD_##name, S, S, a + b) LOOP2(SUB_##name, S, S, a - b) LOOP2(MUL_##name, S, S, a *b)                         \
    LOOP2(DIV_##name, S, S, a / b) LOOP2(MIN_##name, S, S, a != a ? a : b != b || b < a ? b : a)                        \
    LOOP2(MAX_##name, S, S, a != a ? a : b != b || b > a ? b : a)                                                       \
    LOOP2(FMOD_##name, S, S, sizeof(S) == 4 ? (S)fmodf((float)a, (float)b) : (S)fmod((double)a, (double)b))             \
    LOOP1(ISNAN_##name, S, uint8_t, a != a) LOOP1(ISINF_##name, S, uint8_t, a - a != a - a && a == a)                   \
    LOOP1(ISINF_POSITIVE_##name, S, uint8_t, a > 0 && a - a != a - a)                                                   \
    LOOP1(ISINF_NEGATIVE_##name, S, uint8_t, a < 0 && a - a != a - a)
FLOAT_TYPES(FLOAT_LOOPS)
LOOP1(ABS_f64, double, double, fabs(a))
LOOP1(NEG_f64, double, double, -a)
LOOP1(SIGN_f64, double, double, a != a ? a : (a > 0) - (a < 0))
LOOP1(RECIPROCAL_f64, double, double, 1 / a)
LOOP1(SIGMOID_f64, double, double, 1 / (1 + exp(-a)))
LOOP2(POW_f64, double, double, pow(a, b))

/* Functions of the C library; of float32 those that no kernel has, computed in float64 */
#define LIBRARY_f64(NAME, call) LOOP1(NAME##_f64, double, double, call(a))
#define LIBRARY(NAME, call) LOOP1(NAME##_f32, float, float, (float)call((double)a)) LIBRARY_f64(NAME, call)
LIBRARY(SIN, sin) LIBRARY(COS, cos) LIBRARY(TAN, tan) LIBRARY(ASIN, asin) LIBRARY(ACOS, acos) LIBRARY(ATAN, atan)
LIBRARY(SINH, sinh) LIBRARY(COSH, cosh) LIBRARY(ASINH, asinh) LIBRARY(ACOSH, acosh) LIBRARY(ATANH, atanh)
LIBRARY_f64(EXP, exp) LIBRARY_f64(LOG, log) LIBRARY_f64(SQRT, sqrt) LIBRARY_f64(TANH, tanh) LIBRARY_f64(ERF, erf)
LIBRARY_f64(FLOOR, floor) LIBRARY_f64(CEIL, ceil) LIBRARY_f64(ROUND, rint) /* to even */

LOOP2(AND_b8, uint8_t, uint8_t, a && b)
LOOP2(OR_b8, uint8_t, uint8_t, a || b)
LOOP2(XOR_b8, uint8_t, uint8_t, !a != !b)
LOOP1(NOT_b8, uint8_t, uint8_t, !a)

/* What only depends on the size of the items: bits, copies, choices */
#define SIZES(X) X(1, uint8_t) X(2, uint16_t) X(4, uint32_t) X(8, uint64_t)
#define BITS(size, S)                                                                                                   \
    LOOP2(AND_##size, S, S, a &b) LOOP2(OR_##size, S, S, a | b) LOOP2(XOR_##size, S, S, a ^ b)                          \
    LOOP1(NOT_##size, S, S, (S)~a) LOOP1(COPY_##size, S, S, a)                                                          \
    LOOP3(WHERE_##size, uint8_t, S, a ? b : c)
SIZES(BITS)


#undef CAST_TO
#undef CASTS
#undef FLOAT_CASTS
#undef INT_CASTS
#undef COMPARISONS
#undef WRAP
#undef ARITHMETIC
#undef SIGNED_DIVISION
#undef UNSIGNED_DIVISION
#undef FLOAT_LOOPS
#undef LIBRARY_f64
#undef LIBRARY
#undef SIZES
#undef BITS

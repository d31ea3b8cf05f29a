/* CPU features once at load; one table per instruction set and float type.
 *
 * setup.py defines FNN_HAVE_<ISA> for each instruction set the compiler could build. The list is
 * ordered from best to worst; the first usable one is the default (FASTNN_ISA overrides, in _core).
 */
#define FNN_DEF "kernels.def"
#include "args.h"
#include "functions.h"
#include "table.h"

#define FNN_IN(f) {#f, FNN_KIND_IN},
#define FNN_OUT(f) {#f, FNN_KIND_OUT},
#define FNN_INT(f) {#f, FNN_KIND_INT},
#define FNN_INT6(f)                                                                                \
    FNN_INT(f##0) FNN_INT(f##1) FNN_INT(f##2) FNN_INT(f##3) FNN_INT(f##4) FNN_INT(f##5)
#define FNN_REAL(f) {#f, FNN_KIND_REAL},

/* Variadic: expanded fields hold commas when SIZED hands them on. */
#define FNN_KERNEL(name, ...)                                                                      \
    static const fnn_field name##_fields[] = {__VA_ARGS__};                                        \
    _Static_assert(sizeof(fnn_##name##_args) == 8 * sizeof name##_fields / sizeof(fnn_field),      \
                   "every field is eight bytes");
#define FNN_KERNEL_SIZED(name, ...) FNN_KERNEL(name, __VA_ARGS__)
#include "kernels.def"
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED

const fnn_signature fnn_signatures[FNN_KERNELS] = {
#define FNN_KERNEL(name, ...) {#name, name##_fields, sizeof name##_fields / sizeof(fnn_field)},
#define FNN_KERNEL_SIZED(name, ...) FNN_KERNEL(name, __VA_ARGS__)
#include "kernels.def"
};

#define NAME(op) #op,
const char *const fnn_unary_names[] = {FNN_UNARY_OPS(NAME) FNN_CURVES(NAME)};
const char *const fnn_binary_names[] = {FNN_BINARY_OPS(NAME)};

typedef struct {
    const char *name;
    int (*usable)(void);
    const fnn_table *f32, *f64;
} isa_entry;

#ifdef FNN_HAVE_AVX512
extern const fnn_table fnn_table_avx512_32, fnn_table_avx512_64;
static int has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif
#ifdef FNN_HAVE_AVX2
extern const fnn_table fnn_table_avx2_32, fnn_table_avx2_64;
static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
           __builtin_cpu_supports("bmi2");
}
#endif
#ifdef FNN_HAVE_NEON
extern const fnn_table fnn_table_neon_32, fnn_table_neon_64;
#endif
#ifdef FNN_HAVE_BASELINE
extern const fnn_table fnn_table_baseline_32, fnn_table_baseline_64;
#endif
#if defined(FNN_HAVE_NEON) || defined(FNN_HAVE_BASELINE)
static int always(void) { return 1; }
#endif

static const isa_entry isas[] = {
#ifdef FNN_HAVE_AVX512
    {"avx512", has_avx512, &fnn_table_avx512_32, &fnn_table_avx512_64},
#endif
#ifdef FNN_HAVE_AVX2
    {"avx2", has_avx2, &fnn_table_avx2_32, &fnn_table_avx2_64},
#endif
#ifdef FNN_HAVE_NEON
    {"neon", always, &fnn_table_neon_32, &fnn_table_neon_64},
#endif
#ifdef FNN_HAVE_BASELINE
    {"baseline", always, &fnn_table_baseline_32, &fnn_table_baseline_64},
#endif
};

int fnn_isa_count(void) { return (int)(sizeof isas / sizeof *isas); }
const char *fnn_isa_name(int isa) { return isas[isa].name; }
int fnn_isa_usable(int isa) { return isas[isa].usable(); }
const fnn_table *fnn_isa_table(int isa, int bits) {
    return bits == 32 ? isas[isa].f32 : isas[isa].f64;
}

#ifdef __clang__
const char *fnn_compiler(void) { return __VERSION__; }
#else
const char *fnn_compiler(void) { return "GCC " __VERSION__; }
#endif

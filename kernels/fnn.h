/* The kernel ABI: what a kernel is, how its arguments are named, and how the core finds it.
 *
 * A kernel is `int kernel(const args *)`. Its argument struct is declared once, in kernels.def; the
 * same line yields the struct (for the body), the enum, and the table of field names (for the core,
 * which fills arguments by name). Every field is eight bytes wide - a pointer, an int64 or a double
 * - so field i lies at byte 8*i and the core needs no offsets.
 *
 * Kernels trust their arguments: shapes, strides and alignment are checked when a plan is built.
 * They return a status; what depends on data (labels, indices) is checked before anything is
 * written.
 */
#ifndef FNN_H
#define FNN_H

#include <stddef.h>
#include <stdint.h>

enum fnn_status {
    FNN_OK = 0,
    FNN_BAD_LABEL = 1,
    FNN_BAD_INDEX = 2,
    FNN_NO_MEMORY = 3,
    FNN_FOREIGN = 4, /* a function from elsewhere failed and says why itself */
};

/* Element types of user data; kernels compute in float32 or float64 only. */
enum fnn_dtype {
    FNN_F32,
    FNN_F64,
    FNN_U8,
    FNN_I8,
    FNN_I16,
    FNN_I32,
    FNN_I64,
};

/* Epilogue codes of gemm and conv, and of the pooling output. With v the sum so far:
 * an ACT writes act(v); a GRAD writes v * act'(.), taken from `saved`, the activation's output. */
enum fnn_act {
    FNN_ACT_NONE,
    FNN_ACT_RELU,
    FNN_ACT_SIGMOID,
    FNN_ACT_TANH,
    FNN_GRAD_RELU,
    FNN_GRAD_SIGMOID,
    FNN_GRAD_TANH,
};

enum fnn_unary {
    FNN_NEG,
    FNN_ABS,
    FNN_SQUARE,
    FNN_SQRT,
    FNN_EXP,
    FNN_LOG,
    FNN_RELU,
    FNN_SIGMOID,
    FNN_TANH,
    FNN_SIGN,
    FNN_RECIPROCAL,
    FNN_AFFINE, /* alpha * x + beta */
};

enum fnn_binary {
    FNN_ADD,
    FNN_SUB,
    FNN_MUL,
    FNN_DIV,
    FNN_MAX,
    FNN_MIN,
    FNN_POW,
    FNN_GREATER,      /* a > b ? 1 : 0 */
    FNN_EQUAL,        /* a == b ? 1 : 0 */
    FNN_RELU_GRAD,    /* a = output y, b = dy: y > 0 ? dy : 0 */
    FNN_SIGMOID_GRAD, /* dy * y * (1 - y) */
    FNN_TANH_GRAD,    /* dy * (1 - y * y) */
};

enum fnn_reduce { FNN_SUM, FNN_REDUCE_MAX, FNN_REDUCE_MIN };

enum fnn_pool { FNN_POOL_MAX, FNN_POOL_MIN, FNN_POOL_AVG };

/* Argument structs. */
#define FNN_IN(f) const void *f;
#define FNN_OUT(f) void *f;
#define FNN_INT(f) int64_t f;
#define FNN_INT6(f) int64_t f##0, f##1, f##2, f##3, f##4, f##5;
#define FNN_REAL(f) double f;
#define FNN_KERNEL(name, fields)                                                                   \
    typedef struct {                                                                               \
        fields                                                                                     \
    } fnn_##name##_args;
#define FNN_KERNEL_SIZED(name, fields) FNN_KERNEL(name, fields)
#include "kernels.def"
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED
#undef FNN_IN
#undef FNN_OUT
#undef FNN_INT
#undef FNN_INT6
#undef FNN_REAL

#define FNN_KERNEL(name, fields) FNN_K_##name,
#define FNN_KERNEL_SIZED(name, fields) FNN_K_##name,
enum fnn_kernel_id {
#include "kernels.def"
    FNN_KERNELS
};
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED

typedef int (*fnn_kernel)(const void *args);
/* Bytes of the kernel's `work` (or `packed`) buffer for these arguments; pointers are not read. */
typedef int64_t (*fnn_sizer)(const void *args);

/* One ISA and dtype's kernels, indexed by fnn_kernel_id. */
typedef struct {
    fnn_kernel run[FNN_KERNELS];
    fnn_sizer size[FNN_KERNELS]; /* NULL where a kernel needs no buffer of its own */
} fnn_table;

enum fnn_kind { FNN_KIND_IN, FNN_KIND_OUT, FNN_KIND_INT, FNN_KIND_REAL };

typedef struct {
    const char *name;
    enum fnn_kind kind;
} fnn_field;

typedef struct {
    const char *name;
    const fnn_field *fields;
    int count;
} fnn_signature;

extern const fnn_signature fnn_signatures[FNN_KERNELS];

/* dispatch.c: which instruction sets were built in, which run here, and their tables. */
int fnn_isa_count(void);
const char *fnn_isa_name(int isa);
int fnn_isa_usable(int isa);
const fnn_table *fnn_isa_table(int isa, int bits);
const char *fnn_compiler(void); /* what the kernels were built with */

#endif

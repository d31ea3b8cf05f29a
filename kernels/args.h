/* Declares the argument structs of the kernels in FNN_DEF, a file of def/: define it, include this.
 * No include guard, on purpose: a body may need two families. */
#include "fnn.h"

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
#include FNN_DEF
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED
#undef FNN_IN
#undef FNN_OUT
#undef FNN_INT
#undef FNN_INT6
#undef FNN_REAL
#undef FNN_DEF

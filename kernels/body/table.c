/* This ISA and float type's table: every kernel of kernels.def at its place. */
#define FNN_DEF "kernels.def"
#include "args.h"
#include "table.h"
#include "vec.h"

#define FNN_KERNEL(name, fields) int FNN_SYM(name)(const fnn_##name##_args *args);
#define FNN_KERNEL_SIZED(name, fields)                                                             \
    FNN_KERNEL(name, fields)                                                                       \
    int64_t FNN_SYM(name##_size)(const fnn_##name##_args *args);
#include "kernels.def"
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED

extern const fnn_table FNN_SYM(table);
const fnn_table FNN_SYM(table) = {
    .lanes = VL,
    .run =
        {
#define FNN_KERNEL(name, fields) (fnn_kernel) FNN_SYM(name),
#define FNN_KERNEL_SIZED(name, fields) (fnn_kernel) FNN_SYM(name),
#include "kernels.def"
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED
        },
    .size =
        {
#define FNN_KERNEL(name, fields)
#define FNN_KERNEL_SIZED(name, fields) [FNN_K_##name] = (fnn_sizer)FNN_SYM(name##_size),
#include "kernels.def"
#undef FNN_KERNEL
#undef FNN_KERNEL_SIZED
        },
};

/* How the core finds kernels: their numbers, names and fields, and a table for each ISA and dtype.
 */
#ifndef FNN_TABLE_H
#define FNN_TABLE_H

#include "fnn.h"

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
    int64_t lanes; /* elements of a vector */
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

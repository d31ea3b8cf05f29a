/* The limits that other kernels are measured against: multiply-adds in registers, and copies. */
#define FNN_DEF "def/peak.def"
#include "args.h"

#include "vec.h"

enum {
    CHAINS = 12
}; /* two ports, a latency of 4 to 5: 8 to 10 hide it; 12 and 2 fit in registers */

int FNN_SYM(peak_fma)(const fnn_peak_fma_args *p) {
    /* Unknown to the compiler, or it may find a chain constant and leave it out. */
    volatile T factor = (T)0.999999;
    V acc[CHAINS], a = v_set1(factor), b = v_set1((T)1e-6);
    for (int c = 0; c < CHAINS; c++) acc[c] = a + (T)c;
    for (int64_t r = 0; r < p->rounds; r++)
#pragma GCC unroll 12
        for (int c = 0; c < CHAINS; c++) acc[c] = acc[c] * a + b;
    T sum = 0;
    for (int c = 0; c < CHAINS; c++) sum += acc[c][0];
    double *y = p->y;
    y[0] = sum == sum ? 2. * VL * CHAINS * p->rounds : 0; /* the sums are read, so they are done */
    return FNN_OK;
}

int FNN_SYM(peak_copy)(const fnn_peak_copy_args *p) {
    const char *x = p->x;
    char *y = p->y;
    for (int64_t r = 0; r < p->rounds; r++)
        for (int64_t at = 0; at < p->bytes; at += p->part) {
            memcpy(y + at, x + at, least(p->part, p->bytes - at));
            __asm__ volatile("" ::: "memory"); /* each one counts */
        }
    return FNN_OK;
}

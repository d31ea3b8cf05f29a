/* What batch norm's backward pass makes of a channel's sums, g the gradient: of g and g * (x -
 * mean). */
#ifndef FNN_NORM_GRAD_H
#define FNN_NORM_GRAD_H

#include "vec.h"

typedef struct {
    const T *rstd, *gamma; /* gamma, dgamma, dbeta: null ok */
    double rows;
    T *dgamma, *dbeta;
    T *scale, *slope, *shift; /* dx = g * scale + (x - mean) * slope + shift */
} norm_gradient;

FNN_INLINE void norm_gradient_channel(const norm_gradient *n, int64_t ch, double sum,
                                      double product) {
    double r = n->rstd[ch], scale = n->gamma ? r * (double)n->gamma[ch] : r;
    double share = scale / n->rows;
    if (n->dgamma) n->dgamma[ch] = (T)(product * r);
    if (n->dbeta) n->dbeta[ch] = (T)sum;
    n->scale[ch] = (T)scale;
    n->slope[ch] = (T)(-share * r * r * product);
    n->shift[ch] = (T)(-share * sum);
}

#endif

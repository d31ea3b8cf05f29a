/* What a batch norm with ReLU would have written, computed where it is read: bn_fwd leaves a table
 * of each channel's mean, scale and shift, [3][ld], ld the channels in whole vectors, and one
 * vector more, as whole ones are read from any channel on. */
#ifndef FNN_SCALED_H
#define FNN_SCALED_H

#include "vec.h"

typedef struct {
    V mean, scale, shift;
} scaling;

/* Of the channels from `channel` on; nothing where there is no table. */
FNN_INLINE scaling scaling_at(const T *table, int64_t channels, int64_t channel) {
    int64_t ld = round_up(channels, VL);
    if (!table) return (scaling){0};
    table += channel;
    return (scaling){v_load(table), v_load(table + ld), v_load(table + 2 * ld)};
}

FNN_INLINE V scaled(const scaling *s, V x) { return v_relu((x - s->mean) * s->scale + s->shift); }

#endif

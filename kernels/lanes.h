/* Vectors at the end of a row: as many lanes as are left. */
#ifndef FNN_LANES_H
#define FNN_LANES_H

#include "vec.h"

/* lanes may be VL or more, and then all of them are meant. */
FNN_INLINE V load_lanes(const T *p, int64_t lanes) {
    return lanes >= VL ? v_load(p) : v_load_n(p, lanes);
}
FNN_INLINE void store_lanes(T *p, V v, int64_t lanes) {
    if (lanes >= VL)
        v_store(p, v);
    else
        v_store_n(p, v, lanes);
}
/* v with zeros past the first `lanes`. */
FNN_INLINE V cut_lanes(V v, int64_t lanes) {
    VI number;
    for (int k = 0; k < VL; k++) number[k] = k;
    return v_select(number < (TI)lanes, v, (V){0});
}

#endif

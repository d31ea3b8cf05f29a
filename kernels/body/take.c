/* take and take_labels: gathering the rows of a batch from the user's array, converted on the way.
 */
#define FNN_DEF "def/copy.def"
#include "args.h"

#include "threads.h"
#include "vec.h"

/* A task's elements; BYTES_PER_NS is what one core reads and writes. */
enum { CHUNK = 16384, BYTES_PER_NS = 20 };

static const int8_t bytes_of[] = {
    [FNN_F32] = 4, [FNN_F64] = 8, [FNN_U8] = 1,  [FNN_I8] = 1,
    [FNN_I16] = 2, [FNN_I32] = 4, [FNN_I64] = 8,
};

static int rows_exist(const int64_t *idx, int64_t rows, int64_t src_rows) {
    if (!idx) return rows <= src_rows;
    int bad = 0;
    for (int64_t i = 0; i < rows; i++) bad |= (uint64_t)idx[i] >= (uint64_t)src_rows;
    return !bad;
}

/* Element i of an array of `dtype`. With dtype constant the loops over it are vectorized. */
FNN_INLINE T element(int dtype, const void *p, int64_t i) {
    switch (dtype) {
    case FNN_F32:
        return (T)((const float *)p)[i];
    case FNN_F64:
        return (T)((const double *)p)[i];
    case FNN_U8:
        return (T)((const uint8_t *)p)[i];
    case FNN_I8:
        return (T)((const int8_t *)p)[i];
    case FNN_I16:
        return (T)((const int16_t *)p)[i];
    case FNN_I32:
        return (T)((const int32_t *)p)[i];
    default:
        return (T)((const int64_t *)p)[i];
    }
}

/* scale and shift of channel i are scale[i * step] and shift[i * step]. */
typedef struct {
    const fnn_take_args *args;
    const T *scale, *shift;
    int64_t step, c, hw;
    int64_t rows_per_task;
} take_job;

FNN_INLINE void take_planes(int dtype, int64_t c, const take_job *j, const void *restrict in,
                            T *restrict out) {
    for (int64_t p = 0; p < j->hw; p++)
        for (int64_t k = 0; k < c; k++)
            out[p * c + k] =
                element(dtype, in, k * j->hw + p) * j->scale[k * j->step] + j->shift[k * j->step];
}

FNN_INLINE void take_row(int dtype, const take_job *j, const void *restrict in, T *restrict out) {
    if (j->c == 1) {
        T scale = *j->scale, shift = *j->shift;
        for (int64_t i = 0; i < j->hw; i++) out[i] = element(dtype, in, i) * scale + shift;
    } else if (j->hw == 1) {
        const T *restrict scale = j->scale, *restrict shift = j->shift;
        for (int64_t i = 0; i < j->c; i++) out[i] = element(dtype, in, i) * scale[i] + shift[i];
    } else if (j->c == 3) {
        take_planes(dtype, 3, j, in, out);
    } else {
        take_planes(dtype, j->c, j, in, out);
    }
}

static void take_any(const take_job *j, const void *in, T *out) {
    switch (j->args->dtype) {
    case FNN_F32:
        take_row(FNN_F32, j, in, out);
        break;
    case FNN_F64:
        take_row(FNN_F64, j, in, out);
        break;
    case FNN_U8:
        take_row(FNN_U8, j, in, out);
        break;
    case FNN_I8:
        take_row(FNN_I8, j, in, out);
        break;
    case FNN_I16:
        take_row(FNN_I16, j, in, out);
        break;
    case FNN_I32:
        take_row(FNN_I32, j, in, out);
        break;
    default:
        take_row(FNN_I64, j, in, out);
    }
}

static void take_task(void *ctx, int64_t task) {
    const take_job *j = ctx;
    const fnn_take_args *a = j->args;
    const int64_t *idx = a->idx;
    int64_t row_size = j->c * j->hw, row_bytes = row_size * bytes_of[a->dtype];
    int64_t from = task * j->rows_per_task, to = from + j->rows_per_task;
    int same = a->dtype == (FNN_BITS == 32 ? FNN_F32 : FNN_F64) && j->c == 1 && !a->scale;
    for (int64_t i = from; i < to && i < a->rows; i++) {
        const char *in = (const char *)a->src + (idx ? idx[i] : i) * row_bytes;
        T *out = (T *)a->out + i * row_size;
        if (same)
            memcpy(out, in, (size_t)row_bytes);
        else
            take_any(j, in, out);
    }
}

int FNN_SYM(take)(const fnn_take_args *a) {
    static const T one = 1, nothing = (T)-0.0; /* x * 1 - 0 is x, -0 included */
    if (!rows_exist(a->idx, a->rows, a->src_rows)) return FNN_BAD_INDEX;
    take_job j = {a, a->scale, a->shift, 1, a->c, a->hw, 1};
    if (!j.scale) {
        j.scale = &one, j.shift = &nothing, j.step = 0;
        if (j.c == 1 || j.hw == 1) j.hw *= j.c, j.c = 1;
    }
    int64_t row_size = a->c * a->hw;
    if (row_size == 0) return FNN_OK;
    if (row_size < CHUNK) j.rows_per_task = CHUNK / row_size;
    double bytes = (double)a->rows * row_size * ((int)sizeof(T) + bytes_of[a->dtype]);
    fnn_parallel((a->rows + j.rows_per_task - 1) / j.rows_per_task, bytes / BYTES_PER_NS, take_task,
                 &j);
    return FNN_OK;
}

static int64_t label(int64_t dtype, const void *p, int64_t i) {
    switch (dtype) {
    case FNN_F32:
        return (int64_t)((const float *)p)[i];
    case FNN_F64:
        return (int64_t)((const double *)p)[i];
    case FNN_U8:
        return ((const uint8_t *)p)[i];
    case FNN_I8:
        return ((const int8_t *)p)[i];
    case FNN_I16:
        return ((const int16_t *)p)[i];
    case FNN_I32:
        return ((const int32_t *)p)[i];
    default:
        return ((const int64_t *)p)[i];
    }
}

int FNN_SYM(take_labels)(const fnn_take_labels_args *a) {
    const int64_t *idx = a->idx;
    int64_t *out = a->out;
    if (!rows_exist(idx, a->rows, a->src_rows)) return FNN_BAD_INDEX;
    for (int64_t i = 0; i < a->rows; i++)
        for (int64_t k = 0; k < a->row_size; k++)
            *out++ = label(a->dtype, a->src, (idx ? idx[i] : i) * a->row_size + k);
    return FNN_OK;
}

/* The perceptron learning rule (Rosenblatt, 1958), and Kesler's extension of it to several classes.
 * Each row's weights depend on the row before: one thread, one row after another. */
#define FNN_DEF "def/perceptron.def"
#include "args.h"

#include "vec.h"

static T score(const T *w, const T *x, int64_t d) {
    V sum = {0};
    int64_t i = 0;
    for (; i + VL <= d; i += VL) sum += v_load(w + i) * v_load(x + i);
    if (i < d) sum += v_load_n(w + i, d - i) * v_load_n(x + i, d - i);
    return v_sum(sum) + w[d];
}

/* w += rate * (x, 1). */
static void move(T *w, const T *x, const fnn_perceptron_args *a, T rate) {
    for (int64_t i = 0; i < a->d; i++) w[i] += rate * x[i];
    if (a->bias) w[a->d] += rate;
}

/* Two classes: a score above 0 says 1. One of 0 is a mistake either way. */
static int learn_binary(const fnn_perceptron_args *a, const T *x, int64_t y) {
    T sign = y ? 1 : -1;
    if (sign * score(a->w, x, a->d) > 0) return 0;
    move(a->w, x, a, sign * (T)a->rate);
    return 1;
}

/* The label's score must be the largest, alone; else it and the largest other one move. */
static int learn_class(const fnn_perceptron_args *a, const T *x, int64_t y) {
    T *w = a->w, best = 0;
    int64_t rival = -1, row = a->d + 1;
    for (int64_t k = 0; k < a->classes; k++) {
        if (k == y) continue;
        T s = score(w + k * row, x, a->d);
        if (rival < 0 || s > best) best = s, rival = k;
    }
    if (score(w + y * row, x, a->d) > best) return 0;
    move(w + y * row, x, a, (T)a->rate);
    move(w + rival * row, x, a, (T)-a->rate);
    return 1;
}

int FNN_SYM(perceptron)(const fnn_perceptron_args *a) {
    const int64_t *y = a->y, most = a->classes > 1 ? a->classes : 2;
    for (int64_t i = 0; i < a->n; i++)
        if ((uint64_t)y[i] >= (uint64_t)most) return FNN_BAD_LABEL;
    int64_t *state = a->state;
    size_t bytes = sizeof(T) * a->classes * (a->d + 1);
    for (int64_t e = 0; e < a->epochs; e++) {
        int64_t mistakes = 0;
        for (int64_t i = 0; i < a->n; i++) {
            const T *x = (const T *)a->x + i * a->d;
            mistakes += a->classes > 1 ? learn_class(a, x, y[i]) : learn_binary(a, x, y[i]);
        }
        state[0]++, state[1] += mistakes, state[2] = mistakes;
        if (!mistakes) break;
        state[3] = !memcmp(a->w, a->saved, bytes);
        if (state[3]) break;
        /* Weights are kept at epochs 1, 2, 4, 8..: a cycle is met once that spans one round of it.
         */
        if (!(state[0] & (state[0] - 1))) memcpy(a->saved, a->w, bytes);
    }
    return FNN_OK;
}

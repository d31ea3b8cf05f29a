/* The error function and the normal distribution on vectors.
 *
 * For a >= 0: erfc(a) = exp(-a^2) q P(q - 2/3) with q = 3 / (a + 3), where P is smooth; its
 * coefficients come from tests/kernels/golden/make_erf.py. Near 0 erf has its Taylor series,
 * 2 / sqrt(pi) * sum of (-1)^k x^(2k+1) / (k! (2k+1)).
 */
#ifndef FNN_ERF_H
#define FNN_ERF_H

#include "vmath.h"

#if FNN_BITS == 32
enum { ERFCX_TERMS = 10, ERF_TERMS = 8 };
static const T erfcx_terms[] = {
    0.4823781241f, 0.9331148542f,  1.319752546f,   1.326259181f,   0.8425465466f,
    0.1781414968f, -0.1900841412f, -0.1306051376f, 0.04260416558f, 0.05471324587f,
};
#else
enum { ERFCX_TERMS = 20, ERF_TERMS = 15 };
static const T erfcx_terms[] = {
    0x1.edf487f74041cp-2, 0x1.ddc13af371eabp-1,   0x1.51db4924e03aap+0,  0x1.5385b260e7678p+0,
    0x1.af64c00d796b0p-1, 0x1.6ce3d998882d6p-3,   -0x1.864a4e8d07359p-3, -0x1.0ce9a69703377p-3,
    0x1.87c0cc51e976ep-5, 0x1.fca5cff64eec5p-5,   -0x1.5bdbf3ced0071p-6, -0x1.d4d5aee333e61p-6,
    0x1.f14a929896f1ap-7, 0x1.8346b0b0e7ec4p-7,   -0x1.8181c5e56d183p-7, -0x1.5eedf902f6abfp-9,
    0x1.0203499313ac9p-7, -0x1.ca32f22677494p-10, -0x1.c62b7bbb98877p-9, 0x1.1b814139332d9p-9,
};
#endif

/* erfc(a) exp(a^2) for a >= 0; right up to a = 6, from where on erf is 1. Where exp(-a^2) is 0 any
 * finite number does. */
FNN_INLINE V v_erfcx(V a) {
    V q = v_reciprocal(v_at_most(a, 40) + (T)3) * (T)3, u = q - (T)(2. / 3);
    V y = v_set1(erfcx_terms[ERFCX_TERMS - 1]);
    for (int k = ERFCX_TERMS - 2; k >= 0; k--) y = y * u + erfcx_terms[k];
    return q * y;
}

/* 2 / sqrt(pi) (-1)^k / (k! (2k + 1)); a constant where k is one. */
FNN_INLINE T erf_term(int k) {
    double factorial = 1;
    for (int i = 2; i <= k; i++) factorial *= i;
    return (T)((k % 2 ? -1 : 1) * 1.1283791670955126 / (factorial * (2 * k + 1)));
}

FNN_INLINE V v_erf(V x) {
    V a = v_abs(x), z = x * x, near = v_set1(erf_term(ERF_TERMS));
    for (int k = ERF_TERMS - 1; k > 0; k--) near = near * z + erf_term(k);
    near = (near * z + (T)0.1283791670955126) * x + x;
    V far = v_copysign((T)1 - v_exp(-z) * v_erfcx(a), x);
    return v_select(a < (T)0.8, near, far);
}

/* The standard normal distribution's Phi(x), and its density exp(-x^2 / 2) / sqrt(2 pi). */
typedef struct {
    V below, density;
} fnn_normal;

FNN_INLINE fnn_normal v_normal(V x) {
    V e = v_exp(x * x * (T)-0.5);
    V tail = e * v_erfcx(v_abs(x) * (T)0.7071067811865476) * (T)0.5;
    return (fnn_normal){v_select(x < 0, tail, (T)1 - tail), e * (T)0.3989422804014327};
}

#endif

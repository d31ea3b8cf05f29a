/* The error function on vectors, by pieces of |x| (pieces.h) where there are such.
 *
 * Else for a >= 0: erfc(a) = exp(-a^2) q P(q - 2/3) with q = 3 / (a + 3), where P is smooth; its
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

#if defined(FNN_PIECES)
enum { ERF_PIECE_TERMS = 5 };
#define ERF_LOG2_WIDTH 3
#define ERF_LIMIT 3.936f /* erf is 1 from there on */
/* Less u, whose factor would be rounded to 0.9 ULP near 0. */
/* clang-format off */
static const T erf_pieces[ERF_PIECE_TERMS][FNN_PIECES] = {
    {0.0f, 0.140316203f, 0.276326388f, 0.404116899f, 0.520499885f, 0.623240888f, 0.711155653f,
     0.784075081f, 0.842700779f, 0.888388216f, 0.92290014f, 0.948170066f, 0.966105163f,
     0.978443742f, 0.986671686f, 0.99199003f, 0.995322287f, 0.997345984f, 0.998537302f,
     0.999217033f, 0.999593019f, 0.999794602f, 0.999899387f, 0.999952137f, 0.999977887f,
     0.999990106f, 0.999995708f, 0.999998212f, 0.999999285f, 0.999999702f, 0.999999881f,
     0.99999994f},
    {0.128379151f, 0.11088486f, 0.0600137934f, -0.0196472108f, -0.121217422f, -0.236500457f,
     -0.357068896f, -0.475254923f, -0.584892511f, -0.681726038f, -0.763478875f, -0.82964021f,
     -0.88106966f, -0.919527709f, -0.947225034f, -0.966454208f, -0.979333043f, -0.987659216f,
     -0.992857695f, -0.995993555f, -0.997821748f, -0.998852134f, -0.999413729f, -0.999709785f,
     -0.999860764f, -0.999935269f, -0.999970794f, -0.999987245f, -0.999994576f, -0.999997795f,
     -0.999999106f, -0.999999523f},
    {8.08046116e-06f, -0.138855726f, -0.264999002f, -0.367619514f, -0.43939811f, -0.477192998f,
     -0.482220858f, -0.459172606f, -0.41509369f, -0.358042747f, -0.295663863f, -0.234235033f,
     -0.178426638f, -0.13078481f, -0.0923764482f, -0.0628699288f, -0.0413565673f, -0.0262468308f,
     -0.0160892494f, -0.0094862869f, -0.00541651109f, -0.00299076247f, -0.00162175589f,
     -0.00082402298f, -0.000394380186f, -0.000206850091f, -0.000106377491f, -7.08296429e-05f,
     -4.74083317e-05f, -2.29554325e-06f, 5.22016535e-06f, 2.55274153e-05f},
    {-0.376744092f, -0.358241886f, -0.30879423f, -0.234714568f, -0.146438822f, -0.0557676181f,
     0.0265964326f, 0.0926843733f, 0.138135582f, 0.162241906f, 0.167373836f, 0.1578421f,
     0.138685599f, 0.114820428f, 0.0901891217f, 0.0674913675f, 0.0482764058f, 0.0330913179f,
     0.021765165f, 0.0137690697f, 0.00838098489f, 0.00490757823f, 0.00277164695f, 0.00151247403f,
     0.000797679881f, 0.000414528331f, 0.000191584928f, 9.20216989e-05f, 3.50210212e-05f,
     2.40065547e-05f, 4.15036948e-06f, 6.07348829e-06f},
    {0.0149391927f, 0.067301482f, 0.125680462f, 0.16362372f, 0.184237555f, 0.177475005f,
     0.155453086f, 0.11659044f, 0.0663755313f, 0.0248724055f, -0.00352018769f, -0.0324336924f,
     -0.0368953831f, -0.0452703051f, -0.0435031578f, -0.0480797328f, -0.0298152678f, -0.020958012f,
     -0.0151975583f, -0.0191052407f, -0.0146138854f, -0.0100130318f, -0.00132065022f,
     -0.00423247414f, -0.00583544001f, 0.00050857215f, 0.00207024324f, 0.00554941827f,
     0.0057708798f, -0.00146030053f, -0.00201552361f, -0.00550366752f},
};
/* clang-format on */
#endif

FNN_INLINE V v_erf(V x) {
#if defined(FNN_PIECES)
    V a = v_at_most(v_abs(x), ERF_LIMIT);
    V number = a * (T)(1 << ERF_LOG2_WIDTH) + PIECES_ROUNDER;
    V u = PIECES_REST(a, ERF_LOG2_WIDTH);
    V slope = piece_value(erf_pieces + 1, ERF_PIECE_TERMS - 1, number, u);
    V y = slope * u + u + piece_term(erf_pieces[0], number);
    return (V)((VU)y | ((VU)x & FNN_SIGN_BIT)); /* y is not negative */
#else
    V a = v_abs(x), z = x * x, near = v_set1(erf_term(ERF_TERMS));
    for (int k = ERF_TERMS - 1; k > 0; k--) near = near * z + erf_term(k);
    near = (near * z + (T)0.1283791670955126) * x + x;
    V far = v_copysign((T)1 - v_exp(-z) * v_erfcx(a), x);
    return v_select(a < (T)0.8, near, far);
#endif
}

#endif

/* Numbers below the normal ones take as long as a hundred others, in every operation, and things
 * that fade end there: gradients over many steps, an optimizer's momentum once a network has
 * learned its data (0.9 times the smallest number is the smallest number again, so it never becomes
 * zero). Within the tasks of such kernels they are zero; what the thread had set comes back.
 */
#ifndef FNN_DENORMALS_H
#define FNN_DENORMALS_H

#include "vec.h"

#if defined(__x86_64__)
FNN_INLINE unsigned flush_denormals(void) {
    unsigned before = _mm_getcsr();
    _mm_setcsr(before | 0x8040);
    return before;
}
FNN_INLINE void restore_denormals(unsigned before) { _mm_setcsr(before); }
#elif defined(__aarch64__)
FNN_INLINE uint64_t flush_denormals(void) {
    uint64_t before;
    __asm__ volatile("mrs %0, fpcr" : "=r"(before));
    __asm__ volatile("msr fpcr, %0" : : "r"(before | 1u << 24));
    return before;
}
FNN_INLINE void restore_denormals(uint64_t before) {
    __asm__ volatile("msr fpcr, %0" : : "r"(before));
}
#endif

#endif

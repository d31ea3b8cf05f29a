/* x86-64-v4: 32 registers of 512 bits. */
#define FNN_ISA avx512
#define FNN_VBYTES 64
#define FNN_MR 14
#define FNN_NV 2

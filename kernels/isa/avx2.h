/* x86-64-v3: 16 registers of 256 bits, two FMA ports of latency 4-5. */
#define FNN_ISA avx2
#define FNN_VBYTES 32
#define FNN_MR 6
#define FNN_NV 2

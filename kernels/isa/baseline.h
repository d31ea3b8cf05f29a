/* x86-64-v2: 16 registers of 128 bits, no FMA. */
#define FNN_ISA baseline
#define FNN_VBYTES 16
#define FNN_MR 4
#define FNN_NV 2

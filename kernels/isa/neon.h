/* aarch64: 32 registers of 128 bits. */
#define FNN_ISA neon
#define FNN_VBYTES 16
#define FNN_MR 8
#define FNN_NV 3

// Marks a function that the CPU and the CUDA backend share: one text, the same bits on both.
#pragma once

#if defined(__CUDACC__)
#define NRI_HOST_DEVICE __host__ __device__
#else
#define NRI_HOST_DEVICE
#endif

// The kernel variants of this build, generic C++ first. CMakeLists.txt defines the NRI_HAVE_... of those it compiles.
#pragma once

#if defined(NRI_HAVE_AVX2)
#define NRI_IF_AVX2(macro) macro(avx2)
#else
#define NRI_IF_AVX2(macro)
#endif
#if defined(NRI_HAVE_AVX512)
#define NRI_IF_AVX512(macro) macro(avx512)
#else
#define NRI_IF_AVX512(macro)
#endif
#define NRI_FOR_EACH_VARIANT(macro) macro(generic) NRI_IF_AVX2(macro) NRI_IF_AVX512(macro)

// The loops of fit_train with AVX-512.
#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

#include <cmath>

#define FIT_TARGET __attribute__((target("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq")))
#define FIT_WIDTH 16
#include "fit_train_work.h"

#include "fit_train_vectors.h"
#include "fit_train_upsample.h"

#include "fit_train_context.h"
#include "fit_train_latents.h"
#include "fit_train_picture.h"

namespace latentpack::fit_train {

const Loops kLoopsAvx512 = {W, context, upsample, synthesise, convolve, convolve_back, synthesise_back,
                           upsample_back, soften, adam};

}  // namespace latentpack::fit_train
#endif

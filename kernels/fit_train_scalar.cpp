// The loops of fit_train with vectors of four floats, which every compiler of ours can make.
#include <cmath>

#define FIT_TARGET 
#define FIT_WIDTH 4
#include "fit_train_work.h"

#include "fit_train_vectors.h"
#include "fit_train_upsample.h"

#include "fit_train_context.h"
#include "fit_train_latents.h"
#include "fit_train_picture.h"

namespace latentpack::fit_train {

const Loops kLoopsScalar = {W, context, upsample, synthesise, convolve, convolve_back, synthesise_back,
                           upsample_back, soften, adam};

}  // namespace latentpack::fit_train

// What the kernels take.
#pragma once

#include "tenon/device.h"

namespace tenon_cuda {

tenon::OpAnswer AnswerFor(const tenon::OpQuery& query);

}  // namespace tenon_cuda

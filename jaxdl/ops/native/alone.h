// oneDNN in a piece of work that XLA's threads share.

#ifndef JAXDL_ALONE_H_
#define JAXDL_ALONE_H_

#include "tbb/task_arena.h"

namespace jaxdl {

// Calls `work` with oneDNN on the calling thread alone: its own threads would come late,
// and compete with XLA's for the cores.
template <typename Work>
void Alone(const Work& work) {
  thread_local tbb::task_arena arena(1);
  arena.execute(work);
}

}  // namespace jaxdl

#endif  // JAXDL_ALONE_H_

/* What may be sent to a board: functions that answer, fail, crash and do not end. */
#include <stdlib.h>
#include <tvm/ffi/c_api.h>

#define FUNCTION(name) int __tvm_ffi_##name(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result)

FUNCTION(answer) {
  result->type_index = kTVMFFIInt;
  result->zero_padding = 0;
  result->v_int64 = 42;
  return 0;
}

FUNCTION(fail) {
  TVMFFIErrorSetRaisedFromCStr("ValueError", "the moon is too low");
  return -1;
}

FUNCTION(read_nowhere) { return *(volatile int *)8; }

FUNCTION(stop) { abort(); }

static int deep(volatile char *above) {
  volatile char here[4096];
  here[0] = above ? above[0] : 0;
  return deep(here) + here[0];
}

FUNCTION(overflow) { return deep(NULL); }

FUNCTION(endless) {
  for (volatile int i = 0;; i++);
}

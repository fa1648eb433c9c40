/* Runs a candidate of a library for TVM's runtime without that runtime: run_candidate LIBRARY RUN BYTES_OUT. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

typedef int function_t(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) { printf("%s: %s\n", kind, message); }

int main(int argc, char **argv) {
  void *library = argc == 4 ? dlopen(argv[1], RTLD_NOW) : NULL;
  if (!library) return printf("%s\n", dlerror()), 2;
  function_t *const check = (function_t *)dlsym(library, "__tvm_ffi_check");
  function_t *const call = (function_t *)dlsym(library, "__tvm_ffi_call");
  int64_t bytes = atol(argv[3]), stride = 1;
  DLTensor tensor;
  memset(&tensor, 0, sizeof tensor);
  tensor.data = calloc(bytes, 1);
  tensor.device.device_type = kDLCPU;
  tensor.ndim = 1;
  tensor.dtype.code = kDLUInt, tensor.dtype.bits = 8, tensor.dtype.lanes = 1;
  tensor.shape = &bytes, tensor.strides = &stride;
  TVMFFIAny arguments[2], result;
  arguments[0].type_index = kTVMFFIInt, arguments[0].v_int64 = atol(argv[2]);
  arguments[1].type_index = kTVMFFIDLTensorPtr, arguments[1].v_ptr = &tensor;
  if (check(NULL, arguments, 2, &result) || call(NULL, arguments, 1, &result)) return 1;
  FILE *file = fopen("output.bin", "wb");
  fwrite(tensor.data, 1, bytes, file);
  return fclose(file);
}

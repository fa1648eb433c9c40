/* Calls a model as TVM's runtime does: main(input, output), where the files input.bin and output.bin are the tensors. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/c_api.h>

int __tvm_ffi_main(void *self, const TVMFFIAny *arguments, int32_t count, TVMFFIAny *result);

void TVMFFIErrorSetRaisedFromCStr(const char *kind, const char *message) { printf("%s: %s\n", kind, message); }

int main(int argc, char **argv) {
  /* call_module BYTES_IN BYTES_OUT ARGUMENTS STRIDE */
  int64_t sizes[2] = {atol(argv[1]), atol(argv[2])}, stride = atol(argv[4]);
  struct {
    TVMFFIObject header;
    DLTensor tensor;
  } objects[2];
  TVMFFIAny arguments[2], result;
  (void)argc;
  memset(objects, 0, sizeof objects);
  for (int i = 0; i < 2; i++) {
    DLTensor *const tensor = &objects[i].tensor;
    tensor->data = calloc(sizes[i] + 8, 1);
    tensor->byte_offset = 8;
    tensor->device.device_type = kDLCPU;
    tensor->ndim = 1;
    tensor->dtype.code = kDLUInt, tensor->dtype.bits = 8, tensor->dtype.lanes = 1;
    tensor->shape = &sizes[i];
    tensor->strides = &stride;
    /* One as a plain tensor, one as an object of the runtime. */
    arguments[i].type_index = i ? kTVMFFITensor : kTVMFFIDLTensorPtr;
    if (i)
      arguments[i].v_obj = &objects[i].header;
    else
      arguments[i].v_ptr = tensor;
  }
  FILE *file = fopen("input.bin", "rb");
  if (!file || fread((char *)objects[0].tensor.data + 8, 1, sizes[0], file) != (size_t)sizes[0]) return 2;
  fclose(file);
  if (__tvm_ffi_main(NULL, arguments, atoi(argv[3]), &result)) return 1;
  file = fopen("output.bin", "wb");
  fwrite((char *)objects[1].tensor.data + 8, 1, sizes[1], file);
  return fclose(file) || result.type_index != kTVMFFINone;
}

/* What functions of TVM's runtime in plain C share: refusals, an empty result, and the memory of an argument. */
#include <stdint.h>
#include <tvm/ffi/c_api.h>

static int fail(const char *why) {
  TVMFFIErrorSetRaisedFromCStr("ValueError", why);
  return -1;
}

static int none(TVMFFIAny *result) {
  result->type_index = kTVMFFINone;
  result->zero_padding = 0;
  result->v_int64 = 0;
  return 0;
}

/* The memory of an argument that is a dense tensor of so many bytes, or NULL. */
static void *memory_of(const TVMFFIAny *argument, uint32_t bytes) {
  const DLTensor *tensor;
  if (argument->type_index == kTVMFFIDLTensorPtr)
    tensor = argument->v_ptr;
  else if (argument->type_index == kTVMFFITensor)
    tensor = (const DLTensor *)((const uint8_t *)argument->v_obj + sizeof(TVMFFIObject));
  else
    return NULL;
  uint64_t size = (tensor->dtype.bits * tensor->dtype.lanes + 7) / 8;
  int64_t dense = 1;
  for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
    if (tensor->strides && tensor->shape[i] != 1 && tensor->strides[i] != dense) return NULL;
    dense *= tensor->shape[i];
  }
  if (tensor->device.device_type != kDLCPU || size * (uint64_t)dense != bytes) return NULL;
  return (uint8_t *)tensor->data + tensor->byte_offset;
}

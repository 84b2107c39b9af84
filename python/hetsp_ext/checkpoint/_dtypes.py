"""The element types a rank's file can hold, by the names that safetensors gives them."""

import torch

from ..errors import InvalidArgument

# Packed types (float4, int1 ... uint7) and quantized ones are absent: their shapes do not count bytes. complex128 has no name.
NAMES: dict[torch.dtype, str] = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.complex64: "C64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
ITEM_BYTES = {name: dtype.itemsize for name, dtype in DTYPES.items()}


def dtype_name(dtype: torch.dtype, tensor: str) -> str:
    """The safetensors name of `dtype`; InvalidArgument naming `tensor` where it has none."""
    if dtype not in NAMES:
        allowed = ", ".join(str(known).removeprefix("torch.") for known in NAMES)
        raise InvalidArgument(f"tensor {tensor!r} is {dtype}, which a checkpoint cannot hold; allowed: {allowed}")
    return NAMES[dtype]

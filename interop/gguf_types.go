package interop

// Constants of the GGUF format.
const (
	ggufMagic   = "GGUF"
	ggufVersion = 3
)

// Types of a metadata value.
const (
	ggufUint8   = 0
	ggufInt8    = 1
	ggufUint16  = 2
	ggufInt16   = 3
	ggufUint32  = 4
	ggufInt32   = 5
	ggufFloat32 = 6
	ggufBool    = 7
	ggufString  = 8
	ggufArray   = 9
	ggufUint64  = 10
	ggufInt64   = 11
	ggufFloat64 = 12
)

// Types of a tensor's data.
const (
	ggmlF32   = 0
	ggmlF16   = 1
	ggmlQ8_0  = 8
	ggmlBF16  = 30
	ggmlTQ1_0 = 34
	ggmlTQ2_0 = 35
)
